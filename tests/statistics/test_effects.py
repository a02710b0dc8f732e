"""Effects of factors against least squares over all questions, written out; and the components of variance of repeats."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.statistics import effects, intervals, paired
from llmbench.statistics.clusters import clusters

LEVELS = {"a": ("none", "lora", "full"), "b": ("plain", "brief"), "c": ("off", "on")}
GRID = {
    "+".join(cell): dict(zip(LEVELS, cell, strict=True)) for cell in product(*LEVELS.values())
}  # fmt: skip
IDS = [f"q{i}" for i in range(60)]
GROUPS = {id: f"page {i // 3}" for i, id in enumerate(IDS)}


def drawn(levels: dict[str, dict[str, str]], *, seed: int = 0, shares: bool = False) -> dict[str, dict[str, float]]:
    """Values with an effect of a, of b, of both together, of each question and of each page."""
    rng = np.random.default_rng(seed)
    page, own = rng.normal(0, 0.1, 20), rng.normal(0, 0.1, len(IDS))
    found = {}
    for name, of in levels.items():
        m = 0.5 + 0.1 * (of.get("a") == "lora") - 0.1 * (of.get("b") == "brief")
        m += 0.2 * (of.get("a") == "full" and of.get("b") == "brief")
        x = m + page[np.arange(len(IDS)) // 3] + own + rng.normal(0, 0.2, len(IDS))
        found[name] = dict(zip(IDS, ((x > 0.5) if shares else np.clip(x, 0, 1)).astype(float).tolist(), strict=True))
    return found


def by_least_squares(
    values: dict[str, dict[str, float]], levels: dict[str, dict[str, str]], terms: list[tuple[str, ...]]
) -> tuple[dict[tuple[tuple[str, ...], tuple[str, ...]], float], dict[tuple[tuple[str, ...], tuple[str, ...]], float]]:
    """Every value of every question in one regression, a dummy for each question: effects and clustered errors.

    Liang and Zeger's sandwich with the factor C / (C - 1). Codes sum to zero; an effect is a level's code minus the first's.
    """
    of = {factor: list(dict.fromkeys(one[factor] for one in levels.values())) for factor in next(iter(levels.values()))}

    def code(factor: str, level: str) -> NDArray[np.float64]:
        k, at = len(of[factor]), of[factor].index(level)
        return -np.ones(k - 1) if at == k - 1 else np.eye(k - 1)[at]

    def row(cell: dict[str, str], term: tuple[str, ...]) -> NDArray[np.float64]:
        whole: NDArray[np.float64] = np.ones(1)
        for factor in term:
            whole = np.asarray(np.kron(whole, code(factor, cell[factor])), dtype=np.float64)
        return whole

    rows, y, page = [], [], []
    for i, id in enumerate(IDS):
        for name, cell in levels.items():
            rows.append(np.concatenate([np.eye(len(IDS))[i], *(row(cell, term) for term in terms)]))
            y.append(values[name][id])
            page.append(GROUPS[id])
    x, at = np.array(rows), np.array(y)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ at
    residual, named, meat = at - x @ beta, np.array(page), np.zeros((x.shape[1], x.shape[1]))
    for one in set(page):
        score = x[named == one].T @ residual[named == one]
        meat += np.outer(score, score)
    count = len(set(page))
    covariance = bread @ meat @ bread * count / (count - 1)
    means, errors, start = {}, {}, len(IDS)
    for term in terms:
        size = len(row(next(iter(levels.values())), term))
        for to in product(*(of[factor][1:] for factor in term)):
            away: NDArray[np.float64] = np.ones(1)
            for factor, level in zip(term, to, strict=True):
                away = np.asarray(np.kron(away, code(factor, level) - code(factor, of[factor][0])), dtype=np.float64)
            weights = np.zeros(x.shape[1])
            weights[start : start + size] = away
            means[term, to] = float(weights @ beta)
            errors[term, to] = float(np.sqrt(weights @ covariance @ weights))
        start += size
    return means, errors


MAIN: list[tuple[str, ...]] = [("a",), ("b",), ("c",)]
PAIRS: list[tuple[str, ...]] = [("a", "b"), ("a", "c"), ("b", "c")]
FRACTION = {name: of for name, of in GRID.items() if name not in ("full+brief+on", "none+plain+off")}


@pytest.mark.parametrize("levels", [GRID, FRACTION], ids=["grid", "fraction"])
def test_effects_and_errors_are_those_of_the_regression_over_all_answers(levels: dict[str, dict[str, str]]) -> None:
    values = drawn(levels)
    means, errors = by_least_squares(values, levels, MAIN + PAIRS)
    found = effects.effects("squad_f1", values, levels, "score", groups=GROUPS)
    assert {(one.factors, one.levels): one.mean for one in found} == pytest.approx(means, abs=1e-9)
    design = effects.contrasts(levels)
    for one in found:
        d = design.weights[one.factors, one.levels, one.references] @ np.array([list(of.values()) for of in values.values()])
        contrast = intervals.difference(d, clusters(IDS, GROUPS), "amount", 0.95)
        assert contrast.error == pytest.approx(errors[one.factors, one.levels], rel=1e-9)


def test_a_fraction_that_mixes_two_effects_tells_the_factors_alone() -> None:
    levels = {
        name: of for name, of in GRID.items() if name in ("none+plain+off", "lora+plain+on", "full+brief+off", "none+brief+on")
    }
    assert effects.contrasts({name: {"a": of["a"], "b": of["b"]} for name, of in levels.items()}).interactions is False
    half = {name: {"a": of["a"]} | {"c": of["a"]} for name, of in levels.items()}
    assert effects.contrasts(half).weights == {}, "two factors that always go together"


def test_the_two_by_two_is_a_special_case() -> None:
    levels = {f"{a}{b}": {"adapter": a, "RAG": b} for a, b in product("01", "01")}
    values = drawn(levels, shares=True)
    found = {one.factors: one for one in effects.effects("grounded", values, levels, "share", groups=GROUPS)}
    old = paired.interaction([values[name] for name in ("00", "10", "01", "11")], "share", groups=GROUPS)
    assert old is not None
    one = found["adapter", "RAG"]
    assert (one.mean, one.low, one.high, one.n, one.deff) == (old.mean, old.low, old.high, old.n, old.deff)
    plain = np.mean([values["10"][id] + values["11"][id] - values["00"][id] - values["01"][id] for id in IDS]) / 2
    assert found["adapter",].mean == pytest.approx(plain)


def test_an_effect_is_judged_over_the_questions_that_all_variants_answered() -> None:
    levels = {f"{a}{b}": {"x": a, "y": b} for a, b in product("01", "01")}
    values = drawn(levels)
    del values["01"]["q3"]
    assert {one.n for one in effects.effects("m", values, levels, "score")} == {59}
    assert effects.effects("m", {name: {} for name in levels}, levels, "score") == []


def test_error_rates_of_effects_are_at_most_nominal() -> None:
    levels = {f"{a}{b}": {"x": a, "y": b} for a, b in product("01", "01")}
    rng, wrong, runs = np.random.default_rng(7), 0, 200
    for _ in range(runs):
        page = rng.normal(0, 0.3, 20)[np.arange(60) // 3]
        values = {n: dict(zip(IDS, (rng.random(60) < 0.6 + page).astype(float).tolist(), strict=True)) for n in levels}
        found = effects.effects("m", values, levels, "share", groups=GROUPS)
        wrong += any(one.p_holm < 0.05 for one in found)
    assert wrong / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5


def test_variance_is_split_into_questions_and_sampling() -> None:
    rng = np.random.default_rng(3)
    own = rng.normal(0, 0.3, 4000)
    values = {f"q{i}": (m + rng.normal(0, 0.5, 5)).tolist() for i, m in enumerate(own)}
    found = effects.noise(values)
    assert found is not None
    assert (found.question, found.sampling) == pytest.approx((0.09, 0.25), rel=0.1)
    assert found.share == pytest.approx(0.05 / 0.14, rel=0.1)
    assert found.floor == pytest.approx(1.96 * (2 * 0.25 / 5 / 4000) ** 0.5, rel=0.05)


def test_two_runs_of_one_variant_stay_within_the_floor_as_often_as_said() -> None:
    rng, inside, runs = np.random.default_rng(5), 0, 400
    for _ in range(runs):
        chance = rng.random(200)
        first, second = ((rng.random((200, 3)) < chance[:, None]).astype(float) for _ in range(2))
        found = effects.noise({f"q{i}": x.tolist() for i, x in enumerate(first)})
        assert found is not None
        inside += abs(first.mean() - second.mean()) <= found.floor
    assert 0.93 <= inside / runs <= 0.97


def test_questions_asked_once_show_no_noise() -> None:
    assert effects.noise({"q1": [1.0], "q2": [0.0, 1.0]}) is None
    found = effects.noise({"q1": [1.0, 1.0], "q2": [0.0, 0.0]})
    assert found is not None
    assert (found.flips, found.floor, found.share) == (0.0, 0.0, 0.0)
