"""Whether a new variant is worse than the control, guard-rail by guard-rail. Pure: no clock, no files, no network.

Every verdict holds however often it is looked at: the chance that a variant which is within all margins is ever found worse is
at most alpha. That alpha is shared out evenly among the guard-rails and among the steps of a plan, each of which counts from 0:
what was seen under other shares was seen at another time and load, and would mix those up with the variant.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil, exp, expm1, log, log1p
from typing import TYPE_CHECKING, Literal

from llmbench.recipe import RAILS

if TYPE_CHECKING:
    from llmbench.statistics.sequential import Bounds

__all__ = ["KINDS", "LATER", "Judge", "Observed", "RailVerdict", "mismatch", "turnout"]

KINDS = {name: rail.kind for name, rail in RAILS.items()}
LATER = tuple(name for name, rail in RAILS.items() if rail.later)
_Q = {"p95": 0.95, "median": 0.5}
_WIDEST = log(1e6)
"""Ratios beyond a million to one are not looked for."""
_MISMATCH = 0.001

State = Literal["worse", "not worse", "undecided", "no data"]


class Observed:
    """What was seen of one variant: sums and sorted logarithms, by guard-rail."""

    def __init__(self, rails: Iterable[str]) -> None:
        self.units = 0
        self.counts: dict[str, tuple[float, int]] = {name: (0, 0) for name in rails if KINDS[name] in ("share", "mean")}
        """The bad ones or the sum, and how many."""
        self.values: dict[str, array[float]] = {name: array("d") for name in rails if name not in self.counts}

    def add(self, values: Mapping[str, float]) -> None:
        """Counts one unit, with its values as far as it has them."""
        self.units += 1
        self.learn(values)

    def learn(self, values: Mapping[str, float]) -> None:
        """Takes values of a unit that was counted before."""
        for name, value in values.items():
            if name in self.counts:
                total, n = self.counts[name]
                self.counts[name] = total + (value if KINDS[name] == "mean" else value > 0.5), n + 1
            elif name in self.values and value > 0:
                bisect.insort(self.values[name], log(value))

    def size(self, name: str) -> int:
        """Observations of a guard-rail."""
        return self.counts[name][1] if name in self.counts else len(self.values[name])

    def estimate(self, name: str) -> float:
        """A share or a mean, or the logarithm of a quantile; there must be observations."""
        if name in self.counts:
            total, n = self.counts[name]
            return total / n
        values = self.values[name]
        return values[max(ceil(_Q[KINDS[name]] * len(values)) - 1, 0)]


@dataclass(frozen=True)
class RailVerdict:
    """One guard-rail with its evidence: shares, scores, seconds or characters, and how they differ (quantiles: ratio - 1)."""

    rail: str
    state: State
    margin: float
    canary: float | None
    control: float | None
    canary_n: int
    control_n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    """The difference's bounds at the level that verdicts are made with; None is unbounded."""


