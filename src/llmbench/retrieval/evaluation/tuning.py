"""The weight of dense beside terms, found on judged queries by cross-validation and kept with the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmbench import workspace
from llmbench.errors import DataError, IndexError_
from llmbench.recipe import SearchSpec
from llmbench.retrieval.evaluation.arms import documents
from llmbench.retrieval.evaluation.evaluate import Evaluated
from llmbench.retrieval.evaluation.metrics import HEADLINE, estimated, measure
from llmbench.retrieval.search import language
from llmbench.retrieval.search.fusion import List, convex, rrf
from llmbench.retrieval.store import WritableIndex, layout
from llmbench.statistics import Difference, Estimate
from llmbench.statistics.paired import difference

__all__ = ["ALPHAS", "Tuned", "fused", "keep", "tune"]

ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
FOLDS = 5
FEWEST = 20
"""Queries below which no weight is tuned: with fewer, a fold has three."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    `alpha` is the best over all queries, and what is kept. `held_out` is what such tuning is worth on queries that it did not
    see: each query scored with the alpha of the other folds, `folds` being those alphas. `seen` is the figure of `alpha` on
    the very queries that chose it, which is too good. `untuned` has the alpha that is taken where none was tuned, and `gain` is
    held out minus that, query by query.
    """

    alpha: float
    folds: tuple[float, ...]
    held_out: Estimate
    seen: float
    untuned: Estimate
    rrf: Estimate
    dense: Estimate
    terms: Estimate
    gain: Difference
    curve: tuple[tuple[float, float], ...]
    """(alpha, mean over all queries), to look at."""

    @property
    def worth_it(self) -> bool:
        """Whether queries that were not tuned on are answered better than without tuning."""
        return self.gain.mean > 0

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def fused(
    dense: Sequence[tuple[str, str, float]],
    terms: Sequence[tuple[str, str, float]],
    spec: SearchSpec,
    alpha: float | None,
) -> list[tuple[str, str, float]]:
    """Two arms' passages of one query as the search fuses them: convex where alpha is given, else RRF."""
    sources = {identity: source for identity, source, _ in (*dense, *terms)}
    lists = [_list(dense), _list(terms)]
    ids, scores = rrf(lists, spec.rrf_k) if alpha is None else convex(lists[0], lists[1], alpha)
    return [(str(one), sources[str(one)], float(score)) for one, score in zip(ids, scores, strict=True)]


def tune(
    found: Evaluated,
    qrels: Mapping[str, Mapping[str, int]],
    *,
    pages: Mapping[str, str] | None = None,
    ignore_identical: bool = False,
    seed: int = 0,
) -> Tuned:
    """Finds alpha by five-fold cross-validation over the queries.

    Raises:
        DataError: there are too few queries.
    """
    queries = sorted(qrels)
    if len(queries) < FEWEST:
        raise DataError(
            f"{len(queries)} judged queries are too few to tune alpha. Judge at least {FEWEST}, or leave --tune out."
        )
    table = np.array([_values(found, qrels, dict.fromkeys(queries, alpha), ignore_identical) for alpha in ALPHAS])
    plain = _values(found, qrels, {query: found.weights.get(query, language.ALPHA) for query in queries}, ignore_identical)
    ranks = _values(found, qrels, dict.fromkeys(queries, None), ignore_identical)
    fold = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    held_out, chosen = np.zeros(len(queries)), []
    for one in range(FOLDS):
        best = _best(table[:, fold != one])
        held_out[fold == one] = table[best, fold == one]
        chosen.append(ALPHAS[best])
    best = _best(table)
    unseen, without, by_rank = (dict(zip(queries, row.tolist(), strict=True)) for row in (held_out, plain, ranks))
    pages = pages or {}
    gain = difference(HEADLINE, "tuned, held out", "untuned", unseen, without, "score", groups=pages)
    assert gain is not None  # there are FEWEST queries at least
    return Tuned(
        ALPHAS[best],
        tuple(chosen),
        estimated(unseen, pages),
        float(table[best].mean()),
        estimated(without, pages),
        estimated(by_rank, pages),
        estimated(found.values["dense"][HEADLINE], pages),
        estimated(found.values["terms"][HEADLINE], pages),
        gain,
        tuple((alpha, float(row.mean())) for alpha, row in zip(ALPHAS, table, strict=True)),
    )


def keep(folder: Path, tuned: Tuned, collection: str) -> None:
    """Notes alpha in the generation that is searched; a rebuild takes it over where embedder and words stay the same.

    Raises:
        IndexError_: the index is not built.
        LlmbenchError: another process writes it.
    """
    with workspace.lock(folder, "index"):
        generation = layout.current(folder)
        if generation is None:
            raise IndexError_(
                f"index {folder.name} is not built, so alpha cannot be kept with it. Run: llmbench index build PIPELINE"
            )
        index = WritableIndex(generation)
        try:
            with index.transaction():
                index.set(alpha=tuned.alpha, alpha_from={"collection": collection, "held_out": asdict(tuned.held_out)})
        finally:
            index.close()


def _values(
    found: Evaluated,
    qrels: Mapping[str, Mapping[str, int]],
    alphas: Mapping[str, float | None],
    ignore: bool,
) -> NDArray[np.float64]:
    """The headline measure of each query, in their order, fused with its alpha; None is RRF."""
    dense, terms = found.arms["dense"].found, found.arms["terms"].found
    passages = {query: fused(dense[query], terms[query], found.recipe.search, alpha) for query, alpha in alphas.items()}
    values = measure(documents(passages, found.name_of, ignore_identical=ignore), qrels, [HEADLINE])[HEADLINE]
    return np.array([values[query] for query in alphas])


def _best(table: NDArray[np.float64]) -> int:
    """The row with the highest mean; of equals the one nearest to an even weight, which errs least elsewhere."""
    means = table.mean(axis=1)
    near = np.flatnonzero(means >= means.max() - 1e-12)
    return int(min(near, key=lambda i: (abs(ALPHAS[i] - 0.5), ALPHAS[i])))


def _list(passages: Sequence[tuple[str, str, float]]) -> List:
    return np.array([one for one, _, _ in passages], dtype=str), np.array([score for _, _, score in passages], dtype=np.float64)
