"""Many pipelines on growing shares of the queries: those that are surely worse are stopped, and the cheapest good one is named.

Rounds double the queries until all are asked. After each, a pipeline is stopped when the paired interval of its
difference to the leader lies below 0. The intervals are Bonferroni-corrected over all pipelines and all rounds (95% for all of
them together), so that looking often stops no good pipeline by chance.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmbench.errors import RecipeError
from llmbench.recipe import RagRecipe
from llmbench.retrieval.evaluation import arms as asking
from llmbench.retrieval.evaluation.arms import Searches
from llmbench.retrieval.evaluation.collection import Collection
from llmbench.retrieval.evaluation.evaluate import Progress
from llmbench.retrieval.evaluation.metrics import HEADLINE, estimated, measure
from llmbench.retrieval.evaluation.names import naming
from llmbench.statistics import Estimate, intervals
from llmbench.statistics.clusters import clusters

__all__ = ["Journal", "Outcome", "Pipeline", "cheapest", "index_name", "pipelines", "race", "rounds"]

FIRST = 25
"""Queries of the first round: fewer tell nothing apart."""
CONFIDENCE = 0.95

Opening = Callable[[RagRecipe], AbstractContextManager[Searches]]
"""Builds the index of a pipeline where it is not built, and opens it."""


@dataclass(frozen=True)
class Pipeline:
    """One pipeline of the grid: the overrides that make it, and its recipe, whose name is that of the index it shares."""

    overrides: tuple[str, ...]
    recipe: RagRecipe

    @property
    def label(self) -> str:
        """The overrides in one line."""
        return " ".join(self.overrides) or "as it is"


@dataclass(frozen=True)
class Outcome:
    """What became of a pipeline. `low` and `high` are the corrected interval of its difference to the leader."""

    pipeline: Pipeline
    ndcg: Estimate
    queries: int
    stopped: bool
    low: float
    high: float
    passages: int
    seconds: float

    @property
    def as_good(self) -> bool:
        """Whether it answered all queries and is not surely worse than the leader."""
        return not self.stopped and self.high >= 0

    @property
    def cost(self) -> tuple[int, int, int, str]:
        """Work for a query, which no clock disturbs: pairs that a model reads, stages, passages in the index."""
        search = self.pipeline.recipe.search
        read = search.rerank.candidates if search.rerank else 0
        asked = search.expand.count if search.expand else 0
        stages = {"terms": 0, "dense": 1, "hybrid": 2}[search.mode]
        return (read + asked, stages, self.passages, self.pipeline.label)


def pipelines(
    base: RagRecipe, lists: Mapping[str, Sequence[str]], load: Callable[[Sequence[str]], RagRecipe]
) -> list[Pipeline]:
    """Every combination of the lists' values, each loaded and checked as a recipe of its own.

    Those that cut and embed the same documents alike share one index, and so each passage is embedded once.

    Raises:
        RecipeError: a list is empty, or a combination is no pipeline.
    """
    for key, values in lists.items():
        if not values:
            raise RecipeError(f"--grid {key}: no values. Write --grid {key}=first,second")
    found = []
    for values in itertools.product(*lists.values()):
        overrides = tuple(f"{key}={value}" for key, value in zip(lists, values, strict=True))
        recipe = load(overrides)
        named = recipe.model_copy(update={"name": index_name(base, recipe)})
        found.append(Pipeline(overrides, named))
    return found


def index_name(base: RagRecipe, recipe: RagRecipe) -> str:
    """The base's own name where the index is the same, else that name and what sets it apart."""
    parts = ("documents", "chunking", "embedder")
    if all(getattr(base, part) == getattr(recipe, part) for part in parts):
        return base.name
    text = json.dumps(recipe.model_dump(mode="json", include=set(parts)), sort_keys=True)
    return f"{base.name[:50]}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Journal:
    """Answers that are kept: pipeline -> query -> (value, seconds), a line each: a stopped grid goes on from there."""

    def __init__(self, path: Path, collection: Collection) -> None:
        """Reads what is there; a last line that a kill cut short is removed."""
        self._path = path
        judged = sorted((query, sorted(grades.items())) for query, grades in collection.qrels.items())
        self._salt = _digest([collection.name, sorted(collection.queries.items()), judged])
        self._kept: dict[tuple[str, str], tuple[float, float]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole = file.read().rpartition(b"\n")
            file.truncate(len(whole[0]) + len(whole[1]))
        for line in whole[0].splitlines():
            key, query, value, seconds = json.loads(line)
            self._kept[key, query] = (value, seconds)

    def key(self, recipe: RagRecipe, passages: int) -> str:
        """What an answer depends on: the collection, the pipeline, and how many passages its index has."""
        shape = recipe.model_dump(mode="json", include={"documents", "chunking", "embedder", "search"})
        return _digest([self._salt, shape, passages])

    def get(self, key: str, query: str) -> tuple[float, float] | None:
        """The value and seconds of a query, where it was asked before."""
        return self._kept.get((key, query))

    def put(self, key: str, values: Mapping[str, tuple[float, float]]) -> None:
        """Keeps answers."""
        self._kept.update({(key, query): pair for query, pair in values.items()})
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([key, query, *pair]) + "\n" for query, pair in values.items())


