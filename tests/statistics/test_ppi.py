"""A judge corrected by labels: the formula, its coverage by simulation, clusters; Dawid and Skene's model; the logit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from llmbench.statistics import paired, ppi
from llmbench.statistics.clusters import clusters
from llmbench.statistics.dawid_skene import dawid_skene
from llmbench.statistics.logit import logit


def drawn(rng: np.random.Generator, n: int, total: int, right: float, truth: float = 0.6) -> tuple[dict[str, float], ...]:
    """A judge that calls a loss a win too often, and labels of n questions drawn at random."""
    people = rng.random(total) < truth
    said = np.where(rng.random(total) < np.where(people, 1 - (1 - right) / 3, right), people, ~people)
    judged = {f"q{i}": float(x) for i, x in enumerate(said)}
    return judged, {f"q{i}": float(people[i]) for i in rng.choice(total, n, replace=False)}


def test_the_mean_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(1)
    judged, labels = drawn(rng, 80, 500, 0.8)
    y, f = np.array(list(labels.values())), np.array([judged[id] for id in labels])
    rest = np.array([x for id, x in judged.items() if id not in labels])
    weight = np.cov(y, f)[0, 1] / ((1 + len(f) / len(rest)) * np.concatenate([f, rest]).var(ddof=1))
    found = ppi.mean(judged, labels)
    assert found.weight == pytest.approx(weight)
    assert found.value == pytest.approx(weight * rest.mean() + (y - weight * f).mean())
    assert (found.n, found.judged) == (80, 420)
    assert found.people == pytest.approx(y.mean())
    assert found.low < found.value < found.high
    assert found.high - found.low < found.people_high - found.people_low


def test_labels_of_everything_are_labels_alone() -> None:
    judged, labels = drawn(np.random.default_rng(2), 60, 60, 0.8)
    found = ppi.mean(judged, labels)
    assert found.weight == 0
    assert found.value == pytest.approx(np.mean(list(labels.values())))


def test_a_judge_that_says_the_contrary_has_no_weight() -> None:
    judged, labels = drawn(np.random.default_rng(3), 60, 400, 0.1)
    assert ppi.mean({id: 1 - x for id, x in judged.items()}, labels).weight > 0.1
    assert ppi.mean(judged, labels).weight == 0
    constant = ppi.mean(dict.fromkeys(judged, 1.0), labels)
    assert constant.weight == 0
    assert constant.value == pytest.approx(np.mean(list(labels.values())))


def test_the_interval_covers_where_the_judge_alone_does_not_and_is_narrower_than_labels() -> None:
    rng, runs = np.random.default_rng(4), 400
    held, alone, narrower = 0, 0, 0.0
    for _ in range(runs):
        judged, labels = drawn(rng, 60, 600, 0.85)
        found, judge = ppi.mean(judged, labels), paired.estimate(judged, "share")
        assert judge is not None
        held += found.low <= 0.6 <= found.high
        alone += judge.low <= 0.6 <= judge.high
        narrower += (found.high - found.low) / (found.people_high - found.people_low) / runs
    assert 0.92 <= held / runs <= 0.985  # 95 % with three standard errors
    assert alone / runs < 0.9
    assert narrower < 0.9


def test_p_is_the_level_at_which_the_interval_of_a_difference_touches_0() -> None:
    rng = np.random.default_rng(5)
    judged_a, labels_a = drawn(rng, 80, 400, 0.8, 0.65)
    judged_b, labels_b = drawn(rng, 80, 400, 0.8, 0.5)
    labels_b = {id: float(rng.random() < 0.5) for id in labels_a}
    one = ppi.difference(judged_a, judged_b, labels_a, labels_b)
    at = ppi.difference(judged_a, judged_b, labels_a, labels_b, confidence=1 - one.p)
    assert min(abs(at.low), abs(at.high)) == pytest.approx(0, abs=1e-6)


def test_labels_that_all_agree_with_the_judge_are_not_certain() -> None:
    judged = {f"q{i}": float(i % 2) for i in range(400)}
    found = ppi.mean(judged, {id: judged[id] for id in list(judged)[:20]})
    assert found.high - found.low > 0.1


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    pages = rng.random(100) < 0.6
    people = np.repeat(pages, 5).astype(float)
    said = np.where(rng.random(500) < 0.8, people, 1 - people)
    judged = {f"q{i}": float(x) for i, x in enumerate(said)}
    labels = {f"q{i}": float(people[i]) for i in range(100)}
    groups = {f"q{i}": f"p{i // 5}" for i in range(500)}
    wide, narrow = ppi.mean(judged, labels, groups=groups), ppi.mean(judged, labels)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.degrees == pytest.approx(18)


def test_dawid_and_skene_find_who_errs_and_what_is_right() -> None:
    rng = np.random.default_rng(7)
    kinds = ("first", "tie", "second")
    truth = rng.choice(3, 600, p=[0.5, 0.2, 0.3])
    rates = {"good": 0.92, "fair": 0.75, "fair too": 0.75, "wild": 0.34}
    labels: dict[str, dict[str, str]] = {}
    for i, of in enumerate(truth):
        said = {name: of if rng.random() < rate else (of + rng.integers(1, 3)) % 3 for name, rate in rates.items()}
        labels[str(i)] = {name: kinds[x] for name, x in said.items()}
    found = dawid_skene(labels, kinds)
    assert found.arrived
    for name, rate in rates.items():
        right = sum(found.prevalence[kind] * found.tables[name][kind][kind] for kind in kinds)
        assert right == pytest.approx(rate, abs=0.07)
    each = [dict(found.chances[str(i)]) for i in range(len(truth))]
    best = [max(of, key=lambda kind: of[kind]) == kinds[right] for of, right in zip(each, truth, strict=True)]
    votes = [stats.mode([kinds.index(x) for x in labels[str(i)].values()]).mode == of for i, of in enumerate(truth)]
    assert np.mean(best) > np.mean(votes) + 0.01
    assert found.faults == ("wild is right no more often than one who always gives the most frequent verdict.",)
    assert any("needs three" in fault for fault in dawid_skene({"a": {"x": "tie", "y": "tie"}}, kinds).faults)


def test_the_logit_is_the_maximum_and_its_errors_are_those_of_clusters() -> None:
    rng = np.random.default_rng(8)
    x = np.column_stack([np.ones(200), rng.normal(size=200)])
    shared = np.repeat(rng.normal(size=50), 4)
    y = np.round(2 / (1 + np.exp(-x @ [0.3, 0.8] - shared))) / 2
    found = logit(y, x, clusters([f"q{i}" for i in range(200)], {f"q{i}": f"p{i // 4}" for i in range(200)}))

    def loss(b: np.ndarray) -> float:
        eta = x @ b
        return float((np.logaddexp(0, eta) - y * eta).sum())

    told = optimize.minimize(loss, np.zeros(2), tol=1e-12)
    assert found.value == pytest.approx(told.x, abs=1e-5)
    # Each page left out in turn tells the same spread.
    left = []
    for page in range(50):
        kept = np.arange(200) // 4 != page
        some = clusters([f"q{i}" for i in range(196)], None)
        left.append(logit(y[kept], x[kept], some).value)
    spread = np.sqrt(49 / 50 * ((np.array(left) - np.mean(left, axis=0)) ** 2).sum(axis=0))
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(spread, rel=0.08)
    apart = logit(np.array([0.0, 0.0, 1.0, 1.0]), np.array([[1.0, -2], [1, -1], [1, 1], [1, 2]]), clusters(list("abcd"), None))
    assert not apart.arrived
    assert all(math.isnan(x) for x in np.diag(apart.covariance))
