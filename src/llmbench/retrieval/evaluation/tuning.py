"""The weight of dense beside terms, found on judged queries by cross-validation and kept with the index."""

from __future__ import annotations

import json
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
from llmbench.retrieval.evaluation.metrics import HEADLINE, measure
from llmbench.retrieval.evaluation.statistics import Difference, Estimate, difference, estimate
from llmbench.retrieval.search.fusion import List, convex, rrf

__all__ = ["ALPHAS", "Tuned", "fused", "read_alpha", "tune", "write_alpha"]

ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
FOLDS = 5
FEWEST = 20
"""Queries below which no weight is tuned: with fewer, a fold has three."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    `alpha` is the best over all queries, and what is kept. `held_out` is what such tuning is worth on queries that it did not
    see: each query scored with the alpha of the other folds, `folds` being those alphas. `seen` is the figure of `alpha` on
    the very queries that chose it, which is too good. `gain` is held out minus RRF, query by query.
    """

    alpha: float
    folds: tuple[float, ...]
    held_out: Estimate
    seen: float
    rrf: Estimate
    dense: Estimate
    terms: Estimate
    gain: Difference
    curve: tuple[tuple[float, float], ...]
    """(alpha, mean over all queries), to look at."""

    @property
    def worth_it(self) -> bool:
        """Whether queries that were not tuned on are answered at least as well as by RRF, which needs no tuning."""
        return self.gain.mean >= 0

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


def tune(found: Evaluated, qrels: Mapping[str, Mapping[str, int]], *, ignore_identical: bool = False, seed: int = 0) -> Tuned:
    """Finds alpha by five-fold cross-validation over the queries.

    Raises:
        DataError: there are too few queries.
    """
    queries = sorted(qrels)
    if len(queries) < FEWEST:
        raise DataError(f"{len(queries)} judged queries are too few to tune alpha with. Judge at least {FEWEST}, or leave RRF.")
    table = np.array([_values(found, qrels, alpha, queries, ignore_identical) for alpha in ALPHAS])
    plain = _values(found, qrels, None, queries, ignore_identical)
    fold = np.random.default_rng(seed).permutation(len(queries)) % FOLDS
    held_out, chosen = np.zeros(len(queries)), []
    for one in range(FOLDS):
        best = _best(table[:, fold != one])
        held_out[fold == one] = table[best, fold == one]
        chosen.append(ALPHAS[best])
    best = _best(table)
    unseen, without = (dict(zip(queries, row.tolist(), strict=True)) for row in (held_out, plain))
    return Tuned(
        ALPHAS[best],
        tuple(chosen),
        estimate(unseen),
        float(table[best].mean()),
        estimate(without),
        estimate(found.values["dense"][HEADLINE]),
        estimate(found.values["terms"][HEADLINE]),
        difference("tuned, held out", "rrf", unseen, without),
        tuple((alpha, float(row.mean())) for alpha, row in zip(ALPHAS, table, strict=True)),
    )


def write_alpha(folder: Path, tuned: Tuned, collection: str) -> Path:
    """Keeps alpha beside the index; returns the file."""
    path = folder / "alpha.json"
    kept = {"alpha": tuned.alpha, "collection": collection, "held_out": asdict(tuned.held_out), "rrf": asdict(tuned.rrf)}
    workspace.write_json(path, kept)
    return path


def read_alpha(folder: Path) -> float | None:
    """The alpha that was tuned for an index, or None.

    Raises:
        IndexError_: the file is broken.
    """
    path = folder / "alpha.json"
    try:
        alpha = float(json.loads(path.read_text(encoding="utf-8"))["alpha"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IndexError_(f"{path} is broken ({error}). Remove it and tune again: llmbench evaluate rag --tune") from error
    if not 0 <= alpha <= 1:
        raise IndexError_(f"{path}: alpha is {alpha}, not in 0 to 1. Remove it and tune again: llmbench evaluate rag --tune")
    return alpha


def _values(
    found: Evaluated, qrels: Mapping[str, Mapping[str, int]], alpha: float | None, queries: Sequence[str], ignore: bool
) -> NDArray[np.float64]:
    """The headline measure of each query, fused with an alpha."""
    dense, terms = found.arms["dense"].found, found.arms["terms"].found
    width = found.recipe.search
    passages = {query: fused(dense[query], terms[query], width, alpha) for query in queries}
    values = measure(documents(passages, found.name_of, ignore_identical=ignore), qrels, [HEADLINE])[HEADLINE]
    return np.array([values[query] for query in queries])


def _best(table: NDArray[np.float64]) -> int:
    """The row with the highest mean; of equals the one nearest to an even weight, which errs least elsewhere."""
    means = table.mean(axis=1)
    near = np.flatnonzero(means >= means.max() - 1e-12)
    return int(min(near, key=lambda i: (abs(ALPHAS[i] - 0.5), ALPHAS[i])))


def _list(passages: Sequence[tuple[str, str, float]]) -> List:
    return np.array([one for one, _, _ in passages], dtype=str), np.array([score for _, _, score in passages], dtype=np.float64)
