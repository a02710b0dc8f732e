"""A judge beside people's labels: how far it agrees, and what both say together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from scipy import special

from llmbench.compare.judging.figures import Sure, kin
from llmbench.compare.judging.labels import Label, current
from llmbench.compare.judging.verdicts import Case, JudgedAnswers, Verdicts
from llmbench.compare.result import Comparison
from llmbench.compare.verdict import verdict
from llmbench.errors import DataError
from llmbench.shown import counted
from llmbench.statistics import Difference, Estimate, agreement, paired, ppi
from llmbench.statistics.paired import holm
from llmbench.statistics.ratings import Agreement

__all__ = ["WEAK", "calibrated"]

WEAK = 0.4
"""Cohen's kappa below which a judge adds next to nothing to labels (docs/benchmarks.md)."""
_POWER = 0.841621
"""The normal quantile of 80 %."""
_People = dict[Case, tuple[float, str]]


def calibrated(comparison: Comparison, judged: JudgedAnswers, labels: Sequence[Label], metric: str) -> Comparison:
    """The comparison with labels and judgements joined in place of the judge's opinion alone.

    Args:
        comparison: one with a judge.
        judged: what its judges said.
        labels: what people said.
        metric: what its tables call the judge's figures.

    Raises:
        DataError: too few labels of something that is compared.
    """
    assert comparison.judges is not None
    valid, gone = current(labels, comparison)
    people = _people(valid)
    groups = _groups(comparison)
    found = _cells(judged.together, people, comparison)
    told = _agreements(comparison, judged, people, valid, groups)
    estimates, differences, powered = _joined(found, comparison, metric, groups)
    told |= {"labels": len(valid), "raters": len({one.rater for one in valid}), "outdated": gone, "intervals": powered}
    told["notes"] = _notes(told, comparison)
    judges = comparison.judges | {"calibration": told}
    others = [one for one in comparison.differences if one.metric != metric]
    made = replace(
        comparison, judges=judges, estimates=comparison.estimates | {metric: estimates}, differences=(*others, *differences)
    )
    if comparison.headline != metric:
        return made
    sentence = verdict(comparison.measure(metric), estimates, differences, 1 - comparison.confidence)
    raters = f"{len(people):,} labels of people"
    if sentence.startswith("No difference"):
        sentence = sentence[0].lower() + sentence[1:]
    return replace(made, verdict=f"By {raters} and {comparison.judges['verdicts']:,} verdicts of the judge, {sentence}")


def _people(labels: Sequence[Label]) -> _People:
    """Case -> the mean of all raters, and the label that most of them gave; where several are as frequent, of pairs a tie."""
    found: dict[Case, list[Label]] = defaultdict(list)
    for one in labels:
        found[one.case].append(one)
    made = {}
    for case, given in found.items():
        counts = Counter(one.label for one in given).most_common()
        split = len(counts) > 1 and counts[0][1] == counts[1][1]
        made[case] = fmean(one.value for one in given), "tie" if split and len(case[1]) == 2 else counts[0][0]
    return made


def _groups(comparison: Comparison) -> dict[str, str]:
    assert comparison.judges is not None
    if comparison.judges["cluster"] == "none":
        return {}
    asked = comparison.questions
    return {question.id: shared for question in asked if (shared := question.group or "\n".join(sorted(question.sources)))}


def _cells(verdicts: Verdicts, people: _People, comparison: Comparison) -> dict[tuple[str, ...], ppi.Corrected]:
    """Each pair's, or each variant's, mean by labels and judgements together."""
    judged: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (id, variants, _), value in verdicts.values.items():
        judged[variants][id].append(value)
    said: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for (id, variants, _), (value, _) in people.items():
        said[variants][id] = value
    made = {}
    for variants, of in sorted(judged.items()):
        means = {id: fmean(values) for id, values in of.items()}
        count = sum(id in means for id in said[variants])
        if count < ppi.FEWEST:
            raise DataError(
                f"{comparison.name}: {counted(count, 'label')} of {' against '.join(variants)} {'is' if count == 1 else 'are'} "
                f"of answers that were judged; it takes at least {ppi.FEWEST}. Label more, of questions drawn at random."
            )
        made[variants] = ppi.correct(means, said[variants])
    return made


