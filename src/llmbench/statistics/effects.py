"""What each factor of a grid of variants does, alone and together with another, and how much of all that is sampling.

The model is linear with an effect for each question, so that every effect is the mean of a contrast within questions: a sum
of one question's values over the variants, with weights. Its error is robust to any dependence inside clusters, as everywhere
here. With all cells of a grid there, the weights are plain averages; with a fraction they are those of least squares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics import intervals
from llmbench.statistics.clusters import clusters
from llmbench.statistics.flips import flips
from llmbench.statistics.paired import Groups, Values, holm
from llmbench.statistics.values import FactorEffect, Kind, Noise

__all__ = ["Contrasts", "contrasts", "effects", "noise"]

_CLOSE = 1e-9
Levels = Mapping[str, Mapping[str, str]]
"""Variant -> factor -> level."""
Key = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""An effect: its factors, their levels, and the levels that they are compared with."""


@dataclass(frozen=True)
class Contrasts:
    """The effects that a design can tell: (factors, levels, references) -> weight of each variant.

    `interactions` says whether effects of two factors are told apart from those of one; if not, they are taken to be none.
    """

    variants: tuple[str, ...]
    weights: Mapping[Key, NDArray[np.float64]]
    interactions: bool


def contrasts(levels: Levels) -> Contrasts:
    """The weights of all main effects, and of all interactions of two factors where the variants tell them apart.

    A factor's first level is what its others are compared with, on average over the levels of the other factors.
    """
    variants = tuple(levels)
    if not variants:
        return Contrasts((), {}, False)
    names = list(next(iter(levels.values()), {}))
    of = {factor: list(dict.fromkeys(levels[variant][factor] for variant in variants)) for factor in names}
    codes = {factor: _codes(len(of[factor])) for factor in names}
    pairs = list(combinations(names, 2))
    for two in ([*pairs], []):
        terms: list[tuple[str, ...]] = [*((factor,) for factor in names), *two]
        found = _weights(levels, variants, of, codes, terms)
        if found is not None:
            return Contrasts(variants, found, bool(two))
    return Contrasts(variants, {}, False)


def effects(
    metric: str, values: Mapping[str, Values], levels: Levels, kind: Kind, *, confidence: float = 0.95, groups: Groups = None
) -> list[FactorEffect]:
    """Each effect with its interval, over the questions that all variants answered; none for fewer than two of them.

    Args:
        metric: kept with each effect.
        values: variant -> question -> value.
        levels: variant -> factor -> level.
        kind: what one question gives.
        confidence: 1 - alpha. An interval excludes 0 exactly where `p` is below alpha; `p_holm` is corrected over all effects
            of the metric.
        groups: the clusters of the questions.
    """
    design = contrasts({variant: of for variant, of in levels.items() if values.get(variant)})
    if not design.weights:
        return []
    ids = sorted(set.intersection(*(set(values[variant]) for variant in design.variants)))
    if len(ids) < 2:
        return []
    table = np.array([[values[variant][id] for id in ids] for variant in design.variants], dtype=np.float64)
    together, found = clusters(ids, groups), []
    # A contrast of shares takes values between the whole ones, and is a score.
    of: Kind = "amount" if kind == "amount" else "score"
    for (factors, to, start), weights in design.weights.items():
        d, reach = weights @ table, float(weights[weights > 0].sum())
        one = intervals.difference(d, together, of, confidence, reach=reach)
        p, m = flips(together.sums(d)), float(d.mean())
        p = one.p if p < 1 - confidence <= one.p else p  # as for pairs: shown where both tests say so
        low, high = min(one.low, m), max(one.high, m)
        if p >= 1 - confidence:
            low, high = min(low, 0.0), max(high, 0.0)
        found.append(FactorEffect(metric, factors, to, start, m, low, high, len(ids), p, p, one.deff))
    return [replace(one, p_holm=p) for one, p in zip(found, holm([one.p for one in found]), strict=True)]


def noise(values: Mapping[str, Sequence[float]], *, confidence: float = 0.95) -> Noise | None:
    """How much of what one variant's values vary is the questions', and how much the drawing of answers.

    The components of a one-way analysis of variance with questions at random (Searle, Casella and McCulloch 1992, 3.6).

    Args:
        values: question -> its values, one a repeat.
        confidence: of `floor`, the difference that two such runs of one and the same variant stay within.

    Returns:
        None without two questions that have two values.
    """
    several = [np.asarray(x, dtype=np.float64) for x in values.values() if len(x) > 1]
    if len(several) < 2:
        return None
    n, total = len(several), sum(len(x) for x in several)
    sampling = sum(float(((x - x.mean()) ** 2).sum()) for x in several) / (total - n)
    means = np.array([x.mean() for x in several])
    rounds = n / sum(1 / len(x) for x in several)
    question = max(0.0, float(means.var(ddof=1)) - sampling / rounds)
    differ = [_disagree(x) for x in several]
    z = float(special.ndtri((1 + confidence) / 2))
    floor = z * math.sqrt(2 * sampling / rounds / n)
    whole = question + sampling / rounds
    return Noise(question, sampling, sampling / rounds / whole if whole else 0.0, floor, float(np.mean(differ)), n, rounds)


def _disagree(x: NDArray[np.float64]) -> float:
    """The part of the pairs of repeats that differ."""
    return float(np.mean([a != b for a, b in combinations(x.tolist(), 2)]))


def _codes(count: int) -> NDArray[np.float64]:
    """Sum-to-zero codes of a factor's levels, (levels, levels - 1)."""
    return np.vstack([np.eye(count - 1), -np.ones(count - 1)]) if count > 1 else np.zeros((1, 0))


def _weights(
    levels: Levels,
    variants: Sequence[str],
    of: Mapping[str, list[str]],
    codes: Mapping[str, NDArray[np.float64]],
    terms: Sequence[tuple[str, ...]],
) -> dict[Key, NDArray[np.float64]] | None:
    """Least squares: the weights of the variants in each effect; None where the variants do not tell the terms apart."""
    blocks = [np.ones((len(variants), 1))]
    for term in terms:
        rows = [_kron([codes[factor][of[factor].index(levels[variant][factor])] for factor in term]) for variant in variants]
        blocks.append(np.array(rows))
    x = np.hstack(blocks)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return None
    solved = np.linalg.pinv(x)  # (terms, variants)
    found: dict[Key, NDArray[np.float64]] = {}
    at = 1
    for term, block in zip(terms, blocks[1:], strict=True):
        part, at = solved[at : at + block.shape[1]], at + block.shape[1]
        for to in product(*(range(1, len(of[factor])) for factor in term)):
            away = _kron([codes[factor][i] - codes[factor][0] for factor, i in zip(term, to, strict=True)])
            weights = away @ part
            weights[np.abs(weights) < _CLOSE] = 0.0
            key = (term, tuple(of[f][i] for f, i in zip(term, to, strict=True)), tuple(of[f][0] for f in term))
            found[key] = np.asarray(np.round(weights, 12), dtype=np.float64)
    return found


def _kron(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    whole: NDArray[np.float64] = np.ones(1)
    for part in parts:
        whole = np.kron(whole, part).astype(np.float64)
    return whole
