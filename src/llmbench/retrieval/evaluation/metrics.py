"""What a ranking is worth, as trec_eval computes it (through ir-measures), over all judged queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmbench.errors import DataError, LlmbenchError, MissingPackage
from llmbench.retrieval.evaluation.collection import Qrels
from llmbench.retrieval.evaluation.trec import Run
from llmbench.statistics import Estimate

__all__ = ["HEADLINE", "MEASURES", "estimated", "mean", "measure"]

HEADLINE = "nDCG@10"
MEASURES = (HEADLINE, "R@10", "R@100", "RR", "AP", "P@5")
"""In ir-measures' notation: normalised discounted cumulative gain, recall, reciprocal rank, average precision, precision."""


def measure(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, for every judged query that has a relevant document.

    A judged query that the run lacks counts 0, so that an average hides no failure; a query without a relevant document
    cannot be judged and is left out. nDCG has trec_eval's linear gain: DCG = sum of grade / log2(rank + 1). A document counts
    at its first place only.

    Raises:
        MissingPackage: ir-measures is not installed.
        LlmbenchError: no such measure.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingPackage("evaluate", "ir-measures", "rag") from error
    judged = {query: dict(grades) for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    values = {name: dict.fromkeys(judged, 0.0) for name in measures}
    try:
        names = {ir_measures.parse_measure(name): name for name in measures}
    except (NameError, ValueError, SyntaxError) as error:
        raise LlmbenchError(f"no such measure among {', '.join(measures)}. Use nDCG@10, R@100, RR, AP, P@5.") from error
    # trec_eval sorts by score in single precision and breaks ties by name: whole numbers keep the ranking as it is.
    scored = {query: _falling(run[query]) for query in judged if run.get(query)}
    if scored:
        for one in ir_measures.iter_calc(list(names), judged, scored):
            values[names[one.measure]][one.query_id] = float(one.value)
    return values


def mean(values: dict[str, float]) -> float:
    """The average over queries; 0 of none."""
    return sum(values.values()) / len(values) if values else 0.0


def estimated(values: Mapping[str, float], pages: Mapping[str, str]) -> Estimate:
    """The average with its interval; queries about one page count together.

    Raises:
        DataError: there is no query.
    """
    from llmbench.statistics.paired import estimate

    found = estimate(values, "score", groups=pages)
    if found is None:
        raise DataError("there are no queries, so nothing can be measured.")
    return found


def _falling(documents: Sequence[str]) -> dict[str, float]:
    once = list(dict.fromkeys(documents))
    return {document: float(len(once) - place) for place, document in enumerate(once)}
