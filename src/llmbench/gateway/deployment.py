"""The variants of a running server: adding, removing and reloading them while it answers.

Each change is whole or not made at all: an adapter is admitted, loaded and proven before a request can reach it, and is
unloaded when the last answer of its last variant has ended. One thread makes all changes, in turn; any thread may list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.engine import BASE, Adapter, admit_variant
from llmbench.errors import EngineError, LlmbenchError
from llmbench.gateway.cards import documents, pipelines
from llmbench.gateway.cards import served as served_of
from llmbench.gateway.catalogue import Catalogue, Served, refuse_clash
from llmbench.gateway.changing import Cutter, Engines, Loader
from llmbench.gateway.grounding import Grounding, open_retriever
from llmbench.gateway.proving import need_certificate, settle, settle_pipeline
from llmbench.gateway.reload_plan import LIVE, ReloadPlan, fixed
from llmbench.gateway.traffic import Routes
from llmbench.parity import Parity
from llmbench.recipe import GatewaySpec, RouteSpec, ServeRecipe, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Deployment"]

_LOOK_SECONDS = 0.05
_CUT_SECONDS = 5.0
"""For answers that are cut off to reach their end."""


class Deployment:
    """What is served, and every change of it.

    Args:
        recipe: the serving document that the engine was started with.
        catalogue: what requests are answered from.
        engine: what loads adapters.
        way: the way to the engine.
        groundings: the open pipelines, by their documents.
        proofs: the verdicts so far, by the adapters' ids.
        apply: makes the gateway work by the changed fields of its section.
        say: told what is worth knowing, a line each.
        admit: checks and stores the adapter of a variant.
        open: opens a pipeline.
        routes: those over the variants; None is the document's.
        engines: those that run elsewhere, where they do.
    """

    def __init__(
        self,
        recipe: ServeRecipe,
        catalogue: Catalogue,
        engine: Loader,
        way: Cutter,
        *,
        groundings: dict[Path, Grounding],
        proofs: dict[str, Parity],
        apply: Callable[[GatewaySpec], None],
        say: Callable[[str], None],
        admit: Callable[[ServeRecipe, str, str], Adapter] = admit_variant,
        open: Callable[[Path], Grounding] = open_retriever,
        routes: Routes | None = None,
        engines: Engines | None = None,
    ) -> None:
        self.recipe = recipe
        self.routes = routes if routes is not None else Routes(recipe.routes)
        self.catalogue = catalogue
        self.proofs = proofs
        self._engine = engine
        self._engines = engines
        self._way = way
        self._groundings = groundings
        self._apply = apply
        self._say = say
        self._admit_one = admit
        self._open = open
        self._coming: tuple[Variant, ...] = ()
        self._leaving: tuple[Served, ...] = ()

    def listing(self) -> list[dict[str, Any]]:
        """Every variant with its adapter, pipeline, state (ready, loading, draining), parity and requests that are running."""
        rows = [_row(served, "ready") for served in list(self.catalogue.now.known.values())]
        rows += [
            {"name": one.name, "adapter": None, "rag": None, "state": "loading", "parity": None, "requests": 0}
            for one in self._coming
        ]
        return rows + [_row(served, "draining") for served in self._leaving]

    def add(self, variant: Variant) -> Served:
        """Serves one more variant, from now on.

        Raises:
            LlmbenchError: there is one of this name, or it cannot be served; nothing has changed then.
        """
        if variant.name in self.catalogue.now.known:
            raise LlmbenchError(f"{variant.name} is served already. Remove it first, or choose another name")
        if variant.name in self.routes.now:
            raise LlmbenchError(f"There is a route named {variant.name}. Choose another name")
        self._bring(variant, self._admit(variant))
        return self.catalogue.now.known[variant.name]

    def remove(self, name: str, *, drain: float | None = None) -> int:
        """Serves a variant no longer; returns once its adapter is unloaded, where no other variant has it.

        Args:
            name: the variant's.
            drain: seconds for its answers to end before its adapter goes; None is `gateway.shutdown_timeout`.

        Returns:
            How many answers were cut off.

        Raises:
            LlmbenchError: there is no such variant, or it is the only one.
        """
        known = self.catalogue.now.known
        if name not in known:
            raise LlmbenchError(f"There is no variant {name}. Available: {', '.join(known)}")
        if len(known) == 1:
            raise LlmbenchError(f"{name} is the only variant. Add another one first, or stop the server")
        self.routes.refuse_removal(name)
        return self._retire(self.catalogue.drop(name), drain)

    def plan(self, document: ServeRecipe) -> ReloadPlan:
        """What a reload of this document would do. Adapters are checked and stored, and nothing else happens."""
        return self._compare(document)[0]

    def reload(self, document: ServeRecipe) -> ReloadPlan:
        """Serves what a document says, as far as that needs no new start; what was done, and what was not.

        A variant that cannot be served as the document says stays as it is.
        """
        plan, adapters = self._compare(document)
        for name in list(plan.routes_removed):
            self._route(plan, name, lambda name=name: self.routes.drop(name))  # type: ignore[misc]
        sections = {section: self._live(section, document) for section in LIVE}
        self.recipe = self.recipe.model_copy(update=sections | {"parity": document.parity})
        self._apply(self.recipe.gateway)
        self._add_engines(plan)
        for name in list(plan.changed):  # observations of two models under one name would be pooled
            if route := self.routes.tried(name):
                plan.changed.remove(name)
                plan.refused[name] = f"{name} is in the rollout of {route}. End it first: llmbench rollout abort {route}"
        wanted = [one for one in document.variants if one.name in (*plan.changed, *plan.added)]
        failed = self._bring_all(wanted, adapters)
        self._divide(document, plan)  # new variants are there by now, and those that go are needed no longer
        for name in list(plan.removed):
            try:
                self.remove(name)
            except LlmbenchError as error:
                plan.removed.remove(name)
                plan.refused[name] = str(error)
        if failed and plan.removed:  # there may be room now
            failed = self._bring_all([one for one in wanted if one.name in failed], adapters)
        self._remove_engines(plan)
        plan.refused |= failed
        plan.added = [name for name in plan.added if name not in failed]
        plan.changed = [name for name in plan.changed if name not in failed]
        return plan

    def _add_engines(self, plan: ReloadPlan) -> None:
        """Has the engines that a document names in addition; they have joined, or do not answer yet."""
        for url in list(plan.engines_added):
            assert self._engines is not None
            try:
                if (reason := self._engines.add(url)) is not None:
                    plan.engines_waiting[url] = reason
            except EngineError as error:
                plan.engines_added.remove(url)
                plan.refused[url] = str(error)

    def _remove_engines(self, plan: ReloadPlan) -> None:
        """Asks engines no longer that a document does not name any more; what was asked of them may end before."""
        for url in list(plan.engines_removed):
            assert self._engines is not None
            try:
                self._engines.remove(url, self.recipe.gateway.shutdown_timeout)
            except EngineError as error:
                plan.engines_removed.remove(url)
                plan.refused[url] = str(error)
        if self._engines is not None:
            self.recipe = self.recipe.model_copy(
                update={"engine": self.recipe.engine.model_copy(update={"urls": self._engines.urls})}
            )

    def _divide(self, document: ServeRecipe, plan: ReloadPlan) -> None:
        """Offers the routes that a document changes, as far as their variants are there."""
        for spec in document.routes:
            if spec.name in (*plan.routes_added, *plan.routes_changed):
                self._route(plan, spec.name, lambda spec=spec: self._put(spec))  # type: ignore[misc]

    def _put(self, spec: RouteSpec) -> None:
        known = self.catalogue.now.known
        shadow = [spec.shadow.variant] if spec.shadow is not None else []
        if missing := next((name for name in (*spec.variants, *shadow) if name not in known), None):
            raise LlmbenchError(f"there is no variant {missing}")
        if spec.name in known:
            raise LlmbenchError(f"there is a variant named {spec.name}")
        self.routes.put(spec)

    def _route(self, plan: ReloadPlan, name: str, change: Callable[[], None]) -> None:
        """Makes a change of a route, or notes why it was refused."""
        try:
            change()
        except LlmbenchError as error:
            plan.refused[name] = str(error)
            for names in (plan.routes_added, plan.routes_changed, plan.routes_removed):
                if name in names:
                    names.remove(name)

    def _live(self, section: str, document: ServeRecipe) -> Any:
        """A section of the present recipe with the fields of the document that can be applied."""
        now, then = getattr(self.recipe, section), getattr(document, section)
        return now.model_copy(update={name: getattr(then, name) for name in LIVE[section]})

    def _compare(self, document: ServeRecipe) -> tuple[ReloadPlan, dict[str, Adapter | None]]:
        refuse_clash(pipelines(document, documents(document)))
        plan = ReloadPlan(restart=fixed(self.recipe, document))
        if self._engines is not None and document.engine.urls:
            now, then = self._engines.urls, document.engine.urls
            plan.engines_added = [url for url in then if url not in now]
            plan.engines_removed = [url for url in now if url not in then]
        adapters: dict[str, Adapter | None] = {}
        known = self.catalogue.now.known
        for variant in document.variants:
            before = known.get(variant.name)
            try:
                adapter = adapters[variant.name] = self._admit(variant)
            except LlmbenchError as error:
                plan.refused[variant.name] = str(error)
                continue
            if before is None:
                plan.added.append(variant.name)
            elif before.variant != variant or before.engine_name != (adapter.id if adapter else BASE):
                plan.changed.append(variant.name)
        plan.removed = [name for name in known if document.variant(name) is None]
        plan.routes_added, plan.routes_changed, plan.routes_removed = self.routes.differences(document.routes)
        return plan, adapters

    def _admit(self, variant: Variant) -> Adapter | None:
        if variant.adapter is None:
            return None
        adapter = self._admit_one(self.recipe, variant.name, variant.adapter)
        self._engine.refuse(adapter)
        return adapter

    def _bring_all(self, variants: list[Variant], adapters: dict[str, Adapter | None]) -> dict[str, str]:
        """Brings what can be brought; the others' names and reasons."""
        failed = {}
        for variant in variants:
            try:
                self._bring(variant, adapters[variant.name])
            except LlmbenchError as error:
                failed[variant.name] = str(error)
        return failed

    def _bring(self, variant: Variant, adapter: Adapter | None) -> None:
        """Makes everything ready for a variant and then offers it, in the place of one of the same name.

        Raises:
            LlmbenchError: it cannot be served; everything is as it was.
        """
        self._coming = (variant,)
        try:
            with self._grounding(variant) as grounding, self._adapter(adapter) as proof:
                before = self.catalogue.put(served_of(self.recipe, variant, adapter, grounding, proof))
        finally:
            self._coming = ()
        self._say(f"Serving {variant.name}{' as the document says now' if before else ''}")
        if before is not None:
            self._retire(before, None)

    @contextmanager
    def _grounding(self, variant: Variant) -> Iterator[Grounding | None]:
        """The variant's pipeline, open; closed again when the block fails and it was not open before."""
        path = variant.rag
        if path is None or path in self._groundings:
            yield self._groundings[path] if path is not None else None
            return
        opened = self._open(path)
        try:
            opened.ready()
            settle_pipeline(self.recipe, opened, self._say)
            yield opened
        except BaseException:
            opened.close()
            raise
        self._groundings[path] = opened

    @contextmanager
    def _adapter(self, adapter: Adapter | None) -> Iterator[Parity | None]:
        """The verdict on an adapter that is loaded; unloaded again when the block fails and nobody had it before."""
        if adapter is None:
            yield None
            return
        need_certificate(self.recipe, adapter, self._say)
        if adapter.note:
            self._say(f"Note: {adapter.note}")
        new = adapter.id not in self._in_use()
        if new:
            self._engine.load(adapter)
        try:
            if self.recipe.parity != "off" and adapter.id not in self.proofs:
                proof = self._engine.prove(adapter)
                if proof is not None:
                    settle(self.recipe, f"adapter {adapter.source}", proof, self._say)
                    self.proofs[adapter.id] = proof
            self._way.allow(adapter.id)
            yield self.proofs.get(adapter.id)
        except BaseException:
            if new:
                self._unload(adapter.id)
            raise

    def _in_use(self) -> set[str]:
        return {served.engine_name for served in self.catalogue.now.known.values()} - {BASE}

    def _retire(self, served: Served, drain: float | None) -> int:
        """Lets the answers of a variant that is offered no longer end, and unloads what no other variant has.

        Answers of a base or an adapter that stays need not be waited for: they end by themselves.
        """
        name, model = served.variant.name, served.engine_name
        self._leaving = (*(one for one in self._leaving if one.requests.running), served)
        goes = model != BASE and model not in self._in_use()
        cut = 0
        if goes:
            last = [one for one in self._leaving if one.engine_name == model]  # variants that shared it and went before
            seconds = drain if drain is not None else self.recipe.gateway.shutdown_timeout
            if (cut := _running_after(seconds, last)) > 0:
                self._say(f"Cutting off {cut} answers of {name} that take longer than {seconds:g} s")
                self._way.cut(model, "The model was removed before this answer was complete.")
                _running_after(_CUT_SECONDS, last)
            self._unload(model)
        self._leaving = tuple(one for one in self._leaving if one.requests.running)
        paths = {one.variant.rag for one in (*self.catalogue.now.known.values(), *self._leaving)}
        if served.variant.rag is not None and served.variant.rag not in paths:
            self._groundings.pop(served.variant.rag).close()
        self._say(f"No longer serving {name}" + (f" with adapter {model}" if goes else ""))
        return cut

    def _unload(self, id: str) -> None:
        self.proofs.pop(id, None)
        try:
            self._engine.unload(id)
        except EngineError as error:
            self._say(f"Adapter {id} was not unloaded: {error}")


def _running_after(seconds: float, variants: Sequence[Served]) -> int:
    """How many requests of variants are running after at most this time; returns at once when there are none."""
    end = time.monotonic() + seconds
    while (running := sum(one.requests.running for one in variants)) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return running


def _row(served: Served, state: str) -> dict[str, Any]:
    card = served.card
    return {
        "name": served.variant.name,
        "adapter": card.get("adapter"),
        "rag": card.get("rag"),
        "state": state,
        "parity": card.get("parity"),
        "requests": served.requests.running,
    }
