"""Everything that serving needs, started in the order that saves time and ended in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench import workspace
from llmbench.engine import Adapter, Engine, Progress, admit_all, by_priority, parsers, places
from llmbench.errors import EngineError, MissingPackage
from llmbench.gateway.app import build
from llmbench.gateway.cards import documents, pipelines, served
from llmbench.gateway.catalogue import Catalogue, Served, refuse_clash
from llmbench.gateway.deployment import Deployment
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.fleet import Fleet
from llmbench.gateway.grounding import Grounding, open_retriever
from llmbench.gateway.guard import Access
from llmbench.gateway.keeper import Keeper
from llmbench.gateway.ledger import Ledger, opened
from llmbench.gateway.limit import Open
from llmbench.gateway.listening import answering, base_url, hosts, listener_of, most_answers
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.observing.opened import observed
from llmbench.gateway.proving import need_certificate, prove_all, settle_pipeline
from llmbench.gateway.relay import Upstream
from llmbench.gateway.traffic import Control, Routes
from llmbench.gateway.traffic.shadow import Shadows
from llmbench.gateway.turns import Turns
from llmbench.gateway.words import proven
from llmbench.parity import Parity
from llmbench.recipe import GatewaySpec, RagRecipe, ServeRecipe
from llmbench.workspace import short_name

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["Gateway", "running", "started"]

T = TypeVar("T")
_CUT_SECONDS = 5.0


class Gateway:
    """A running endpoint. `base_url` ends in `/v1`.

    What changes it is done by whoever calls `attend`, so that changes and restarts of the engine never meet.
    """

    def __init__(
        self,
        base_url: str,
        engine: Engine | Fleet,
        deployment: Deployment,
        keeper: Keeper | None,
        metrics: Callable[[], bytes] = bytes,
        control: Control | None = None,
    ) -> None:
        self.base_url = base_url
        self._engine = engine
        self.deployment = deployment
        self.metrics = metrics
        """What /metrics says; any thread but the gateway's own may ask."""
        self.rollouts = control
        self._keeper = keeper
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @property
    def models(self) -> tuple[Served, ...]:
        """The variants that are served now."""
        return tuple(self.deployment.catalogue.now.known.values())

    @property
    def engine(self) -> Engine:
        """vLLM, where this process has started it."""
        assert isinstance(self._engine, Engine), "the engines run elsewhere"
        return self._engine

    @property
    def problem(self) -> str | None:
        """Why no request can be answered, in one line; None while one can."""
        return self._engine.problem

    @property
    def engines(self) -> list[dict[str, Any]]:
        """How each engine that runs elsewhere stands: url, state (ready or out), requests, and the reason why it is out."""
        return self._engine.listing() if isinstance(self._engine, Fleet) else []

    @property
    def state(self) -> str:
        """`running`, `restarting`, or `away`: no engine that runs elsewhere answers."""
        if self._keeper is None:
            return "running" if self.problem is None else "away"
        return "restarting" if self._keeper.restarting else "running"

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Has a change done by whoever attends; any thread, and a signal's handler, may ask."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
            except BaseException:
                future.set_exception(EngineError("The server is ending"))
                raise

        self._jobs.put(job)
        return future

    def attend(self, seconds: float) -> None:
        """Does one change that was asked for, if one is within these seconds; starts the engine again if it died.

        Raises:
            EngineError: the engine died once too often (`engine.restarts`).
        """
        try:
            self._jobs.get(timeout=seconds)()
        except Empty:
            pass
        if self._keeper is not None:
            self._keeper.look()


class _Way:
    """The gateway's way to the engine, for who is in another thread."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, upstream: Upstream, metrics: Metrics) -> None:
        self._upstream, self._metrics = upstream, metrics

    def cut(self, model: str, reason: str) -> None:
        asyncio.run_coroutine_threadsafe(self._upstream.cut(reason, model=model), self.loop).result(_CUT_SECONDS)

    def counts(self) -> bytes:
        """What /metrics says."""
        return asyncio.run_coroutine_threadsafe(self._metrics.with_engine(self._upstream), self.loop).result(_CUT_SECONDS)

    def allow(self, model: str) -> None:
        self.loop.call_soon_threadsafe(self._upstream.allow, model)


@contextmanager
def running(
    recipe: ServeRecipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Serves the variants inside the block, at the base URL that it gives.

    Args:
        recipe: the serving document.
        progress: called about five times a second while vLLM loads.
        log: called with a line for each thing worth knowing, such as where the engine's log is.

    Raises:
        RecipeError: the port is in use.
        MissingPackage, EngineError, IndexError_: vLLM, an adapter or an index is not fit.
    """
    with started(recipe, progress=progress, log=log) as gateway:
        yield gateway.base_url


