"""Builds the approximate index of a large collection, with settings that were measured to find what exact search finds.

Measured are queries that no setting saw: stored vectors moved as far as a question lies from its passage (or questions that
the caller has), compared with exact search over the same rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from llmbench.retrieval.store.nearest import BLOCK, WIDE, Nearest, Plan, exact, library, mask, ranked

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

FACTORS = (1, 2, 3, 4, 6, 8, 16)
"""Candidates for each of a hundred hits that are tried."""

PER_LIST = 64
"""Rows that each cell is learned from; FAISS warns below 39."""


def due(nearest: Nearest, n: int, dead: int, kind: Kind = "auto") -> bool:
    """Whether an approximate index of n rows, so many of them dead, should be built now.

    A tail costs each search as exact search does; rows are embedded so much slower than they are indexed that building at a
    twentieth adds little.
    """
    live = n - dead
    if kind == "exact" or live < LEAST or (kind == "auto" and live <= EXACT):
        return False
    if nearest.plan is None or (kind != "auto" and nearest.plan.kind != kind):
        return True
    return n - nearest.base > max(EXACT // 5, nearest.base // 20)


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
        queries: shape (q, dim), questions to measure with, at least 200; None makes them of stored vectors.
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
    allowed = mask(n, None, dead)
    alive = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    asked = made_queries(vectors, alive, rng) if queries is None else queries[rng.permutation(len(queries))[:QUERIES]]
    tell("exact answers", 0, len(asked))
    truth = [
        ranked(vectors, query, pool, WIDE)[1] for query, pool in zip(asked, exact(vectors, asked, WIDE, allowed), strict=True)
    ]
    methods: tuple[Literal["ivf", "hnsw"], ...] = ("ivf", "hnsw") if kind == "auto" else (kind,)
    for method in methods:
        index, lists = (_inverted if method == "ivf" else _graph)(vectors, alive, rng, seed, tell)
        plan = Plan(method, n, vectors.shape[1], lists, 1, 1, target_recall, 0, 0, 0, 0, 0, 0)
        plan = _settled(Nearest(index, plan), plan, asked, truth, allowed, tell)
        if plan.recall >= target_recall or kind != "auto":
            return Nearest(index, replace(plan, seconds=time.perf_counter() - began))
    return Nearest()


def made_queries(
    vectors: NDArray[np.float32], alive: NDArray[np.int64], rng: np.random.Generator, count: int = QUERIES
) -> NDArray[np.float32]:
    """Queries (count, dim): stored vectors, each moved by as much as its own length along the difference of two others.

    That leaves a cosine of 0.7 with the vector it was made of, as a question has with its passage, and moves along
    directions in which the collection itself is spread, as a question does; noise in all directions alike would not.
    """
    import numpy as np

    start, one, other = (vectors[np.sort(rng.choice(alive, count))].astype(np.float32) for _ in range(3))
    away = rng.permutation(one) - rng.permutation(other)
    moved = start + away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    made: NDArray[np.float32] = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
    return made.astype(np.float32)


def _inverted(
    vectors: NDArray[np.float32], alive: NDArray[np.int64], rng: np.random.Generator, seed: int, tell: Progress
) -> tuple[Any, int]:
    """Cells around centroids, in each the codes of its vectors: four bits for two values of what the centroid leaves."""
    import numpy as np

    faiss, dim = library(), vectors.shape[1]
    lists = 2 ** round(math.log2(2 * math.sqrt(len(alive))))
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


def _settled(
    nearest: Nearest,
    plan: Plan,
    queries: NDArray[np.float32],
    truth: list[NDArray[np.int64]],
    allowed: NDArray[np.bool_] | None,
    tell: Progress,
) -> Plan:
    """The plan with the cheapest settings that reach the target on one half of the queries; what they reach on the other.

    Recall@10 must reach it with its whole interval, recall@100 with its mean.
    """
    half = len(queries) // 2
    limit = plan.lists if plan.kind == "ivf" else 2048
    tries = [2**i for i in range(0 if plan.kind == "ivf" else 7, int(math.log2(limit)) + 1)]
    best: tuple[float, Plan] | None = None
    for done, probes in enumerate(tries):
        tell("settling", done, len(tries))
        tried = Nearest(nearest.index, replace(plan, probes=probes))
        # A graph keeps as many candidates as it is asked for; of an inverted file the first ones are the same.
        factors = [factor for factor in FACTORS if plan.kind == "ivf" or WIDE * factor <= probes]
        found = tried.candidates(queries[:half], WIDE * factors[-1], allowed)
        for factor in factors:
            cost, some = _cost(plan, probes, factor), found[:, : WIDE * factor]
            if best is not None and cost >= best[0]:
                break
            if _recall(some, truth[:half], 10)[1] >= plan.target and _recall(some, truth[:half], WIDE)[0] >= plan.target:
                best = cost, replace(plan, probes=probes, factor=factor)
    chosen = best[1] if best else replace(plan, probes=limit, factor=FACTORS[-1])
    found = Nearest(nearest.index, chosen).candidates(queries[half:], WIDE * chosen.factor, allowed)
    recall, low, high = _recall(found, truth[half:], 10)
    wide = _recall(found, truth[half:], WIDE)[0]
    return replace(chosen, recall=recall, low=low, high=high, recall_100=wide, queries=len(queries) - half)


def _cost(plan: Plan, probes: int, factor: int) -> float:
    """Microseconds of a query on one core of 2025, by which settings are compared; no clock, so that a seed decides."""
    if plan.kind == "hnsw":
        return 3.0 * probes + 1.0 * WIDE * factor
    scanned = plan.base * probes / plan.lists * _parts(plan.dim) / 2
    return scanned / 8_000 + 1.0 * WIDE * factor


def _recall(found: NDArray[np.int64], truth: list[NDArray[np.int64]], k: int) -> tuple[float, float, float]:
    """Mean share of each query's k true hits among its candidates, with its 95 % interval (normal approximation)."""
    import numpy as np

    shares = np.array([np.isin(true[:k], some).mean() for some, true in zip(found, truth, strict=True)])
    mean, wide = float(shares.mean()), 1.96 * float(shares.std(ddof=1)) / math.sqrt(len(shares))
    return mean, max(0.0, mean - wide), min(1.0, mean + wide)
