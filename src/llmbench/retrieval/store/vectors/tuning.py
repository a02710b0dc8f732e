"""Builds the approximate index of a large collection, with settings that were measured to find what exact search finds.

Measured are queries that no setting saw: the caller's questions, where there are enough, else stored vectors moved as far as a
question lies from its passage; compared with exact search over the same rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from llmbench.retrieval.store.vectors.exact import BLOCK, exact, ranked
from llmbench.retrieval.store.vectors.nearest import WIDE, Nearest, Plan, Selection, library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EXACT", "build", "due"]

Kind = Literal["auto", "exact", "hnsw", "ivf"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

EXACT = 50_000
"""Live rows up to which comparing with all of them is quick enough: 77 MB of all-MiniLM-L6-v2's vectors a query."""

LEAST = 2_000
"""Rows below which no approximate index is built, whatever is asked for: too few to learn codes from."""

QUERIES = 1000
"""Queries measured with: one half settles the settings, the other says what they reach."""

ENOUGH = 200
"""Questions of the caller's that measure alone; one half of fewer says too little of a recall of 0.95."""

FACTORS = (1, 2, 3, 4, 6, 8, 16)
"""Candidates for each of a hundred hits that are tried."""

PER_LIST = 64
"""Rows that each cell is learned from, where there are so many; FAISS warns below 39."""


