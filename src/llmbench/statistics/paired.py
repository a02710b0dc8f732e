"""Intervals of each variant, paired differences of every two, and what so many questions can show.

All variants answer the same questions, so they are compared question by question: what makes a question hard falls out.
Questions of one cluster, such as a page, count together. Sources and measured coverage: docs/decisions/009-statistics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llmbench.statistics import intervals, power
from llmbench.statistics.clusters import Clusters, clusters
from llmbench.statistics.flips import flips
from llmbench.statistics.values import Difference, Estimate, Kind

__all__ = ["Groups", "Values", "difference", "differences", "estimate", "holm", "interaction", "quantile"]

Values = Mapping[str, float]
"""Question id -> value of one metric for one variant."""
Groups = Mapping[str, str] | None
"""Question id -> the page, or other cluster, that it shares with others."""


def estimate(values: Values, kind: Kind, *, confidence: float = 0.95, groups: Groups = None) -> Estimate | None:
    """The mean with its interval; None for too few values: a share or a score needs one, an amount two."""
    if not values or (kind == "amount" and len(values) < 2):
        return None
    x = np.fromiter(values.values(), dtype=np.float64)
    low, high, deff = intervals.mean(x, clusters(list(values), groups), kind, confidence)
    m = float(x.mean())
    return Estimate(m, min(low, m), max(high, m), len(x), deff)


def differences(
    metric: str,
    values: Mapping[str, Values],
    kind: Kind,
    *,
    confidence: float = 0.95,
    groups: Groups = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    tests: int = 1,
) -> list[Difference]:
    """Every pair of variants, the later one in the list minus the earlier one, with Holm's correction over all pairs.

    Args:
        metric: kept with each difference.
        values: variant -> question -> value.
        kind: what one question gives.
        confidence: 1 - alpha.
        groups: the clusters of the questions.
        pairs: (a, b) of the pairs that are wanted, each a minus b.
        tests: pairs to correct for where they are more than those wanted, as when these were chosen by looking at all.
    """
    wanted = [(a, b) for b, a in combinations(values, 2)] if pairs is None else pairs
    shared = [(a, b) for a, b in wanted if len(values[a].keys() & values[b].keys()) > 1]
    many = max(len(shared), tests)
    made = (
        difference(metric, a, b, values[a], values[b], kind, confidence=confidence, groups=groups, tests=many)
        for a, b in shared
    )
    found = [one for one in made if one is not None]
    p_values = [one.p for one in found]
    adjusted = holm(p_values) if many <= len(found) else [min(1.0, many * p) for p in p_values]
    return [_agreeing(replace(one, p_holm=p), 1 - confidence) for one, p in zip(found, adjusted, strict=True)]


def difference(
    metric: str,
    a: str,
    b: str,
    of_a: Values,
    of_b: Values,
    kind: Kind,
    *,
    confidence: float = 0.95,
    groups: Groups = None,
    tests: int = 1,
) -> Difference | None:
    """One pair; None when fewer than two questions have a value for both.

    A difference counts as shown where two tests say so: the sign-flip test over clusters, which is exact however few they are,
    and the one that the interval inverts. `p` is the former's, or the latter's where only that one is not below alpha. Where
    the interval excludes 0 but p is not below alpha, it is extended to 0. So the two always agree.

    Args:
        metric: kept with the difference.
        a: the variant that is counted positive.
        b: the other one.
        of_a: question -> value.
        of_b: question -> value.
        kind: what one question gives.
        confidence: 1 - alpha.
        groups: the clusters of the questions.
        tests: how many pairs are tested along with this one; `detectable` counts them in.
    """
    ids = sorted(of_a.keys() & of_b.keys())
    if len(ids) < 2:
        return None
    x, y = (np.array([of[id] for id in ids], dtype=np.float64) for of in (of_a, of_b))
    d, together = x - y, clusters(ids, groups)
    reach = float(max(np.abs(x).max(), np.abs(y).max())) if kind == "amount" else 1.0
    found = intervals.difference(d, together, kind, confidence, reach)
    p, m = _p(d, together, found, 1 - confidence), float(d.mean())
    level, known = (1 - confidence) / tests, replace(together, degrees=min(together.degrees, found.degrees))
    match kind:
        case "share":
            least = power.share(x, y, known, found.deff, level)
        case "score":
            least = power.score(found.error, found.effect, known, level)
        case "amount":
            least = power.amount(found.error, known, level)
    one = Difference(
        metric, a, b, m, min(found.low, m), max(found.high, m), len(d), int((d > 0).sum()), int((d < 0).sum()),
        p, p, least, found.deff,
    )  # fmt: skip
    return _agreeing(one, 1 - confidence)


def interaction(cells: Sequence[Values], kind: Kind, *, confidence: float = 0.95, groups: Groups = None) -> Estimate | None:
    """How much more b and a bring together than each alone: (both - a) - (b - none), for cells none, a, b, both.

    Paired over the questions that all four answered; None for fewer than two. As for differences, the interval includes 0
    wherever the sign-flip test does not reject that the two just add up.
    """
    none, a, b, both = cells
    ids = sorted(none.keys() & a.keys() & b.keys() & both.keys())
    if len(ids) < 2:
        return None
    d: NDArray[np.float64] = np.array([both[id] - a[id] - b[id] + none[id] for id in ids])
    together, m = clusters(ids, groups), float(d.mean())
    found = intervals.difference(d, together, kind, confidence, reach=2.0)
    low, high = min(found.low, m), max(found.high, m)
    if _p(d, together, found, 1 - confidence) >= 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(m, low, high, len(d), found.deff)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the chance of any false finding among these tests stays below alpha."""
    m, adjusted, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of the values does not exceed, interpolated; None without values."""
    return float(np.quantile(np.asarray(values), share)) if values else None


def _p(d: NDArray[np.float64], together: Clusters, found: intervals.Contrast, alpha: float) -> float:
    p = flips(together.sums(d))
    return found.p if p < alpha <= found.p else p


def _agreeing(one: Difference, alpha: float) -> Difference:
    """The difference with 0 in its interval wherever its corrected p does not exclude 0."""
    if one.p_holm < alpha:
        return one
    return replace(one, low=min(one.low, 0.0), high=max(one.high, 0.0))