def _joined(
    cells: Mapping[tuple[str, ...], ppi.Corrected], comparison: Comparison, metric: str, groups: Mapping[str, str]
) -> tuple[dict[str, Estimate], list[Difference], dict[str, Any]]:
    parts: dict[str, list[tuple[float, ppi.Corrected]]] = defaultdict(list)
    constant: dict[str, float] = defaultdict(float)
    others = Counter(variant for variants in cells for variant in variants)
    for variants, cell in cells.items():
        share = 1 / others[variants[0]]
        parts[variants[0]].append((share, cell))
        if len(variants) == 2:  # Of the other one, 1 less the share that the first one wins.
            share = 1 / others[variants[1]]
            parts[variants[1]].append((-share, cell))
            constant[variants[1]] += share
    level = comparison.confidence
    estimates, powered = {}, {}
    for variant in comparison.variants:
        if variant in parts:
            one = ppi.combined(parts[variant], constant=constant[variant], confidence=level, groups=groups)
            estimates[variant] = Estimate(one.value, one.low, one.high, one.n + one.judged)
            powered[variant] = asdict(one)
    made = []
    for b, a in combinations(estimates, 2):
        both = [*parts[a], *((-factor, part) for factor, part in parts[b])]
        apart = constant[a] - constant[b]
        one = ppi.combined(both, constant=apart, bounds=(-1.0, 1.0), confidence=level, groups=groups)
        powered[f"{a} - {b}"] = asdict(one)
        made.append((a, b, one))
    adjusted = holm([one.p for _, _, one in made])
    counts = {(one.a, one.b): one for one in comparison.differences if one.metric == metric}
    return estimates, [
        _difference(metric, a, b, one, p, len(made), counts, level)
        for (a, b, one), p in zip(made, adjusted, strict=True)
    ], powered  # fmt: skip


def _difference(
    metric: str,
    a: str,
    b: str,
    one: ppi.Powered,
    p_holm: float,
    tests: int,
    counts: Mapping[tuple[str, str], Difference],
    level: float,
) -> Difference:
    low, high = one.low, one.high
    if p_holm >= 1 - level:  # As everywhere: the interval excludes 0 only where p is below alpha.
        low, high = min(low, 0.0), max(high, 0.0)
    t = float(special.stdtrit(one.degrees, 1 - (1 - level) / tests / 2))
    before = counts.get((a, b))
    return Difference(
        metric, a, b, one.value, low, high, one.n + one.judged, before.a_only if before else 0, before.b_only if before else 0,
        one.p, p_holm, (t + _POWER) * one.error,
    )  # fmt: skip


def _agreements(
    comparison: Comparison, judged: JudgedAnswers, people: _People, labels: Sequence[Label], groups: Mapping[str, str]
) -> dict[str, Any]:
    level = comparison.confidence
    named = {"all judges": judged.together, **judged.of} if len(judged.of) > 1 else judged.of
    lengths = {(r.answer.id, r.answer.variant): len(r.answer.text) for r in comparison.rows if not r.answer.repeat}
    of = {name: _agreement(verdicts, people, lengths, groups, level) for name, verdicts in named.items()}
    every: dict[str, dict[str, str]] = defaultdict(dict)
    for one in labels:
        every[repr(one.case)][one.rater] = one.label
    clusters = {repr(one.case): groups.get(one.id, one.id) for one in labels}
    among = agreement.alpha(every, confidence=level, clusters=clusters)
    whose = (comparison.judges or {}).get("own", {})
    said = Verdicts({case: value for case, (value, _) in people.items()}, {})
    sure = Sure(level, groups)
    beside = [
        one
        for name, variants in whose.items()
        if name in judged.of
        for one in kin({name: judged.of[name], "people": said}, {name: variants}, sure)
        if one["more"] is not None
    ]
    return {"of": of, "people": _plain(among), "kin": beside}