def due(nearest: Nearest, n: int, dead: int, kind: Kind = "auto") -> bool:
    """Whether an approximate index of n rows, so many of them dead, should be built now.

    A tail costs each search as exact search does, 3 to 6 ms of CPU for 10,000 rows of 384 values. A million vectors are built
    in the time in which 10,000 passages are embedded, so that building again after a fiftieth adds little.
    """
    live = n - dead
    if kind == "exact" or live < LEAST or (kind == "auto" and live <= EXACT):
        return False
    if nearest.plan is None or (kind != "auto" and nearest.plan.kind != kind):
        return True
    return n - nearest.base > max(EXACT // 5, nearest.base // 50)


def build(
    vectors: NDArray[np.float32],
    *,
    dead: NDArray[np.int64] | None = None,
    kind: Kind = "auto",
    target_recall: float = 0.95,
    queries: NDArray[np.float32] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Nearest:
    """Builds what searches these rows best; exact where that is quick enough, or nothing else reaches the recall.

    The same rows, seed and number of threads give the same inverted file; a graph depends on the order in which threads
    come to it.

    Args:
        vectors: shape (n, dim), of unit length; may be a view into mapped records. Read in blocks, never copied whole.
        dead: rows that are not to be found.
        kind: `auto` is exact up to 50,000 live rows, then an inverted file, then a graph where that falls short.
        target_recall: recall@10 that must be reached.
        queries: shape (q, dim), the caller's questions: from `ENOUGH` of them on they measure alone. Fewer must reach the
            recall beside queries that are made of stored vectors, as they are where there are none.
        seed: of samples and of k-means.
        progress: told of each stage.
    """
    import numpy as np

    n, gone = len(vectors), 0 if dead is None else len(dead)
    live = n - gone
    if kind == "exact" or live < LEAST or (kind == "auto" and live <= EXACT):
        return Nearest()
    began = time.perf_counter()
    tell = progress or (lambda stage, done, total: None)
    rng = np.random.default_rng(seed)
    selection = Selection(n, None, dead)
    alive = np.arange(n) if selection.allowed is None else np.flatnonzero(selection.allowed)
    given = np.zeros((0, vectors.shape[1]), np.float32) if queries is None else queries
    alone = len(given) >= ENOUGH
    asked = given[rng.permutation(len(given))[:QUERIES]] if alone else made_queries(vectors, alive, rng)
    beside = given[:0] if alone else given
    tell("exact answers", 0, len(asked) + len(beside))
    truth, sure = (
        [
            ranked(vectors, query, pool, WIDE)[1]
            for query, pool in zip(some, exact(vectors, some, WIDE, selection.allowed), strict=True)
        ]
        for some in (asked, beside)
    )
    methods: tuple[Literal["ivf", "hnsw"], ...] = ("ivf", "hnsw") if kind == "auto" else (kind,)
    for method in methods:
        index, lists = (_inverted if method == "ivf" else _graph)(vectors, alive, rng, seed, tell)
        plan = Plan(method, n, vectors.shape[1], lists, 1, 1, target_recall, 0, 0, 0, 0, 0, 0, asked="own" if alone else "made")
        plan = _settled(Nearest(index, plan), plan, _Asked(asked, truth), _Asked(beside, sure), selection, tell)
        found = min(plan.recall, plan.own_recall) if plan.own else plan.recall
        if found >= target_recall or kind != "auto":
            return Nearest(index, replace(plan, seconds=time.perf_counter() - began))
    return Nearest()


def made_queries(
    vectors: NDArray[np.float32], alive: NDArray[np.int64], rng: np.random.Generator, count: int = QUERIES
) -> NDArray[np.float32]:
    """Queries (count, dim): stored vectors, turned along the difference of two others until the cosine with them is about 0.6.

    So far a question lies from its nearest passage (0.65 in the median of 1,166 questions of six collections), and in such
    directions a collection is spread; noise in all directions alike is not like text. On 4,337 passages of these collections
    16 of 128 cells held 96.2 % of such queries' true hits and 94.4 % of the questions': 96 to 100 % for five collections, 89 %
    for XQuAD, most of whose nearest ten are of other collections.
    """
    import numpy as np

    start, one, other = (vectors[np.sort(rng.choice(alive, count))].astype(np.float32) for _ in range(3))
    away = rng.permutation(one) - rng.permutation(other)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    made = np.float32(0.6) * start + np.float32(0.8) * away
    return np.asarray(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _inverted(
    vectors: NDArray[np.float32], alive: NDArray[np.int64], rng: np.random.Generator, seed: int, tell: Progress
) -> tuple[Any, int]:
    """Cells around centroids, in each the codes of its vectors: four bits for two values of what the centroid leaves."""
    import numpy as np

    faiss, dim = library(), vectors.shape[1]
    lists = 2 ** min(round(math.log2(2 * math.sqrt(len(alive)))), int(math.log2(len(alive) / 39)))
    sample = vectors[np.sort(rng.choice(alive, min(len(alive), PER_LIST * lists), replace=False))]
    cells = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQFastScan(cells, dim, lists, _parts(dim), 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = True
    index.cp.seed = index.pq.cp.seed = seed + 1
    index.cp.spherical, index.cp.niter, index.cp.max_points_per_centroid = True, 10, PER_LIST
    tell("learning cells and codes", 0, lists)
    index.train(np.ascontiguousarray(sample))
    _add(index, vectors, tell)
    return index, lists


def _parts(dim: int) -> int:
    """Into how many parts a vector is cut for its codes: of two values each, where the dimension is even."""
    return dim // 2 if dim % 2 == 0 else dim


def _graph(
    vectors: NDArray[np.float32], alive: NDArray[np.int64], rng: np.random.Generator, seed: int, tell: Progress
) -> tuple[Any, int]:
    """A navigable graph over vectors of one byte a value."""
    import numpy as np

    faiss = library()
    links = 32
    index = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 128
    index.hnsw.rng = faiss.RandomGenerator(seed + 1)
    index.train(np.ascontiguousarray(vectors[np.sort(rng.choice(alive, min(len(alive), 100_000), replace=False))]))
    _add(index, vectors, tell)
    return index, links


def _add(index: Any, vectors: NDArray[np.float32], tell: Progress) -> None:
    """Gives every row its number, deleted ones too, which a search leaves out."""
    import numpy as np

    for first in range(0, len(vectors), BLOCK):
        tell("adding vectors", first, len(vectors))
        index.add(np.ascontiguousarray(vectors[first : first + BLOCK]))
    tell("adding vectors", len(vectors), len(vectors))


@dataclass(frozen=True)
class _Asked:
    """Queries, shape (q, dim), with the rows that exact search finds for each."""

    queries: NDArray[np.float32]
    truth: list[NDArray[np.int64]]


def _settled(nearest: Nearest, plan: Plan, asked: _Asked, own: _Asked, selection: Selection, tell: Progress) -> Plan:
    """The plan with the cheapest settings that reach the target on one half of the queries; what they reach on the other.

    Recall@10 must reach it with its whole interval, recall@100 with its mean; recall@10 on `own` with its mean, where there are
    any.
    """
    queries, truth = asked.queries, asked.truth
    half = len(queries) // 2
    limit = plan.lists if plan.kind == "ivf" else 2048
    tries = [2**i for i in range(0 if plan.kind == "ivf" else 7, int(math.log2(limit)) + 1)]
    best: tuple[float, Plan] | None = None
    for done, probes in enumerate(tries):
        tell("settling", done, len(tries))
        if best is not None and _cost(plan, probes, FACTORS[0]) >= best[0]:
            break
        tried = Nearest(nearest.index, replace(plan, probes=probes))
        # A graph keeps as many candidates as it is asked for; of an inverted file the first ones are the same.
        factors = [factor for factor in FACTORS if plan.kind == "ivf" or WIDE * factor <= probes]
        found = tried.candidates(queries[:half], WIDE * factors[-1], selection)
        ten, hundred = (_reached(found, truth[:half], k) for k in (10, WIDE))
        mine = _own(tried, own, WIDE * factors[-1], selection)
        for factor in factors:
            cost, last = _cost(plan, probes, factor), WIDE * factor - 1
            if best is not None and cost >= best[0]:
                break
            reached = min(float(hundred[:, last].mean()), float(mine[last]))
            if _interval(ten[:, last])[1] >= plan.target and reached >= plan.target:
                best = cost, replace(plan, probes=probes, factor=factor)
    chosen = best[1] if best else replace(plan, probes=limit, factor=FACTORS[-1])
    found = Nearest(nearest.index, chosen).candidates(queries[half:], WIDE * chosen.factor, selection)
    recall, low, high = _interval(_reached(found, truth[half:], 10)[:, -1])
    wide = float(_reached(found, truth[half:], WIDE)[:, -1].mean())
    chosen = replace(chosen, recall=recall, low=low, high=high, recall_100=wide, queries=len(queries) - half)
    if not len(own.queries):
        return chosen
    last = _own(Nearest(nearest.index, chosen), own, WIDE * chosen.factor, selection)[-1]
    return replace(chosen, own=len(own.queries), own_recall=float(last))


def _own(tried: Nearest, own: _Asked, width: int, selection: Selection) -> NDArray[np.float64]:
    """Mean recall@10 on the caller's questions after each of `width` candidates; 1 where there are none."""
    import numpy as np

    if not len(own.queries):
        return np.ones(width)
    return np.asarray(_reached(tried.candidates(own.queries, width, selection), own.truth, 10).mean(axis=0))


def _cost(plan: Plan, probes: int, factor: int) -> float:
    """Microseconds of a query on one core of 2025, by which settings are compared; no clock, so that a seed decides."""
    if plan.kind == "hnsw":
        return 3.0 * probes + 1.0 * WIDE * factor
    scanned = plan.base * probes / plan.lists * _parts(plan.dim) / 2
    return scanned / 8_000 + 1.0 * WIDE * factor


def _reached(found: NDArray[np.int64], truth: list[NDArray[np.int64]], k: int) -> NDArray[np.float64]:
    """Recall@k after each candidate: the share of a query's k true hits that are among its candidates up to there."""
    import numpy as np

    shares = [np.isin(some, true[:k]).cumsum() / len(true[:k]) for some, true in zip(found, truth, strict=True)]
    return np.array(shares)


def _interval(shares: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean with its 95 % interval (normal approximation)."""
    mean, wide = float(shares.mean()), 1.96 * float(shares.std(ddof=1)) / math.sqrt(len(shares))
    return mean, max(0.0, mean - wide), min(1.0, mean + wide)
