"""Which settings are tried next. Optuna draws them; what it knows is told to it each time, from the trials' own files.

So a sweep that was killed and one that never stopped draw alike, and nothing of Optuna's needs to be stored or repaired.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmbench.recipe import DimensionSpec, SweepRecipe
from llmbench.sweep.trial import Trial, key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

__all__ = ["combinations", "importances", "own", "suggest"]

_DRAWS = 50
"""Draws that may repeat what was tried before the next one is taken at random, and after that before the search ends."""
_COUNTED = 10_000
"""Combinations that are gone through to see whether any is left."""
_DIGITS = 4
"""Significant digits of a drawn number: more says nothing, and 0.00123 is easier to repeat."""


def suggest(spec: SweepRecipe, trials: Sequence[Trial], first: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Settings that no trial has, or None where there are no others (or none are found in 100 draws).

    Args:
        spec: the sweep.
        trials: all trials so far, running ones included.
        first: the settings of the first trial, such as the recipe's own; None draws them.
    """
    known = {key(trial.params) for trial in trials}
    if spec.sampler == "grid":
        return next((params for params in combinations(spec.space) if key(params) not in known), None)
    if first is not None and not trials:
        return first
    if all(dimension.values is not None for dimension in spec.space.values()):
        size = math.prod(len(dimension.values or ()) for dimension in spec.space.values())
        if size <= _COUNTED and all(key(params) in known for params in combinations(spec.space)):
            return None
    for attempt in range(2 * _DRAWS):
        params = _drawn(spec, trials, attempt, at_random=spec.sampler == "random" or attempt >= _DRAWS)
        if key(params) not in known:
            return params
    return None


def own(spec: SweepRecipe, base: dict[str, Any]) -> dict[str, Any] | None:
    """The settings that the training recipe itself has, as the space writes them; None where one of them is outside it."""
    found: dict[str, Any] = {}
    for name, dimension in spec.space.items():
        if not _holds(dimension, found):
            continue
        value: Any = base
        for part in name.split("."):
            if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                return None
        if dimension.values is not None:
            if not any(key({name: one}) == key({name: value}) for one in dimension.values):
                return None
        elif not _within(dimension, value):
            return None
        found[name] = value
    return found


def combinations(space: dict[str, DimensionSpec]) -> Iterator[dict[str, Any]]:
    """Every combination of the values, the last setting changing first; each once, without settings that do not apply."""
    told: set[str] = set()
    for values in itertools.product(*(dimension.values or () for dimension in space.values())):
        found: dict[str, Any] = {}
        for (name, dimension), value in zip(space.items(), values, strict=True):
            if _holds(dimension, found):
                found[name] = value
        if (text := json.dumps(found)) not in told:
            told.add(text)
            yield found


def importances(spec: SweepRecipe, trials: Sequence[Trial]) -> dict[str, float]:
    """The share of each setting in how the objective varies, greatest first; empty for fewer than 4 finished trials.

    Optuna's PED-ANOVA (Watanabe and others, IJCAI 2023, arXiv 2304.10255): how differently the settings of the better trials
    are distributed from those of all.
    """
    import optuna

    finished = [trial for trial in trials if trial.state == "finished"]
    if len(finished) < 4 or len({trial.value for trial in finished}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(_study(spec, finished, seed=0, at_random=True))
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _drawn(spec: SweepRecipe, trials: Sequence[Trial], attempt: int, *, at_random: bool) -> dict[str, Any]:
    """One draw. Its seed follows from the number of trials, or a continued sweep would draw its first trials again."""
    import numpy as np

    seed = int(np.random.SeedSequence([spec.seed, len(trials), attempt]).generate_state(1)[0])
    asked = _study(spec, trials, seed=seed, at_random=at_random).ask()
    found: dict[str, Any] = {}
    for name, dimension in spec.space.items():
        if not _holds(dimension, found):
            continue
        if dimension.choices is not None:
            found[name] = json.loads(asked.suggest_categorical(name, _names(dimension)))
            continue
        low, high, step = dimension.low, dimension.high, dimension.step
        assert low is not None and high is not None
        if dimension.whole:
            found[name] = asked.suggest_int(name, int(low), int(high), step=int(step or 1), log=dimension.log)
        else:
            value = asked.suggest_float(name, low, high, step=step, log=dimension.log)
            digits = _DIGITS if step is None else 10
            found[name] = min(max(float(f"{value:.{digits}g}"), low), high)
    return found


def _study(spec: SweepRecipe, trials: Sequence[Trial], *, seed: int, at_random: bool) -> Study:
    """A study in memory that knows these trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: optuna.samplers.BaseSampler
    sampler = optuna.samplers.RandomSampler(seed=seed) if at_random else optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="minimize" if spec.minimizes else "maximize", sampler=sampler)
    states = optuna.trial.TrialState
    of = {"running": states.RUNNING, "finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
    for trial in trials:
        distributions = {name: _distribution(spec.space[name]) for name in trial.params}
        study.add_trial(
            optuna.trial.create_trial(
                state=of[trial.state],
                value=trial.value if trial.state == "finished" else None,
                params={name: _told(spec.space[name], value) for name, value in trial.params.items()},
                distributions=distributions,
                intermediate_values={step: value for step, value in trial.evaluations if math.isfinite(value)},
            )
        )
    return study


def _distribution(dimension: DimensionSpec) -> BaseDistribution:
    from optuna import distributions

    if dimension.choices is not None:
        return distributions.CategoricalDistribution(_names(dimension))
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None and high is not None
    if dimension.whole:
        return distributions.IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return distributions.FloatDistribution(float(low), float(high), log=dimension.log, step=step)


def _names(dimension: DimensionSpec) -> tuple[str, ...]:
    """Choices as JSON: Optuna takes no lists, and holds true and 1 for one value."""
    return tuple(json.dumps(value, sort_keys=True) for value in dimension.choices or ())


def _told(dimension: DimensionSpec, value: Any) -> Any:
    """A value as its distribution knows it."""
    if dimension.choices is None:
        return value if dimension.whole else float(value)
    known = next((one for one in dimension.choices if one == value and isinstance(one, bool) == isinstance(value, bool)), value)
    return json.dumps(known, sort_keys=True)


def _within(dimension: DimensionSpec, value: Any) -> bool:
    low, high = dimension.low, dimension.high
    if low is None or high is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low <= value <= high


def _holds(dimension: DimensionSpec, found: dict[str, Any]) -> bool:
    """Whether a setting is searched beside those that were drawn before it."""
    return all(
        name in found and any(found[name] == one for one in (wanted if isinstance(wanted, list) else [wanted]))
        for name, wanted in dimension.when.items()
    )
