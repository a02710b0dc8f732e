"""Whether an adapter may be served: the document's `parity`, applied to what its certificate and the engine say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from llmbench import assets
from llmbench.engine import Adapter, Engine, Place, Progress, base_folder, prove, prove_base, uncertified
from llmbench.errors import EngineError
from llmbench.gateway.grounding import Grounding
from llmbench.parity import Parity
from llmbench.recipe import ServeRecipe

__all__ = ["need_certificate", "prove_adapters", "prove_all", "prove_served_base", "settle", "settle_pipeline"]

Say = Callable[[str], None]


def need_certificate(recipe: ServeRecipe, adapter: Adapter, say: Say) -> None:
    """Says before anything is loaded that an adapter cannot be proven.

    Raises:
        EngineError: it cannot, and the document requires proof.
    """
    problem = uncertified(adapter) if recipe.parity != "off" else None
    if problem is not None and recipe.parity == "require":
        raise EngineError(f"{recipe.source}: {problem}, or serve it unproven: parity=warn")
    if problem is not None:
        say(f"Not proven: {problem}")


def prove_all(
    recipe: ServeRecipe,
    engine: Engine,
    adapters: Mapping[str, Adapter],
    progress: Callable[[Progress], None] | None,
    say: Say,
) -> dict[str, Parity]:
    """The verdict on each certified adapter, by its id; each is told, and that on a base with a certificate too.

    Raises:
        EngineError: an adapter answers otherwise than it was trained, and the document requires proof.
    """
    if recipe.parity == "off":
        return {}

    def tick(phase: str) -> None:
        if progress is not None:
            progress(Progress(engine.seconds, phase))

    proofs = prove_adapters(recipe, engine.at, adapters.values(), tick, say)
    prove_served_base(recipe, engine.at, say)
    return proofs


def prove_adapters(
    recipe: ServeRecipe,
    at: Place,
    adapters: Iterable[Adapter],
    progress: Callable[[str], None] | None,
    say: Say,
    *,
    on: str = "",
) -> dict[str, Parity]:
    """The verdict on each certified adapter of the engine there, by its id; each is told. `on` says which engine it is.

    Raises:
        EngineError: an adapter answers otherwise than it was trained, and the document requires proof.
    """
    asked = list(adapters)
    proofs = prove(at, asked, progress)
    for adapter in asked:
        if adapter.id in proofs:
            settle(recipe, f"adapter {adapter.source}{on}", proofs[adapter.id], say)
    return proofs


def prove_served_base(recipe: ServeRecipe, at: Place, say: Say, *, on: str = "") -> None:
    """Tells the verdict on a base that has a certificate, as `llmbench merge` leaves one.

    Raises:
        EngineError: it answers otherwise than it was merged, and the document requires proof.
    """
    folder = base_folder(assets.model_folder(recipe.model.model_name_or_path), recipe.model.revision)
    base = prove_base(at, folder)
    if base is not None:
        settle(recipe, f"model {assets.plain_name(recipe.model.model_name_or_path)}{on}", base, say)


def settle(recipe: ServeRecipe, what: str, proof: Parity, say: Say) -> None:
    """Says the verdict.

    Raises:
        EngineError: something differs, and the document requires proof.
    """
    if not proof.holds and recipe.parity == "require":
        raise EngineError(
            f"{recipe.source}: {what}: {proof.reason}. {_sentence(proof.remedy)} Or serve it all the same: parity=warn"
        )
    say(f"{proof.title}: {what}: {proof.reason}{f'. {_sentence(proof.remedy)}' if proof.remedy else ''}")


def settle_pipeline(recipe: ServeRecipe, grounding: Grounding, say: Say) -> None:
    """Says whether a pipeline gives answers what a search finds.

    Raises:
        EngineError: it does not, and the document requires proof.
        IndexError_: its index cannot be read.
    """
    found = grounding.probed() if recipe.parity != "off" else None
    if found is None:
        return
    if found.problem is None:
        say(f"{'Proven' if found.asked else 'Not proven'}: pipeline {grounding.name}: {found.line()}")
        return
    if recipe.parity == "require":
        raise EngineError(f"{recipe.source}: {found.line()}, or serve it all the same: parity=warn")
    say(f"Differs: {found.line()}")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
