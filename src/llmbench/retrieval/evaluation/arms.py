"""Asks one index all queries, each stage of the search by itself and all of them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmbench.recipe import RagRecipe, SearchSpec
from llmbench.retrieval.evaluation.names import Naming

__all__ = ["DEPTH", "Arm", "Searches", "arms", "ask", "bare", "documents", "passage_depth"]

DEPTH = 100
"""Documents that are ranked for each query: what recall is looked at to."""
_WIDEST = 1000
_STAGES = ("dense", "terms", "hybrid")
_NAMES = {"dense": "dense", "terms": "terms", "hybrid": "fused"}


class Searches(Protocol):
    """The seam: an open index. `recipe` decides how the next search is done."""

    recipe: RagRecipe

    def search(self, query: str, top_k: int | None = None) -> Sequence[Any]:
        """Hits, best first; each has `chunk.id`, `chunk.source` and `score`."""
        ...

    def unmet(self) -> list[str]:
        """A line for each field that the recipe's filter asks for in vain."""
        ...

    def weight(self, query: str) -> float:
        """The weight of meaning in a question where nothing was tuned."""
        ...

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document."""
        ...


@dataclass(frozen=True)
class Arm:
    """All queries asked in one way: query -> passages best first as (id, source, score), and the seconds of each query."""

    name: str
    found: Mapping[str, list[tuple[str, str, float]]]
    seconds: tuple[float, ...]


def arms(spec: SearchSpec) -> dict[str, SearchSpec]:
    """How an index is searched, by name: dense alone, terms alone, both fused, and `pipeline` where the recipe does more.

    The first three have no further stage, so that what each stage adds can be seen.
    """
    found = {_NAMES[mode]: bare(spec, mode) for mode in _STAGES}
    if spec.model_copy(update={"top_k": 1}) not in [one.model_copy(update={"top_k": 1}) for one in found.values()]:
        found["pipeline"] = spec
    return found


def bare(spec: SearchSpec, mode: str) -> SearchSpec:
    """A search by one mode and nothing after it: no threshold, no reranker, nothing put in."""
    plain = {"expand": None, "rerank": None, "mmr": None, "min_score": None, "neighbours": 0}
    return spec.model_copy(update={"mode": mode, **plain})


def passage_depth(spec: SearchSpec, sources: Iterable[tuple[str, str, int]]) -> int:
    """How many passages to rank for each query, so that about `DEPTH` documents are ranked: more where documents are long."""
    counts = [passages for _, _, passages in sources if passages]
    each = sum(counts) / len(counts) if counts else 1.0
    return min(_WIDEST, max(spec.candidates, DEPTH, round(DEPTH * each)))


def ask(
    index: Searches,
    name: str,
    spec: SearchSpec,
    queries: Mapping[str, str],
    depth: int,
    progress: Callable[[str], None] = lambda query: None,
) -> Arm:
    """Asks all queries one after the other, as a user would; ranks `depth` passages for each."""
    before = index.recipe
    index.recipe = before.model_copy(update={"search": spec.model_copy(update={"candidates": max(spec.candidates, depth)})})
    found, seconds = {}, []
    try:
        for query, text in queries.items():
            start = time.perf_counter()
            hits = index.search(text, depth)
            seconds.append(time.perf_counter() - start)
            found[query] = [(hit.chunk.id, hit.chunk.source, float(hit.score)) for hit in hits]
            progress(name)
    finally:
        index.recipe = before
    return Arm(name, found, tuple(seconds))


def documents(
    found: Mapping[str, list[tuple[str, str, float]]], name_of: Naming, *, ignore_identical: bool = False
) -> dict[str, list[str]]:
    """The run: a document stands where its best passage stands, `DEPTH` of them.

    Args:
        found: query -> passages, best first.
        name_of: what judgements call a source.
        ignore_identical: leave out a document that bears the query's own name.
    """
    return {
        query: list(
            dict.fromkeys(
                name for name in (name_of(source) for _, source, _ in passages) if not (ignore_identical and name == query)
            )
        )[:DEPTH]
        for query, passages in found.items()
    }
