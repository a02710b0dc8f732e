"""How far raters agree beyond chance: Cohen's kappa of two, Fleiss's of several, Krippendorff's alpha of any number.

Intervals are jackknifed: each item (or each cluster of items) is left out in turn, and Student's t has their number less one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmbench.statistics.ratings import Agreement

__all__ = ["alpha", "cohen", "fleiss"]

Labels = Mapping[str, Mapping[str, str]]
"""Item -> rater -> label."""
Floats = NDArray[np.float64]


def cohen(labels: Labels, a: str, b: str, *, confidence: float = 0.95) -> Agreement | None:
    """Cohen's kappa (1960) of two raters, over the items that both labelled; None where there are none."""
    both = {item: {a: of[a], b: of[b]} for item, of in labels.items() if a in of and b in of}
    if not both:
        return None
    kinds = sorted({label for of in both.values() for label in of.values()})
    table = np.zeros((len(both), len(kinds), len(kinds)))
    for row, of in zip(table, both.values(), strict=True):
        row[kinds.index(of[a]), kinds.index(of[b])] = 1.0

    def kappa(summed: Floats) -> float:
        n = summed.sum()
        seen, chance = np.trace(summed) / n, float(summed.sum(axis=0) @ summed.sum(axis=1)) / n**2
        return _beyond(seen, chance)

    observed = float(np.trace(table.sum(axis=0))) / len(both)
    return Agreement(*_jackknifed(table, kappa, confidence), observed, len(both), 2)


def fleiss(labels: Labels, *, confidence: float = 0.95, clusters: Mapping[str, str] | None = None) -> Agreement | None:
    """Fleiss's kappa (1971); raters need not be the same, nor as many for each item. None without an item of two labels.

    For unequal numbers of raters the items count by their pairs of raters, as their agreement is known by these.
    """
    counts, names = _counts(labels)
    if not len(counts):
        return None

    def kappa(summed: Floats) -> float:
        # summed: pairs that agree, pairs, then labels of each kind.
        share = summed[2:] / summed[2:].sum()
        return _beyond(summed[0] / summed[1], float(share @ share))

    n = counts.sum(axis=1)
    rows = np.column_stack([(counts * (counts - 1)).sum(axis=1), n * (n - 1), counts])
    return _found(rows, kappa, labels, names, confidence, clusters)


def alpha(labels: Labels, *, confidence: float = 0.95, clusters: Mapping[str, str] | None = None) -> Agreement | None:
    """Krippendorff's alpha (2004) for labels without an order, any number of raters and gaps.

    One less the ratio of the disagreement seen to the one that would be seen if all labels were shuffled.
    """
    counts, names = _counts(labels)
    if not len(counts):
        return None

    def coefficient(summed: Floats) -> float:
        # summed: disagreement seen, pairs that agree, pairs, then labels of each kind.
        total = summed[3:].sum()
        expected = (total**2 - summed[3:] @ summed[3:]) / (total - 1)
        return 1 - summed[0] / expected if expected else math.nan

    n = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    rows = np.column_stack([(n * (n - 1) - agreeing) / (n - 1), agreeing, n * (n - 1), counts])
    return _found(rows, coefficient, labels, names, confidence, clusters, at=1)


def _counts(labels: Labels) -> tuple[Floats, list[str]]:
    """Labels of each kind of every item that has two raters, and these items."""
    names = [item for item, of in labels.items() if len(of) > 1]
    kinds = {label: i for i, label in enumerate(sorted({label for item in names for label in labels[item].values()}))}
    counts = np.zeros((len(names), len(kinds)))
    for row, item in zip(counts, names, strict=True):
        for label in labels[item].values():
            row[kinds[label]] += 1
    return counts, names


def _found(
    rows: Floats,
    coefficient: Callable[[Floats], float],
    labels: Labels,
    names: Sequence[str],
    confidence: float,
    clusters: Mapping[str, str] | None,
    at: int = 0,
) -> Agreement:
    """The coefficient of all items; `at` is the column of agreeing pairs, behind which all pairs stand."""
    number: dict[str, int] = {}
    of = [number.setdefault((clusters or {}).get(item, item), len(number)) for item in names]
    together = np.zeros((len(number), rows.shape[1]))
    np.add.at(together, of, rows)
    raters = {rater for item in names for rater in labels[item]}
    observed = float(rows[:, at].sum() / rows[:, at + 1].sum())
    return Agreement(*_jackknifed(together, coefficient, confidence), observed, len(names), len(raters))


def _beyond(seen: float, chance: float) -> float:
    return (seen - chance) / (1 - chance) if chance < 1 else math.nan


def _jackknifed(rows: Floats, of: Callable[[Floats], float], confidence: float) -> tuple[float, float, float]:
    """The coefficient of the sum of the rows, and its interval with each row left out in turn."""
    from scipy import special

    total, n = rows.sum(axis=0), len(rows)
    value = of(total)
    if n < 2 or math.isnan(value):
        return value, math.nan, math.nan
    left = np.array([of(total - row) for row in rows])
    left = left[~np.isnan(left)]
    error = math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum())) if len(left) > 1 else math.nan
    t = float(special.stdtrit(n - 1, (1 + confidence) / 2))
    return value, max(-1.0, value - t * error), min(1.0, value + t * error)
