"""Everything that serving needs, started in the order that saves time and ended in any case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmbench import assets
from llmbench.engine import BASE, Adapter, Engine, Progress, admit_all, base_folder, prove, prove_base, uncertified
from llmbench.errors import EngineError, MissingPackage
from llmbench.gateway.app import Served, build
from llmbench.gateway.grounding import Grounding, open_retriever
from llmbench.gateway.ledger import opened
from llmbench.gateway.limit import Open
from llmbench.gateway.listening import answering, base_url, hosts, listener_of, most_answers
from llmbench.gateway.relay import Upstream
from llmbench.gateway.words import proven
from llmbench.parity import Parity
from llmbench.recipe import RagRecipe, ServeRecipe, Variant, load

__all__ = ["Gateway", "running", "started"]


@dataclass(frozen=True)
class Gateway:
    """A running endpoint. `base_url` ends in `/v1`."""

    base_url: str
    models: tuple[Served, ...]
    engine: Engine


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
        log: called with a line for each thing worth knowing, such as where vLLM's log is.

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
    with ExitStack() as stack:
        listener = stack.enter_context(listener_of(recipe))
        ledger = stack.enter_context(opened(recipe.gateway, log))
        adapters = admit_all(recipe)
        _need_certificates(recipe, adapters, log)
        engine = Engine(recipe, adapters)
        stack.enter_context(engine)
        if log is not None:
            log(f"vLLM's log: {engine.log}")
        groundings = _open_groundings(recipe, stack)  # they load while vLLM does

        def tick(state: Progress) -> None:
            for grounding in groundings.values():
                if grounding.failed:
                    grounding.ready()
            if progress is not None:
                progress(state)

        engine.wait(tick)
        if log is not None:
            for note in [adapter.note for adapter in adapters.values() if adapter.note] + engine.notes:
                log(f"Note: {note}")
        for grounding in groundings.values():
            grounding.ready()
        proofs = _prove(recipe, engine, adapters, progress, log)
        models = tuple(_served(recipe, adapters, groundings, proofs))
        upstream = Upstream.at(engine.socket, lambda: engine.problem)
        spec = recipe.gateway
        open = Open(min(spec.max_requests, most_answers()))
        words = proven(recipe, engine.token_ids, log)
        app = build(
            models, upstream, context=engine.context, api_key=spec.api_key, hosts=hosts(spec), open=open, words=words,
            ledger=ledger,
        )  # fmt: skip
        stack.enter_context(answering(app, listener, recipe, upstream, open, log))
        yield Gateway(base_url(spec.host, listener.getsockname()[1]), models, engine)


def _need_packages() -> None:
    from importlib.util import find_spec

    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingPackage("serve", package, "serve")


def _need_certificates(recipe: ServeRecipe, adapters: Mapping[str, Adapter], log: Callable[[str], None] | None) -> None:
    """Says before vLLM starts which adapters cannot be proven.

    Raises:
        EngineError: there is one, and the document requires proof.
    """
    for adapter in adapters.values() if recipe.parity != "off" else ():
        problem = uncertified(adapter)
        if problem is not None and recipe.parity == "require":
            raise EngineError(f"{recipe.source}: {problem}, or serve it unproven: parity=warn")
        if problem is not None and log is not None:
            log(f"Not proven: {problem}")


def _prove(
    recipe: ServeRecipe,
    engine: Engine,
    adapters: Mapping[str, Adapter],
    progress: Callable[[Progress], None] | None,
    log: Callable[[str], None] | None,
) -> dict[str, Parity]:
    """The verdict on each certified adapter, by its id; each is told.

    Raises:
        EngineError: an adapter answers otherwise than it was trained, and the document requires proof.
    """
    if recipe.parity == "off":
        return {}

    def tick(phase: str) -> None:
        if progress is not None:
            progress(Progress(engine.seconds, phase))

    proofs = prove(engine.socket, adapters.values(), tick)
    told = {f"adapter {adapter.source}": proofs[adapter.id] for adapter in adapters.values() if adapter.id in proofs}
    folder = base_folder(assets.model_folder(recipe.model.model_name_or_path), recipe.model.revision)
    base = prove_base(engine.socket, folder)
    if base is not None:
        told[f"model {_plain(recipe.model.model_name_or_path)}"] = base
    for what, proof in told.items():
        if not proof.holds and recipe.parity == "require":
            raise EngineError(
                f"{recipe.source}: {what}: {proof.reason}. {_sentence(proof.remedy)} Or serve it all the same: parity=warn"
            )
        if log is not None:
            log(f"{_STATES[proof.state]}: {what}: {proof.reason}{f'. {_sentence(proof.remedy)}' if proof.remedy else ''}")
    return proofs


_STATES = {"proven": "Proven", "inconclusive": "Inconclusive", "differs": "Not as trained"}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _open_groundings(recipe: ServeRecipe, stack: ExitStack) -> dict[Path, Grounding]:
    """One for each pipeline, however many variants use it."""
    groundings: dict[Path, Grounding] = {}
    for variant in recipe.variants:
        if variant.rag is not None and variant.rag not in groundings:
            groundings[variant.rag] = open_retriever(variant.rag)
            stack.callback(groundings[variant.rag].close)
    return groundings


def _served(
    recipe: ServeRecipe,
    adapters: Mapping[str, Adapter],
    groundings: Mapping[Path, Grounding],
    proofs: Mapping[str, Parity],
) -> Iterator[Served]:
    base = _plain(recipe.model.model_name_or_path)
    for variant in recipe.variants:
        adapter = adapters[variant.adapter] if variant.adapter is not None else None
        grounding = groundings[variant.rag] if variant.rag is not None else None
        name = _plain(adapter.source) if adapter is not None else None
        proof = proofs.get(adapter.id) if adapter is not None else None
        parts = [base, f"with adapter {name}" if name else "", f"with pipeline {grounding.name}" if grounding else ""]
        card = {
            "root": base,
            "parent": base if adapter is not None else None,
            "adapter": {"name": name, "id": adapter.id, "rank": adapter.rank} if adapter is not None else None,
            "parity": proof.state if proof is not None else None,
            "rag": grounding.name if grounding is not None else None,
            "fingerprint": _fingerprint(recipe, variant, adapter),
            "description": variant.description or ", ".join(part for part in parts if part),
        }
        stops = adapter.stops if adapter is not None else ()
        yield Served(variant, adapter.id if adapter is not None else BASE, card, grounding, stops)


def _fingerprint(recipe: ServeRecipe, variant: Variant, adapter: Adapter | None) -> str:
    """Changes with whatever shapes a variant's answers, the pages of its index apart; clients may keep answers by it."""
    base = assets.model_folder(recipe.model.model_name_or_path)
    # Size and time of the weights, not their hash: hashing 100 GB would take longer than loading them.
    files = [(path.name, path.stat()) for path in sorted(Path(base).glob("*.safetensors"))]
    weights = [(name, about.st_size, about.st_mtime_ns) for name, about in files]
    pipeline = load(variant.rag, RagRecipe).model_dump(mode="json") if variant.rag is not None else None
    spoken = variant.model_dump(mode="json", include={"system", "sampling"})
    parts = [weights, base, recipe.engine.dtype, adapter.id if adapter else None, pipeline, spoken]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain(name: str) -> str:
    """A model's or adapter's name without the folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name