def rounds(queries: int) -> list[int]:
    """How many queries are asked by the end of each round: doubling from `FIRST` to all."""
    steps = list(itertools.takewhile(lambda n: n < queries, (FIRST * 2**i for i in itertools.count())))
    return [*steps, queries]


def race(
    entries: Sequence[Pipeline],
    collection: Collection,
    opening: Opening,
    journal: Journal,
    *,
    seed: int = 0,
    ignore_identical: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> list[Outcome]:
    """Asks round by round; returns all pipelines, the best first, the stopped ones last.

    The same seed asks the same queries in the same order, and so stops the same pipelines.
    """
    order = [str(one) for one in np.random.default_rng(seed).permutation(sorted(collection.queries))]
    steps = rounds(len(order))
    level = 1 - (1 - CONFIDENCE) / max(1, (len(entries) - 1) * len(steps))
    asked: dict[int, dict[str, tuple[float, float]]] = {i: {} for i in range(len(entries))}
    alive, passages, pages = set(asked), dict.fromkeys(asked, 0), collection.pages
    for number, step in enumerate(steps, 1):
        for recipe, members in _shared(entries, alive):
            with opening(recipe) as index:
                for i in members:
                    passages[i] = sum(count for _, _, count in index.sources())
                    what = f"round {number} of {len(steps)}: {entries[i].label}"
                    for done, block in _blocks(order[:step], asked[i]):
                        asked[i] |= _asked(index, entries[i], collection, block, journal, passages[i], ignore_identical)
                        progress(what, done, step)
        leader = max(alive, key=lambda i: (_mean(asked[i]), -i))
        alive -= {i for i in alive if i != leader and _behind(asked[i], asked[leader], level, pages)[1] < 0}
    leader = max(alive, key=lambda i: (_mean(asked[i]), -i))
    found = [
        Outcome(
            one,
            estimated({query: value for query, (value, _) in asked[i].items()}, pages),
            len(asked[i]),
            i not in alive,
            *(_behind(asked[i], asked[leader], level, pages) if i != leader else (0.0, 0.0)),
            passages[i],
            sum(seconds for _, seconds in asked[i].values()) / len(asked[i]),
        )
        for i, one in enumerate(entries)
    ]
    return sorted(found, key=lambda one: (one.stopped, -one.ndcg.mean, one.pipeline.label))


def cheapest(found: Sequence[Outcome]) -> Outcome:
    """Of the pipelines that are not significantly worse than the best, the one with the least work for a query."""
    return min((one for one in found if one.as_good), key=lambda one: one.cost)


def _asked(
    index: Searches,
    entry: Pipeline,
    collection: Collection,
    block: Sequence[str],
    journal: Journal,
    passages: int,
    ignore: bool,
) -> dict[str, tuple[float, float]]:
    """The value and seconds of some queries, from the journal where they stand there."""
    key = journal.key(entry.recipe, passages)
    kept = {query: pair for query in block if (pair := journal.get(key, query)) is not None}
    new = [query for query in block if query not in kept]
    if not new:
        return kept
    sources = index.sources()
    name_of, _ = naming([source for source, _, _ in sources], collection.documents, collection.name)
    texts = {query: collection.queries[query] for query in new}
    arm = asking.ask(index, entry.label, entry.recipe.search, texts, asking.passage_depth(entry.recipe.search, sources))
    run = asking.documents(arm.found, name_of, ignore_identical=ignore)
    values = measure(run, {query: collection.qrels[query] for query in new}, [HEADLINE])[HEADLINE]
    fresh = {query: (values[query], seconds) for query, seconds in zip(new, arm.seconds, strict=True)}
    journal.put(key, fresh)
    return kept | fresh


def _shared(entries: Sequence[Pipeline], alive: set[int]) -> Iterator[tuple[RagRecipe, list[int]]]:
    """The pipelines that are still asked, by the index that they share."""
    groups: dict[str, list[int]] = {}
    for i in sorted(alive):
        groups.setdefault(entries[i].recipe.name, []).append(i)
    for members in groups.values():
        yield entries[members[0]].recipe, members


def _blocks(queries: Sequence[str], asked: Mapping[str, object], size: int = 25) -> Iterator[tuple[int, Sequence[str]]]:
    """The queries that were not asked, a few at a time: what is kept when a grid is stopped."""
    left = [query for query in queries if query not in asked]
    done = len(queries) - len(left)
    for start in range(0, len(left), size):
        block = left[start : start + size]
        done += len(block)
        yield done, block


def _behind(
    mine: Mapping[str, tuple[float, float]],
    best: Mapping[str, tuple[float, float]],
    level: float,
    pages: Mapping[str, str],
) -> tuple[float, float]:
    """The interval of a pipeline's difference to the leader, over the queries that it was asked."""
    queries = sorted(mine)
    d = np.array([mine[query][0] - best[query][0] for query in queries], dtype=np.float64)
    found = intervals.difference(d, clusters(queries, pages), "score", level)
    return found.low, found.high


def _mean(asked: Mapping[str, tuple[float, float]]) -> float:
    return sum(value for value, _ in asked.values()) / len(asked)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
