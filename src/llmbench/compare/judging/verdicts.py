"""What judgements come to: one value for each pair of answers, or each answer, and for each answer in the table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from llmbench.compare.answers import Answer, Place
from llmbench.compare.judging.judgements import Ruling

if TYPE_CHECKING:
    from llmbench.statistics.dawid_skene import Joined

__all__ = ["KINDS", "Case", "JudgedAnswers", "Verdicts", "joined", "per_judge", "places", "same_answers"]

Case = tuple[str, tuple[str, ...], int]
"""A question's id, one variant or two in the order of the recipe, and the number of the repeat."""
KINDS = ("first", "tie", "second")
_VALUES = {"first": 1.0, "tie": 0.5, "second": 0.0}
_TURNED = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(frozen=True)
class Verdicts:
    """`values` is case -> 0 to 1, of a pair how far the first variant is the better one; `labels` in one word. `alike` are
    pairs whose answers are word for word the same, which are ties without being judged. `weighed` is what Dawid and Skene's
    model found."""

    values: Mapping[Case, float]
    labels: Mapping[Case, str]
    alike: frozenset[Case] = field(default_factory=frozenset)
    weighed: Joined | None = None


@dataclass(frozen=True)
class JudgedAnswers:
    """What judges made of a comparison's answers: all that they said and counts, each judge's verdicts, and those of all
    together; `entries` is what is listed about each judge."""

    judgements: tuple[Ruling, ...]
    of: Mapping[str, Verdicts]
    together: Verdicts
    entries: Mapping[str, Mapping[str, Any]]

    @property
    def places(self) -> dict[Place, float]:
        """Each answer's value, 0 to 1."""
        return places(self.together)


def per_judge(judgements: Iterable[Ruling], variants: Sequence[str]) -> dict[str, Verdicts]:
    """What each judge says, both orders of a pair joined: where they disagree it is a tie.

    Where probabilities are known and both orders agree, the value is the mean of both. A pair of which an order is missing, or
    was not readable, has no verdict.
    """
    rank = {variant: i for i, variant in enumerate(variants)}
    found: dict[str, dict[Case, list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
    for one in judgements:
        if one.value is None or any(variant not in rank for variant in one.shown):
            continue
        turned = len(one.shown) == 2 and rank[one.shown[0]] > rank[one.shown[1]]
        shown = one.shown[::-1] if turned else one.shown
        value, label = (1 - one.value, _TURNED[one.label]) if turned else (one.value, one.label)
        found[one.judge][one.id, shown, one.repeat].append((value, label))
    made = {}
    for judge, of in found.items():
        values, labels = {}, {}
        for case, said in of.items():
            if len(said) < len(case[1]):
                continue
            agree = len({label for _, label in said}) == 1
            labels[case] = said[0][1] if agree else "tie"
            values[case] = fmean(value for value, _ in said) if agree else 0.5
        made[judge] = Verdicts(values, labels)
    return made


def joined(of: Mapping[str, Verdicts], pairs: bool, combine: str, alike: Iterable[Case]) -> Verdicts:
    """The judges as one.

    Args:
        of: what each says.
        pairs: whether they judged pairs.
        combine: `majority` (of pairs the most frequent verdict, where two are as frequent a tie; else the mean), or
            `dawid-skene`.
        alike: pairs of the same answer.
    """
    same = frozenset(alike)
    cases = sorted({case for verdicts in of.values() for case in verdicts.values})
    values = dict.fromkeys(same, 0.5)
    labels = dict.fromkeys(same, "tie")
    weighed = None
    if len(of) == 1:
        only = next(iter(of.values()))
        return Verdicts({**values, **only.values}, {**labels, **only.labels}, same)
    if combine == "dawid-skene" and cases:
        from llmbench.statistics.dawid_skene import dawid_skene

        said = {str(i): {judge: v.labels[case] for judge, v in of.items() if case in v.labels} for i, case in enumerate(cases)}
        weighed = dawid_skene(said, KINDS)
    for i, case in enumerate(cases):
        given = [verdicts.values[case] for verdicts in of.values() if case in verdicts.values]
        if weighed is not None:
            chances = weighed.chances[str(i)]
            labels[case] = max(KINDS, key=lambda kind: chances[kind])
            values[case] = sum(_VALUES[kind] * chance for kind, chance in chances.items())
        elif pairs:
            counts = Counter(verdicts.labels[case] for verdicts in of.values() if case in verdicts.labels).most_common()
            labels[case] = "tie" if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]
            values[case] = _VALUES[labels[case]]
        else:
            values[case], labels[case] = fmean(given), f"{fmean(given):.2f}"
    return Verdicts(values, labels, same, weighed)


def places(verdicts: Verdicts) -> dict[Place, float]:
    """Each answer's value in the table: of pairs the mean over all others that it was compared with."""
    found: dict[Place, list[float]] = defaultdict(list)
    for (id, variants, repeat), value in verdicts.values.items():
        found[id, variants[0], repeat].append(value)
        if len(variants) == 2:
            found[id, variants[1], repeat].append(1 - value)
    return {place: fmean(values) for place, values in found.items()}


def same_answers(answers: Iterable[Answer], variants: Sequence[str]) -> list[Case]:
    """The pairs of answers that are word for word the same."""
    of: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for answer in answers:
        if answer.error is None:
            of[answer.id, answer.repeat][answer.variant] = "\n".join(answer.turns or (answer.text,)).strip()
    return [
        (id, (a, b), repeat)
        for (id, repeat), texts in of.items()
        for a, b in combinations([variant for variant in variants if variant in texts], 2)
        if texts[a] == texts[b]
    ]