def _agreement(
    verdicts: Verdicts, people: _People, lengths: Mapping[tuple[str, str], int], groups: Mapping[str, str], level: float
) -> dict[str, Any]:
    """Kappa, alpha, accuracy in each class, and how it stands beside choosing the longer answer."""
    both = {case: (verdicts.labels[case], said) for case, (_, said) in people.items() if case in verdicts.labels}
    if not both:
        return {"n": 0}
    table = {repr(case): {"judge": mine, "people": theirs} for case, (mine, theirs) in both.items()}
    clusters = {repr(case): groups.get(case[0], case[0]) for case in both}
    classes = {}
    for kind in sorted({theirs for _, theirs in both.values()}):
        right = {repr(case): float(mine == kind) for case, (mine, theirs) in both.items() if theirs == kind}
        found = paired.estimate(right, "share", confidence=level, groups=clusters)
        classes[kind] = asdict(found) if found else None
    decided = {case: two for case, two in both.items() if len(case[1]) == 2 and two[1] != "tie"}
    return {
        "n": len(both),
        "kappa": _plain(agreement.cohen(table, "judge", "people", confidence=level)),
        "alpha": _plain(agreement.alpha(table, confidence=level, clusters=clusters)),
        "classes": classes,
        "longest": _beside_longest(decided, lengths, clusters, level),
    }


def _beside_longest(
    decided: Mapping[Case, tuple[str, str]], lengths: Mapping[tuple[str, str], int], clusters: Mapping[str, str], level: float
) -> dict[str, Any] | None:
    """On pairs that people decided: how often the judge and the longer answer agree with them (a tie counts half)."""
    judge, longest = {}, {}
    for case, (mine, theirs) in decided.items():
        a, b = (lengths.get((case[0], variant), 0) for variant in case[1])
        judge[repr(case)] = 0.5 if mine == "tie" else float(mine == theirs)
        longest[repr(case)] = 0.5 if a == b else float(("first" if a > b else "second") == theirs)
    one = paired.difference("judge", "judge", "longest", judge, longest, "score", confidence=level, groups=clusters)
    if one is None:
        return None
    of = {
        name: paired.estimate(x, "score", confidence=level, groups=clusters)
        for name, x in (("judge", judge), ("longest", longest))
    }
    return {name: asdict(found) for name, found in of.items() if found} | {"difference": asdict(one), "beats": one.low > 0}


def _plain(found: Agreement | None) -> dict[str, Any] | None:
    """For JSON: what has no interval has null ends."""
    if found is None:
        return None
    return {name: None if isinstance(x, float) and math.isnan(x) else x for name, x in asdict(found).items()}


def _notes(told: Mapping[str, Any], comparison: Comparison) -> list[str]:
    said = []
    for name, of in told["of"].items():
        if not of["n"]:
            continue
        kappa = of["kappa"]
        said.append(f"{name} and people: Cohen's kappa {_interval(kappa)} over {of['n']:,} labels.")
        if kappa["value"] is None or kappa["value"] < WEAK:
            said.append(
                f"{name}'s kappa is below {WEAK}: it adds next to nothing to labels, and without them it is not to be trusted."
            )
        longest = of["longest"]
        if longest is not None:
            a, b = (100 * longest[x]["mean"] for x in ("judge", "longest"))
            beats = "more than" if longest["beats"] else "not shown to be more than"
            said.append(f"Where people decided, {name} agrees in {a:.0f}%: {beats} choosing the longer answer does, {b:.0f}%.")
    if told["people"] is not None:
        said.append(f"People among themselves: Krippendorff's alpha {_interval(told['people'])}.")
    if told["outdated"]:
        said.append(f"{told['outdated']:,} labels are of answers that have changed since, and are left out.")
    for one in told["kin"]:
        more = one["more"]
        said.append(
            f"{one['judge']} lets its own model ({', '.join(one['variants'])}) win {100 * more['mean']:+.1f} points "
            f"[{100 * more['low']:+.1f}, {100 * more['high']:+.1f}] against people, on what they labelled."
        )
    worth = [one["worth"] for name, one in told["intervals"].items()]
    if worth:
        said.append(
            f"With the judge, labels are worth {min(worth):.2f} to {max(worth):.2f} times as many alone (PPI++). The intervals "
            "hold however good the judge is, if the labelled questions were drawn at random."
        )
    return said


def _interval(of: Mapping[str, Any]) -> str:
    if of["value"] is None:
        return "not defined, as every label is the same"
    if of["low"] is None:
        return f"{of['value']:.2f}"
    return f"{of['value']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
