"""The candidates of a search: by meaning and by words, for each wording of the question, thresholds kept, both fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmbench.recipe import SearchSpec, Stage
from llmbench.retrieval.search import fusion
from llmbench.retrieval.search.hits import Step
from llmbench.retrieval.search.language import ALPHA
from llmbench.retrieval.search.view import Scored, View
from llmbench.retrieval.store import Filter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NOISE", "Candidates", "PreparedQuery", "above", "find", "steps"]

NOISE = 1e-3
"""A BM25 score below which no word tells anything: FTS5 gives a word that over half of the passages hold a weight of 1e-6."""


@dataclass(frozen=True)
class PreparedQuery:
    """What is searched with: the vectors (n, dim) of all wordings, and the texts whose words are looked up."""

    vectors: NDArray[np.float32] | None
    texts: tuple[str, ...]


@dataclass
class Candidates:
    """Rows in the order of the last stage, with their places in each."""

    final: Stage
    rows: list[int] = field(default_factory=list)
    stages: dict[Stage, dict[int, Step]] = field(default_factory=dict)

    def of(self, row: int) -> dict[Stage, Step]:
        """A row's place in every stage that has it."""
        return {stage: places[row] for stage, places in self.stages.items() if row in places}

    def full(self, count: int) -> bool:
        """Whether meaning or words may have more than the `count` that were asked for."""
        return any(len(places) >= count for stage, places in self.stages.items() if stage != "fused")


def find(
    view: View, spec: SearchSpec, question: PreparedQuery, count: int, where: Filter | None, alpha: float | None
) -> Candidates:
    """The candidates of a question.

    Args:
        view: the index.
        spec: the recipe's section.
        question: all wordings of it; a row's score is its best one's.
        count: how many each stage hands on.
        where: what every candidate must be.
        alpha: the weight of dense, where one was tuned.
    """
    lists: dict[Stage, Scored] = {}
    if spec.mode != "terms":
        found = [view.dense(vector, count, where) for vector in question.vectors] if question.vectors is not None else [[]]
        lists["dense"] = above(_best(found, count), spec, "dense")
    if spec.mode != "dense":
        found = [view.terms(text, count, where) for text in question.texts]
        lists["terms"] = above(_best(found, count), spec, "terms")
    if spec.mode == "hybrid":
        lists["fused"] = above(fuse(lists["dense"], lists["terms"], spec, alpha), spec, "fused")
    final: Stage = "fused" if spec.mode == "hybrid" else "terms" if spec.mode == "terms" else "dense"
    return Candidates(final, [row for row, _ in lists[final]], {stage: steps(some) for stage, some in lists.items()})


def fuse(dense: Scored, terms: Scored, spec: SearchSpec, alpha: float | None) -> Scored:
    """Both lists as one, best first. Words that tell nothing count as not found, where meaning counts: noise is no scale."""
    import numpy as np

    weight = spec.alpha if spec.alpha is not None else alpha if alpha is not None else ALPHA
    words_alone = spec.fusion != "rrf" and weight == 0
    if dense and not words_alone and max((score for _, score in terms), default=0.0) < NOISE:
        terms = []

    def arrays(scored: Scored) -> fusion.List:
        return np.array([row for row, _ in scored], dtype=np.int64), np.array([score for _, score in scored], dtype=np.float64)

    if spec.fusion == "rrf":
        rows, scores = fusion.rrf([arrays(dense), arrays(terms)], spec.rrf_k)
    else:
        rows, scores = fusion.convex(arrays(dense), arrays(terms), weight)
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def above(found: Scored, spec: SearchSpec, stage: Stage) -> Scored:
    """What reaches the threshold of a stage; a plain number is a cosine similarity."""
    least = spec.min_score
    bound = least.get(stage) if isinstance(least, dict) else least if stage == "dense" else None
    return found if bound is None else [(row, score) for row, score in found if score >= bound]


def steps(found: Scored) -> dict[int, Step]:
    """Each row's place in a list, by row."""
    return {row: Step(rank, score) for rank, (row, score) in enumerate(found, 1)}


def _best(lists: Sequence[Scored], count: int) -> Scored:
    """One list of several wordings' ones: each row with its best score."""
    if len(lists) == 1:
        return lists[0]
    best: dict[int, float] = {}
    for scored in lists:
        for row, score in scored:
            best[row] = max(score, best.get(row, score))
    return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:count]
