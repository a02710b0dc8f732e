"""The measures written out, to hold the package's against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

Values = dict[str, float]


def by_hand(run: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, Values]:
    """nDCG@10, R@10, R@100, RR, AP and P@5 of each judged query that has a relevant document."""
    found: dict[str, Values] = {name: {} for name in ("nDCG@10", "R@10", "R@100", "RR", "AP", "P@5")}
    for query, judged in qrels.items():
        grades = sorted((grade for grade in judged.values() if grade > 0), reverse=True)
        if not grades:
            continue
        got = [max(judged.get(one, 0), 0) for one in dict.fromkeys(run.get(query, ()))]
        hits = [rank for rank, grade in enumerate(got, 1) if grade > 0]
        found["nDCG@10"][query] = _dcg(got[:10]) / _dcg(grades[:10])
        found["R@10"][query] = sum(rank <= 10 for rank in hits) / len(grades)
        found["R@100"][query] = sum(rank <= 100 for rank in hits) / len(grades)
        found["RR"][query] = 1 / hits[0] if hits else 0.0
        found["AP"][query] = sum(number / rank for number, rank in enumerate(hits, 1)) / len(grades)
        found["P@5"][query] = sum(rank <= 5 for rank in hits) / 5
    return found


def _dcg(grades: Sequence[int]) -> float:
    return sum(grade / log2(rank + 1) for rank, grade in enumerate(grades, 1))
