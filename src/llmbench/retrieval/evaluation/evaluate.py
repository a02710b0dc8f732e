"""One pipeline, or several, asked all judged queries: figures, intervals, and whether the differences are more than chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llmbench.recipe import RagRecipe
from llmbench.retrieval.evaluation import arms as asking
from llmbench.retrieval.evaluation.arms import Arm, Searches
from llmbench.retrieval.evaluation.collection import Collection
from llmbench.retrieval.evaluation.metrics import HEADLINE, estimated, measure
from llmbench.retrieval.evaluation.names import Naming, naming
from llmbench.retrieval.evaluation.report import Report, Row
from llmbench.shown import counted
from llmbench.statistics import Difference
from llmbench.statistics.paired import differences
from llmbench.statistics.words import clustering

__all__ = ["Evaluated", "evaluate", "reference", "report"]

Progress = Callable[[str, int, int], None]
"""Called with what is being asked, queries asked, and queries in all."""


@dataclass(frozen=True)
class Evaluated:
    """One index asked in every way: what was found, and what it is worth, arm -> measure -> query -> value."""

    recipe: RagRecipe
    arms: Mapping[str, Arm]
    runs: Mapping[str, Mapping[str, list[str]]]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    name_of: Naming
    documents: int
    passage_depth: int
    """Passages that were ranked for each query, which the documents of the run come from."""
    missing: list[str] = field(default_factory=list)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of each query, the weight of meaning that is taken where none was tuned."""
    unmet: Sequence[str] = ()
    """What of the filter no document can meet."""


def evaluate(
    index: Searches,
    collection: Collection,
    *,
    ignore_identical: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Evaluated:
    """Asks an open index all queries: dense alone, terms alone, fused, and as the recipe has it.

    Raises:
        DataError: the index holds none of the judged documents.
    """
    recipe, sources = index.recipe, index.sources()
    name_of, missing = naming(
        [source for source, _, _ in sources], collection.documents, f"index {recipe.name}, {collection.name}"
    )
    ways = asking.arms(recipe.search)
    depth = asking.passage_depth(recipe.search, sources)
    done, total = 0, len(ways) * len(collection.queries)

    def moved(what: str) -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    found = {name: asking.ask(index, name, spec, collection.queries, depth, moved) for name, spec in ways.items()}
    runs = {name: asking.documents(arm.found, name_of, ignore_identical=ignore_identical) for name, arm in found.items()}
    values = {name: measure(run, collection.qrels) for name, run in runs.items()}
    weights = {query: index.weight(text) for query, text in collection.queries.items()}
    return Evaluated(recipe, found, runs, values, name_of, len(sources), depth, missing, weights, index.unmet())


def reference(recipe: RagRecipe) -> str:
    """The arm that is the pipeline as its recipe has it."""
    ways = asking.arms(recipe.search)
    modes = {"dense": "dense", "terms": "terms", "hybrid": "fused"}
    return "pipeline" if "pipeline" in ways else modes[recipe.search.mode]


def report(collection: Collection, first: Evaluated, *others: Evaluated, ignore_identical: bool = False) -> Report:
    """The figures of the first pipeline's every arm and of the others as they are, against the first as it is.

    With one pipeline the arms bear their own names; with several the others are called by their pipelines' names.
    """
    mine = reference(first.recipe)
    ways = {name: (first.arms[name], first.values[name]) for name in first.arms}
    for number, other in enumerate(others, 2):
        last = reference(other.recipe)
        name = other.recipe.name if other.recipe.name not in ways else f"{other.recipe.name} ({number})"
        ways[name] = (other.arms[last], other.values[last])
    lines = tuple(_row(name, arm, values, collection.pages) for name, (arm, values) in ways.items())
    headline = {name: values[HEADLINE] for name, (_, values) in ways.items()}
    pairs = [(mine, other) for other in headline if other != mine]
    found = differences(HEADLINE, headline, "score", groups=collection.pages, pairs=pairs)
    return Report(
        first.recipe.name,
        collection.name,
        len(collection.queries),
        first.documents,
        first.passage_depth,
        mine,
        lines,
        tuple(found),
        tuple(_notes(collection, first, lines, found, ignore_identical)),
    )


def _row(name: str, arm: Arm, values: Mapping[str, Mapping[str, float]], pages: Mapping[str, str]) -> Row:
    seconds = sum(arm.seconds) / len(arm.seconds) if arm.seconds else 0.0
    empty = sum(not passages for passages in arm.found.values())
    return Row(name, {measure: estimated(of, pages) for measure, of in values.items()}, seconds, empty)


def _notes(
    collection: Collection, first: Evaluated, lines: tuple[Row, ...], found: list[Difference], ignore_identical: bool
) -> list[str]:
    notes = [*first.unmet]
    left_out = {
        "without a relevant document": collection.nothing_relevant,
        "without judgements": collection.unjudged,
        "whose words are missing": collection.unknown,
        "that no document answers": collection.unanswerable,
    }
    left = ", ".join(f"{counted(count, 'query', 'queries')} {what}" for what, count in left_out.items() if count)
    if left:
        notes.append(f"Left out: {left}.")
    if first.missing:
        notes.append(
            f"Not in the index, and so not found: {len(first.missing)} of "
            f"{counted(len(collection.documents), 'relevant document')}, such as {first.missing[0]}."
        )
    means = [row.of[HEADLINE] for row in lines]
    notes += clustering(list(collection.queries), collection.pages, found or means, "queries", ("document", "documents"))
    for row in lines:
        if row.empty:
            notes.append(f"{row.name}: {counted(row.empty, 'query', 'queries')} found nothing, which counts as 0.")
    same = sum(query in run for query, run in first.runs[reference(first.recipe)].items())
    if ignore_identical:
        notes.append("Documents with the same name as their query were left out (--ignore-identical).")
    elif same or collection.identical:
        named = counted(max(same, len(collection.identical)), "query", "queries")
        notes.append(
            f"Queries with the same name as a document: {named}. If they are the same text, as in ArguAna, use "
            "--ignore-identical."
        )
    if first.passage_depth > first.recipe.search.candidates:
        notes.append(
            f"{first.passage_depth} passages per query were ranked instead of the recipe's {first.recipe.search.candidates}, "
            "so that 100 documents could be judged."
        )
    return notes
