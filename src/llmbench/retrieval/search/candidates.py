"""The stages of a search in order: candidates by meaning and by words, thresholds, fusion, duplicates left out, cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.recipe import SearchSpec, Stage
from llmbench.retrieval.search.hits import Hit, Step
from llmbench.retrieval.search.view import Scored, View
from llmbench.retrieval.store import Filter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["search"]


def search(
    view: View, spec: SearchSpec, query: str, vector: NDArray[np.float32] | None, top_k: int, where: Filter | None
) -> list[Hit]:
    """The hits of a query; `vector` is its embedding, of shape (dim,), or None where only words count."""
    wide = max(spec.candidates, top_k)
    stages: dict[Stage, Scored] = {}
    if vector is not None:
        stages["dense"] = above(view.dense(vector, wide, where), spec, "dense")
    if spec.mode != "dense":
        stages["terms"] = above(view.terms(query, wide, where), spec, "terms")
    final: Stage = "dense" if spec.mode == "dense" else "terms" if spec.mode == "terms" else "fused"
    if final == "fused":
        raise NotImplementedError
    ranked = stages[final]
    chunks = view.index.chunks(row for row, _ in ranked[:top_k])
    ranks = {stage: {row: Step(rank, score) for rank, (row, score) in enumerate(found, 1)} for stage, found in stages.items()}
    hits: list[Hit] = []
    for row, score in ranked:
        chunk = chunks.get(row)
        if chunk is not None:
            hits.append(Hit(chunk, score, len(hits) + 1, final, {s: steps[row] for s, steps in ranks.items() if row in steps}))
    return hits


def above(found: Scored, spec: SearchSpec, stage: Stage) -> Scored:
    """What reaches the threshold of a stage; a plain number is a cosine similarity."""
    least = spec.min_score
    bound = least.get(stage) if isinstance(least, dict) else least if stage == "dense" else None
    return found if bound is None else [(row, score) for row, score in found if score >= bound]
