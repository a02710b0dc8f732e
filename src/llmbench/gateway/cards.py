"""What /v1/models says of a variant, and how it is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llmbench import assets
from llmbench.engine import BASE, Adapter
from llmbench.errors import LlmbenchError
from llmbench.gateway.catalogue import Served
from llmbench.gateway.grounding import Grounding
from llmbench.parity import Parity
from llmbench.recipe import RagRecipe, ServeRecipe, Variant, load

__all__ = ["documents", "fingerprint", "pipelines", "served"]


def served(
    recipe: ServeRecipe, variant: Variant, adapter: Adapter | None, grounding: Grounding | None, proof: Parity | None
) -> Served:
    """A variant with its card.

    Args:
        recipe: the serving document.
        variant: one of its base.
        adapter: the variant's, admitted.
        grounding: the variant's pipeline, open.
        proof: the verdict on the adapter; None where it was not asked for, or has no certificate.
    """
    base = assets.plain_name(recipe.model.model_name_or_path)
    name = assets.plain_name(adapter.source) if adapter is not None else None
    parts = [base, f"with adapter {name}" if name else "", f"with pipeline {grounding.name}" if grounding else ""]
    card = {
        "root": base,
        "parent": base if adapter is not None else None,
        "adapter": {"name": name, "id": adapter.id, "rank": adapter.rank} if adapter is not None else None,
        "parity": proof.state if proof is not None else None,
        "rag": grounding.name if grounding is not None else None,
        "fingerprint": fingerprint(recipe, variant, adapter, grounding.document if grounding is not None else None),
        "description": variant.description or ", ".join(part for part in parts if part),
    }
    stops = adapter.stops if adapter is not None else ()
    return Served(variant, adapter.id if adapter is not None else BASE, card, grounding, stops)


def fingerprint(recipe: ServeRecipe, variant: Variant, adapter: Adapter | None, pipeline: RagRecipe | None) -> str:
    """Changes with whatever shapes a variant's answers, the pages of its index apart; clients may keep answers by it."""
    base = assets.model_folder(recipe.model.model_name_or_path)
    # Size and time of the weights, not their hash: hashing 100 GB would take longer than loading them.
    found = [*sorted(Path(base).glob("*.safetensors")), *sorted(Path(base).glob("*.onnx*"))]
    files = [(path.name, path.stat()) for path in found]
    weights = [(name, about.st_size, about.st_mtime_ns) for name, about in files]
    spoken = variant.model_dump(mode="json", include={"system", "sampling"})
    searched = pipeline.model_dump(mode="json") if pipeline is not None else None
    parts = [weights, base, recipe.engine.dtype, adapter.id if adapter else None, searched, spoken]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def documents(recipe: ServeRecipe) -> dict[Path, RagRecipe]:
    """The documents of the variants' pipelines, each read once; one that cannot be read is left to whoever opens it."""
    found = {}
    for path in {variant.rag for variant in recipe.variants if variant.rag is not None}:
        with suppress(LlmbenchError):
            found[path] = load(path, RagRecipe)
    return found


def pipelines(recipe: ServeRecipe, documents: Mapping[Path, RagRecipe]) -> dict[str, str | None]:
    """The name of each variant's pipeline; None where it has none, or one that could not be read, and for routes."""
    names: dict[str, str | None] = {route.name: None for route in recipe.routes}
    for variant in recipe.variants:
        found = documents.get(variant.rag) if variant.rag is not None else None
        names[variant.name] = found.name if found is not None else None
    return names
