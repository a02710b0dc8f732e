from __future__ import annotations

from typing import Any

import pytest
from tests.sweep.conftest import Make

from llmbench.sweep.search import combinations, importances, own, suggest
from llmbench.sweep.trial import Trial

RATE = "training.learning_rate"


def trials(*params: dict[str, Any], state: Any = "finished") -> list[Trial]:
    return [
        Trial(i, one, f"try-{i:04}", state=state, value=float(i) if state == "finished" else None)
        for i, one in enumerate(params)
    ]


def drawn(spec: Any, count: int, begun: list[Trial] | None = None) -> list[Trial]:
    found = list(begun or [])
    while len(found) < count and (params := suggest(spec, found)) is not None:
        found.append(Trial(len(found), params, f"try-{len(found):04}", state="finished", value=abs(params[RATE] - 1e-3)))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_continued_search_draws_what_one_that_never_stopped_draws(make: Make, sampler: str) -> None:
    spec = make(sampler=sampler)
    whole = drawn(spec, 14)
    assert drawn(spec, 14, whole[:6]) == whole
    assert len({one.params[RATE] for one in whole}) == 14, "no draw comes again"


def test_another_seed_draws_otherwise(make: Make) -> None:
    assert drawn(make(), 3) != drawn(make(seed=1), 3)


def test_the_first_trial_is_the_recipe_as_it_stands(make: Make) -> None:
    spec = make(space={RATE: {"low": 1e-4, "high": 1e-1, "log": True}, "lora.r": [8, 16], "lora.use_rslora": [False, True]})
    base = {"training": {"learning_rate": 0.01}, "lora": {"r": 16, "use_rslora": False}}
    first = own(spec, base)
    assert first == {RATE: 0.01, "lora.r": 16, "lora.use_rslora": False}
    assert suggest(spec, [], first) == first
    assert suggest(spec, trials(first), first) != first
    assert own(spec, base | {"lora": {"r": 64, "use_rslora": False}}) is None, "64 is not a choice"
    assert own(spec, base | {"lora": {"r": 16, "use_rslora": 0}}) is None, "0 is not false"
    assert own(spec, base | {"training": {"learning_rate": 1.0}}) is None


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_small_space_ends_and_never_repeats(make: Make, sampler: str) -> None:
    spec = make(space={"lora.r": [4, 8, 16], "lora.use_rslora": [False, True]}, sampler=sampler)
    found: list[Trial] = []
    while (params := suggest(spec, found)) is not None:
        found.append(
            Trial(len(found), params, "", state=("finished", "pruned", "failed", "running")[len(found) % 4], value=1.0)
        )
    assert len(found) == 6
    assert len({(one.params["lora.r"], one.params["lora.use_rslora"]) for one in found}) == 6


def test_a_grid_takes_every_combination_in_order(make: Make) -> None:
    spec = make(space={"lora.r": {"low": 4, "high": 12, "step": 4}, RATE: [0.1, 0.01]}, sampler="grid")
    assert [tuple(one.values()) for one in combinations(spec.space)] == [(r, rate) for r in (4, 8, 12) for rate in (0.1, 0.01)]


def test_a_setting_with_a_condition_is_searched_only_where_it_holds(make: Make) -> None:
    space = {"lora.use_dora": [False, True], "lora.lora_dropout": {"choices": [0.0, 0.1], "when": {"lora.use_dora": True}}}
    spec = make(space=space, sampler="grid")
    assert [tuple(one.values()) for one in combinations(spec.space)] == [(False,), (True, 0.0), (True, 0.1)]
    random = make(space=space, sampler="random", name="other")
    found = trials({"lora.use_dora": False})
    assert suggest(random, found) is not None
    assert all(("lora.lora_dropout" in one) is one["lora.use_dora"] for one in (suggest(random, found),) if one)


def test_values_keep_their_type(make: Make) -> None:
    spec = make(
        space={
            "lora.r": {"low": 4, "high": 64, "log": True},
            "lora.target_modules": ["all-linear", ["q_proj"]],
            RATE: {"low": 1e-4, "high": 1e-2},
        }
    )
    for number in range(5):
        params = suggest(
            spec, trials(*({"lora.r": 5 + i, "lora.target_modules": "all-linear", RATE: 1e-3} for i in range(number)))
        )
        assert params is not None
        assert isinstance(params["lora.r"], int)
        assert params["lora.target_modules"] in ("all-linear", ["q_proj"])
        assert params[RATE] == float(f"{params[RATE]:.4g}"), "four digits"


def test_tpe_goes_where_it_is_good(make: Make) -> None:
    found = drawn(make(trials=40), 40)
    late = sum(abs(one.params[RATE]) for one in found[25:]) / 15
    early = sum(abs(one.params[RATE]) for one in found[:10]) / 10
    assert late < early


def test_importance_is_that_of_the_setting_that_matters(make: Make) -> None:
    spec = make(space={RATE: {"low": 0.0001, "high": 1.0}, "lora.lora_dropout": {"low": 0.0, "high": 0.5}})
    found = [
        Trial(i, {RATE: (i % 6 + 1) / 7, "lora.lora_dropout": (i % 5) / 10}, "", state="finished", value=((i % 6 + 1) / 7) ** 2)
        for i in range(30)
    ]
    shares = importances(spec, found)
    assert next(iter(shares)) == RATE and shares[RATE] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(spec, found[:3]) == {}, "three say nothing"
