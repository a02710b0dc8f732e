"""How judges judge, measured on this data: whether both orders agree, and what side, length and kinship do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from scipy import special

from llmbench.compare.judging.judgements import Ruling
from llmbench.compare.judging.verdicts import Case, Verdicts
from llmbench.statistics import Estimate, paired
from llmbench.statistics.clusters import clusters
from llmbench.statistics.logit import logit

__all__ = ["Lengths", "Sure", "controlled", "habits", "kin", "own"]

Lengths = Mapping[tuple[str, str, int], int]
"""A question's id, a variant and a repeat -> characters of the answer."""


@dataclass(frozen=True)
class Sure:
    """How sure figures are said to be: their confidence, and question -> the cluster that it shares with others."""

    confidence: float
    groups: Mapping[str, str]


def habits(judgements: Iterable[Ruling], verdicts: Verdicts, lengths: Lengths, sure: Sure) -> dict[str, Any]:
    """What one judge does. Every figure is a share with its interval, over questions, or None where there is nothing to tell.

    `orders`: pairs of which both orders name the same. `first`: of single judgements that name one, those that name the answer
    shown first (half without a side). `longer`: of decided pairs, those that the longer answer won. `ties`: of pairs.
    `unreadable`: of replies. `in_form`: of judgements by probabilities, what all letters have together.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    said: dict[tuple[str, frozenset[str], int], list[tuple[str, str]]] = defaultdict(list)
    for one in judgements:
        found["unreadable"][one.id].append(float(one.value is None))
        if one.probabilities:
            found["in_form"][one.id].append(min(1.0, sum(one.probabilities.values())))
        if one.value is None or len(one.shown) < 2:
            continue
        named = {"first": one.shown[0], "second": one.shown[1]}.get(one.label, "")
        said[one.id, frozenset(one.shown), one.repeat].append((one.label, named))
        if named:
            found["first"][one.id].append(float(one.label == "first"))
    for (id, _, _), two in said.items():
        if len(two) == 2:
            found["orders"][id].append(float(two[0][1] == two[1][1]))
    for (id, variants, repeat), label in verdicts.labels.items():
        if len(variants) < 2:
            continue
        found["ties"][id].append(float(label == "tie"))
        a, b = (lengths.get((id, variant, repeat), 0) for variant in variants)
        if label != "tie" and a != b:
            found["longer"][id].append(float((a > b) == (label == "first")))
    names = ("orders", "first", "longer", "ties", "unreadable", "in_form")
    return {name: _share(found[name], sure) for name in names if name in ("unreadable", "in_form") or said}


def controlled(verdicts: Verdicts, lengths: Lengths, variants: Sequence[str], sure: Sure) -> list[dict[str, Any]]:
    """How often each variant wins against each other one, ties half; and how often it would if answers were of one length.

    The latter is the intercept of a logistic function with tanh of the length difference in standard deviations as the other
    term (Dubois et al. 2024, "Length-Controlled AlpacaEval", without their term for the difficulty of an instruction). It is
    None where lengths do not differ, or where one side wins so that no finite value fits.
    """
    made = []
    for a, b in combinations(variants, 2):
        cases = [case for case in verdicts.values if case[1] == (a, b)]
        if not cases:
            continue
        by_question: dict[str, list[float]] = defaultdict(list)
        for case in cases:
            by_question[case[0]].append(verdicts.values[case])
        made.append({"a": a, "b": b, "wins": _share(by_question, sure), "controlled": _level(verdicts, cases, lengths, sure)})
    return made


def own(entries: Mapping[str, Mapping[str, Any]], listing: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The variants that each judge's own model answers: the same base and the same adapter, whatever it retrieves."""
    found = {}
    for judge, entry in entries.items():
        mine = _identity(entry)
        if kinship := [variant for variant, other in listing.items() if mine == _identity(other)]:
            found[judge] = kinship
    return found


def kin(of: Mapping[str, Verdicts], whose: Mapping[str, Sequence[str]], sure: Sure) -> list[dict[str, Any]]:
    """How often answers of a judge's own model win by its verdict, and by how much more than by the other judges'.

    `wins` alone cannot tell self-preference from being better; `more` is against judges of other models, and None without such.
    """
    made = []
    for judge, variants in whose.items():
        if judge not in of:
            continue
        mine = _wins(of[judge], variants)
        others = [_wins(verdicts, variants) for name, verdicts in of.items() if name != judge and variants != whose.get(name)]
        theirs: dict[str, list[float]] = defaultdict(list)
        for found in others:
            for id, values in found.items():
                theirs[id] += values
        more = paired.difference(
            "judge", "own", "others", {id: fmean(x) for id, x in mine.items()}, {id: fmean(x) for id, x in theirs.items()},
            "score", confidence=sure.confidence, groups=sure.groups,
        ) if theirs else None  # fmt: skip
        made.append(
            {"judge": judge, "variants": list(variants), "wins": _share(mine, sure), "more": asdict(more) if more else None}
        )
    return made


def _wins(verdicts: Verdicts, variants: Sequence[str]) -> dict[str, list[float]]:
    """Question -> what variants of a set win against others outside it."""
    found: dict[str, list[float]] = defaultdict(list)
    for (id, pair, _), value in verdicts.values.items():
        if len(pair) == 2 and (pair[0] in variants) != (pair[1] in variants):
            found[id].append(value if pair[0] in variants else 1 - value)
    return dict(found)


def _identity(entry: Mapping[str, Any]) -> str:
    adapter = entry.get("adapter")
    known = (adapter.get("id") or adapter.get("name")) if isinstance(adapter, Mapping) else adapter
    return repr((entry.get("root") or entry.get("base") or entry.get("id"), known))


def _share(of: Mapping[str, Sequence[float]], sure: Sure) -> dict[str, Any] | None:
    values = {id: fmean(x) for id, x in of.items()}
    found = paired.estimate(values, "score", confidence=sure.confidence, groups=sure.groups) if values else None
    return asdict(found) if found else None


def _level(verdicts: Verdicts, cases: Sequence[Case], lengths: Lengths, sure: Sure) -> dict[str, Any] | None:
    away = np.array([lengths[id, pair[0], repeat] - lengths[id, pair[1], repeat] for id, pair, repeat in cases], dtype=float)
    spread = float(away.std())
    if len(cases) < 10 or not spread:
        return None
    x = np.column_stack([np.ones(len(cases)), np.tanh(away / spread)])
    # Several cases of one question are alike, whatever else it shares.
    together = clusters([case[0] for case in cases], {id: sure.groups.get(id, id) for id, _, _ in cases})
    fit = logit(np.array([verdicts.values[case] for case in cases]), x, together)
    if not fit.arrived:
        return None
    free = together.degrees if math.isfinite(together.degrees) else len(cases) - 2
    reach = float(special.stdtrit(free, (1 + sure.confidence) / 2)) * math.sqrt(fit.covariance[0, 0])
    value = fit.value[0]
    low, mean, high = (float(special.expit(x)) for x in (value - reach, value, value + reach))
    return asdict(Estimate(mean, low, high, len(cases)))