@contextmanager
def started(
    recipe: ServeRecipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[Gateway]:
    """As `running`, but gives the gateway with its engine."""
    _need_packages()
    say = log or (lambda _: None)
    refuse_clash(pipelines(recipe, read := documents(recipe)))
    with ExitStack() as stack:
        listener = stack.enter_context(listener_of(recipe))
        ledger = stack.enter_context(opened(recipe.gateway, log))
        loaded = _load(recipe, read, stack, progress, say)
        front = _assemble(recipe, loaded, ledger, stack, log)
        way = _Way(front.upstream, front.metrics)
        deployment = _deploy(recipe, loaded, front, way, say)
        stack.enter_context(front.control.running())

        def patience() -> float:
            return deployment.recipe.gateway.shutdown_timeout

        way.loop = stack.enter_context(answering(front.app, listener, recipe, front.upstream, front.open, log, patience))
        if isinstance(loaded.engine, Fleet):
            loaded.engine.attach(way.loop, front.turns, front.metrics, lambda: deployment.recipe)
        keeper = _keeper(deployment, loaded.engine, front.upstream, say) if isinstance(loaded.engine, Engine) else None
        url = base_url(recipe.gateway.host, listener.getsockname()[1])
        yield Gateway(url, loaded.engine, deployment, keeper, way.counts, front.control)


@dataclass(frozen=True)
class _Loaded:
    """What answers: the engine with its adapters, the pipelines, and what was proven of them."""

    engine: Engine | Fleet
    adapters: Mapping[str, Adapter]
    groundings: dict[Path, Grounding]
    proofs: dict[str, Parity]


@dataclass(frozen=True)
class _Front:
    """What clients reach, and what changes while they do."""

    app: Starlette
    models: Catalogue
    upstream: Upstream
    access: Access
    open: Open
    turns: Turns
    routes: Routes
    metrics: Metrics
    control: Control


def _load(
    recipe: ServeRecipe,
    read: Mapping[Path, RagRecipe],
    stack: ExitStack,
    progress: Callable[[Progress], None] | None,
    say: Callable[[str], None],
) -> _Loaded:
    """Starts the engine, opens the pipelines while it loads, and proves the adapters once it is there."""
    adapters = admit_all(recipe)
    for adapter in adapters.values():
        need_certificate(recipe, adapter, say)
    engine = stack.enter_context(_engine(recipe, adapters, say))
    groundings = _open_groundings(recipe, read, stack)  # they load while vLLM does

    def tick(state: Progress) -> None:
        for grounding in groundings.values():
            if grounding.failed:
                grounding.ready()
        if progress is not None:
            progress(state)

    engine.wait(tick)
    for note in [adapter.note for adapter in adapters.values() if adapter.note] + engine.notes:
        say(f"Note: {note}")
    for grounding in groundings.values():
        grounding.ready()
        settle_pipeline(recipe, grounding, say)
    proofs = engine.proofs if isinstance(engine, Fleet) else prove_all(recipe, engine, adapters, progress, say)
    return _Loaded(engine, adapters, groundings, proofs)


@contextmanager
def _engine(recipe: ServeRecipe, adapters: Mapping[str, Adapter], say: Callable[[str], None]) -> Iterator[Engine | Fleet]:
    """What computes the answers: vLLM, loading, or the engines that the document names."""
    if recipe.engine.urls:
        with Fleet(recipe, adapters, say) as fleet:
            yield fleet
        return
    with Engine(recipe, adapters) as engine:
        say(f"The engine's log: {engine.log}")
        if reading := parsers(recipe).said():
            say(reading)
        yield engine


def _upstream(engine: Engine | Fleet) -> Upstream:
    if isinstance(engine, Fleet):
        return Upstream.over(engine.balancer)
    return Upstream.at(engine.socket, lambda: engine.problem)


def _assemble(
    recipe: ServeRecipe, loaded: _Loaded, ledger: Ledger | None, stack: ExitStack, log: Callable[[str], None] | None
) -> _Front:
    """The web application over what was loaded, with its limits, logs and routes."""
    say, engine, spec = log or (lambda _: None), loaded.engine, recipe.gateway
    models = Catalogue(_served(recipe, loaded.adapters, loaded.groundings, loaded.proofs), context=engine.context)
    upstream = _upstream(engine)
    open = Open(min(spec.max_requests, most_answers()))
    access = Access(spec.api_key, hosts(spec))
    metrics = Metrics(lambda: open.count)
    words = proven(recipe, engine.token_ids, log)
    observers = stack.enter_context(observed(spec, metrics, hide=access.hide, say=say))
    turns, routes = Turns(places(recipe, engine.device), spec.max_waiting), Routes(recipe.routes)
    name = short_name(recipe.origin)
    control = Control(routes, lambda: models.now.known, workspace.home() / "rollouts" / name, say=say)
    shadows = Shadows(routes, workspace.home() / "shadows" / name, ranks=by_priority(recipe), hide=access.hide)
    feedbacks = Feedbacks([*observers.feedback, control.told_feedback])
    app = build(
        models, upstream, access=access, open=open, words=words, ledger=ledger, sinks=[*observers.sinks, control.told],
        metrics=metrics, keeps=observers.keeps, traced=observers.traced, turns=turns, routes=routes, shadows=shadows,
        feedbacks=feedbacks,
    )  # fmt: skip
    return _Front(app, models, upstream, access, open, turns, routes, metrics, control)


def _deploy(recipe: ServeRecipe, loaded: _Loaded, front: _Front, way: _Way, say: Callable[[str], None]) -> Deployment:
    """What a reload changes."""

    def apply(changed: GatewaySpec) -> None:
        front.access.change(changed.api_key, hosts(changed))
        front.open.most = min(changed.max_requests, most_answers())
        front.turns.most = changed.max_waiting

    return Deployment(
        recipe, front.models, loaded.engine, way, groundings=loaded.groundings, proofs=loaded.proofs, apply=apply, say=say,
        routes=front.routes, engines=loaded.engine if isinstance(loaded.engine, Fleet) else None,
    )  # fmt: skip


def _keeper(deployment: Deployment, engine: Engine, upstream: Upstream, say: Callable[[str], None]) -> Keeper:
    """What starts the engine again when it has died."""
    return Keeper(
        engine,
        most=lambda: deployment.recipe.engine.restarts,
        hold=lambda reason: upstream.hold(reason) if reason else upstream.moved(engine.socket),
        prove=lambda: prove_all(deployment.recipe, engine, engine.adapters, None, say),
        say=say,
    )


def _need_packages() -> None:
    from importlib.util import find_spec

    for package in ("starlette", "uvicorn", "httptools"):
        if find_spec(package) is None:
            raise MissingPackage("serve", package, "serve")


def _open_groundings(recipe: ServeRecipe, read: Mapping[Path, RagRecipe], stack: ExitStack) -> dict[Path, Grounding]:
    """One for each pipeline, however many variants use it."""
    groundings: dict[Path, Grounding] = {}

    def close() -> None:
        for grounding in groundings.values():
            grounding.close()

    stack.callback(close)
    for variant in recipe.variants:
        if variant.rag is not None and variant.rag not in groundings:
            groundings[variant.rag] = open_retriever(variant.rag, read.get(variant.rag), probed=recipe.parity != "off")
    return groundings


def _served(
    recipe: ServeRecipe,
    adapters: Mapping[str, Adapter],
    groundings: Mapping[Path, Grounding],
    proofs: Mapping[str, Parity],
) -> Iterator[Served]:
    for variant in recipe.variants:
        adapter = adapters[variant.adapter] if variant.adapter is not None else None
        grounding = groundings[variant.rag] if variant.rag is not None else None
        yield served(recipe, variant, adapter, grounding, proofs.get(adapter.id) if adapter is not None else None)