class Judge:
    """Compares two variants.

    Args:
        margins: guard-rail -> margin; those of quantiles are relative.
        alpha: the chance of ever finding one worse that is not, over the guard-rails.
    """

    def __init__(self, margins: Mapping[str, float], alpha: float) -> None:
        self.margins = dict(margins)
        self.alpha = alpha / len(margins)
        """Of each guard-rail."""
        self._limit = -log(self.alpha)

    def worse(self, canary: Observed, control: Observed) -> list[str]:
        """The guard-rails on which the canary is worse, by what was seen so far."""
        return [name for name in self.margins if self._state(name, canary, control, only_worse=True) == "worse"]

    def states(self, canary: Observed, control: Observed) -> dict[str, State]:
        """Guard-rail -> its state."""
        return {name: self._state(name, canary, control) for name in self.margins}

    def verdicts(self, canary: Observed, control: Observed) -> list[RailVerdict]:
        """All guard-rails with their bounds, which take longer to find than their states."""
        return [self._verdict(name, canary, control) for name in self.margins]

    def _state(self, name: str, canary: Observed, control: Observed, *, only_worse: bool = False) -> State:
        if not canary.size(name) or not control.size(name):
            return "no data"
        difference = canary.estimate(name) - control.estimate(name)
        margins = list(self._edges(name))
        beyond = [margin for margin in margins if (difference > margin if margin >= 0 else difference < margin)]
        if only_worse and not beyond:
            return "undecided"
        against = self._evidence(name, canary, control)
        if any(against(margin, reach=self._limit) >= self._limit for margin in beyond):
            return "worse"
        if beyond or only_worse:
            return "undecided"
        return "not worse" if all(against(margin, reach=self._limit) >= self._limit for margin in margins) else "undecided"

    def _edges(self, name: str) -> Iterator[float]:
        """The differences from which on it is worse."""
        margin = self.margins[name]
        match KINDS[name]:
            case "share":
                yield margin
            case "mean":
                yield -margin or -1e-12
            case "p95":
                yield log1p(margin)
            case "median":
                yield from (log1p(margin), -log1p(margin) or -1e-12)

    @staticmethod
    def _evidence(name: str, canary: Observed, control: Observed) -> partial[float]:
        from llmbench.statistics import sequential

        if name in canary.counts:
            return partial(sequential.against_shares, canary.counts[name], control.counts[name])
        return partial(sequential.against_quantiles, canary.values[name], control.values[name], _Q[KINDS[name]])

    def _verdict(self, name: str, canary: Observed, control: Observed) -> RailVerdict:
        from llmbench.statistics import sequential

        share, margin = name in canary.counts, self.margins[name]
        state = self._state(name, canary, control)
        new, old = (_shown(one.estimate(name), share=share) if one.size(name) else None for one in (canary, control))
        seen = partial(RailVerdict, name, state, margin, new, old, canary.size(name), control.size(name))
        if state == "no data":
            return seen()
        estimate, widest = canary.estimate(name) - control.estimate(name), 1.0 if share else _WIDEST
        evidence = self._evidence(name, canary, control)
        bounds = sequential.difference_bounds(evidence, estimate, self.alpha, -widest, widest)
        if share:
            return seen(estimate, bounds.low, bounds.high)
        low, high = (None if abs(edge) >= _WIDEST else expm1(edge) for edge in (bounds.low, bounds.high))
        return seen(expm1(estimate), low, high)


def mismatch(canary: int, control: int, percent: float) -> Bounds | None:
    """The canary's share of the units, in percent, where it contradicts the share that it should have: something loses units.

    The chance that this is ever found though nothing does is .001 a step.

    Args:
        canary: units of the canary.
        control: units of the control.
        percent: the canary's share as it should be.
    """
    from llmbench.statistics import sequential

    if sequential.against_share(canary, canary + control, percent / 100) < -log(_MISMATCH):
        return None
    found = sequential.share_bounds(canary, canary + control, _MISMATCH)
    return sequential.Bounds(100 * found.low, 100 * found.high)


def turnout(canary: tuple[int, int], control: tuple[int, int], alpha: float) -> Bounds | None:
    """How much more of the canary's units have a vote, or a score, where that differs: its bounds.

    Who votes chooses to. Where another share of the units does, those who do may be other people, and their votes compare less.
    Units whose vote is still to come count as units without one, on both sides.

    Args:
        canary: units that have one, of how many.
        control: likewise.
        alpha: the chance that a difference is ever found where there is none.
    """
    from llmbench.statistics import sequential

    (k1, n1), (k0, n0) = canary, control
    evidence = partial(sequential.against_shares, canary, control)
    if not n1 or not n0 or evidence(0.0) < -log(alpha):
        return None
    return sequential.difference_bounds(evidence, k1 / n1 - k0 / n0, alpha, -1.0, 1.0)


def _shown(estimate: float, *, share: bool) -> float:
    return estimate if share else exp(estimate)
