"""A new variant that is given a route's requests step by step, as long as no guard-rail finds it worse. Pure, as `verdict`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from llmbench.gateway.traffic.verdict import LATER, Judge, Observed, RailVerdict, State, mismatch, turnout
from llmbench.recipe import RouteSpec

__all__ = ["LIVE", "Decision", "Rollout", "RolloutPlan", "Stand"]

Stand = Literal["running", "paused", "promoted", "rolled back", "aborted", "inconclusive"]
LIVE: tuple[Stand, ...] = ("running", "paused")
_ENOUGH = 50_000
"""Units of the control in a step; more would cost memory and show nothing."""


@dataclass(frozen=True)
class RolloutPlan:
    """What is fixed before a rollout begins, so that nobody, seeing results, chooses what counts."""

    route: str
    control: str
    canary: str
    steps: tuple[float, ...]
    """Percent, climbing, all below 100: after the last comes everything."""
    least: int
    most: int
    alpha: float
    margins: Mapping[str, float]
    required: tuple[str, ...]
    phrase: str
    sticky: str
    experiment: str
    document: Mapping[str, float]
    """The weights that the document gave when it began."""

    @classmethod
    def of(cls, spec: RouteSpec, canary: str, weights: Mapping[str, float], number: int) -> Self:
        """By the route's document.

        Raises:
            ValueError: the requests are divided among several others, or the canary has all of them.
        """
        live = {name: weight for name, weight in weights.items() if weight > 0}
        others = [name for name in live if name != canary]
        if len(others) != 1:
            raise ValueError(
                f"{canary} answers all of {spec.name} already"
                if not others
                else f"{spec.name} divides its requests among {' and '.join(others)}. Give one of them all of it first"
            )
        share = 100 * live.get(canary, 0.0) / sum(live.values())
        steps = tuple(float(step) for step in spec.rollout.plan if share <= step < 100)
        rails = spec.guardrails
        return cls(
            route=spec.name,
            control=others[0],
            canary=canary,
            steps=steps or (share,),
            least=spec.rollout.least,
            most=spec.rollout.most,
            alpha=spec.rollout.alpha,
            margins=rails.margins,
            required=tuple(rails.needed),
            phrase=rails.phrase,
            sticky=spec.sticky,
            # Others are drawn as first ones than for the last canary, but nobody who has this one already loses it.
            experiment=spec.name if canary in live else f"{spec.name}/{number}",
            document=dict(spec.variants),
        )

    @property
    def hash(self) -> str:
        """Changes with anything of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Decision:
    """What was decided, why in one line, and what was seen."""

    action: Literal["start", "step", "promote", "roll back", "pause", "resume", "abort", "inconclusive", "restore"]
    reason: str
    share: float
    """Percent of the canary from now on."""
    units: Mapping[str, int]
    evidence: tuple[RailVerdict, ...] = ()


class Rollout:
    """One rollout: what it has seen in this step, and how it stands."""

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan = plan
        self.stand: Stand = "running"
        self.step = 0
        self.reason = ""
        self.judge = Judge(plan.margins, plan.alpha / len(plan.steps))
        self._begin()

    def _begin(self) -> None:
        """Counts from 0: what was seen before was seen under other shares, at another time."""
        self.canary, self.control = Observed(self.plan.margins), Observed(self.plan.margins)
        self._seen: set[str] = set()
        self._learned: dict[str, set[str]] = {name: set() for name in LATER if name in self.plan.margins}
        self._settled = {self.plan.canary: 0, self.plan.control: 0}

    @property
    def share(self) -> float:
        """The canary's percent of the units now."""
        match self.stand:
            case "promoted":
                return 100.0
            case "running" | "paused":
                return self.plan.steps[self.step]
        return 0.0

    @property
    def weights(self) -> dict[str, float]:
        """How the route's requests are divided now; one that was aborted gives back what the document said."""
        if self.stand == "aborted":
            return dict(self.plan.document)
        return {self.plan.control: 100.0 - self.share, self.plan.canary: self.share}

    @property
    def units(self) -> dict[str, int]:
        """Units that were counted in this step, by variant."""
        return {self.plan.canary: self.canary.units, self.plan.control: self.control.units}

    def add(self, arm: str, unit: str, values: Mapping[str, float]) -> bool:
        """Counts a unit's first answer in this step, and whether it was one.

        The further answers of a unit resemble its first, and would count as evidence what is none.
        """
        side = self._side(arm)
        if self.stand not in LIVE or side is None or unit in self._seen:
            return False
        if side is self.control and side.units >= _ENOUGH:
            return False
        self._seen.add(unit)
        side.add(values)
        return True

    def learn(self, arm: str, unit: str, rail: str, value: float) -> bool:
        """Takes a vote or a score about an answer of a unit that was counted in this step, and whether it counts.

        The first of a unit does, of each kind: its further ones resemble it, as its answers do.
        """
        side = self._side(arm)
        if self.stand not in LIVE or side is None or unit not in self._seen or unit in self._learned.get(rail, {unit}):
            return False
        self._learned[rail].add(unit)
        side.learn({rail: value})
        return True

    def settle(self, arm: str) -> None:
        """Counts a unit that was added for the ratio of the variants, once all that began before it must have ended.

        A variant that is slower has answered fewer of the same units at any moment; that is no mismatch.
        """
        if self.control.units < _ENOUGH:
            self._settled[arm] += 1

    def look(self) -> Decision | None:
        """Decides by what was seen so far, if anything is to be decided. May be called after every unit, or seldom."""
        if self.stand not in LIVE:
            return None
        if worse := self.judge.worse(self.canary, self.control):
            return self._end("rolled back", "roll back", f"worse than {self.plan.control}: {', '.join(worse)}")
        if self.stand == "paused":
            return None
        if (found := self._mismatch()) is not None:
            return self.pause(found)
        if self.canary.units < self.plan.least:
            return None
        if self.step + 1 < len(self.plan.steps):
            evidence = self._evidence()
            reason = f"{self.canary.units} units, and no guard-rail found {self.plan.canary} worse"
            self.step += 1
            decision = Decision("step", reason, self.share, self.units, evidence)
            self._begin()
            return decision
        open = self.waits_for(self.judge.states(self.canary, self.control))
        if not open:
            return self._end("promoted", "promote", f"no worse than {self.plan.control} on every guard-rail")
        if self.canary.units >= self.plan.most:
            reason = f"{self.canary.units} units did not decide {', '.join(open)}"
            return self._end("inconclusive", "inconclusive", reason)
        return None

    def waits_for(self, states: Mapping[str, State]) -> list[str]:
        """The guard-rails that keep it from being promoted."""
        return [
            name
            for name, state in states.items()
            if state in ("worse", "undecided") or (state == "no data" and name in self.plan.required)
        ]

    def pause(self, reason: str) -> Decision:
        """Takes no further step, and still rolls back where the canary is found worse."""
        self.stand, self.reason = "paused", reason
        return Decision("pause", reason, self.share, self.units, self._evidence())

    def resume(self) -> Decision:
        """Goes on. After a sample-ratio mismatch the ratio is counted from now on, and what was seen stays."""
        reason = f"after: {self.reason}"
        self.stand, self.reason = "running", ""
        self._settled = dict.fromkeys(self._settled, 0)
        return Decision("resume", reason, self.share, self.units)

    def abort(self, reason: str) -> Decision:
        """Ends it, with the weights of the document."""
        return self._end("aborted", "abort", reason)

    def verdicts(self) -> tuple[RailVerdict, ...]:
        """What was seen in this step."""
        return self._evidence()

    def turnouts(self, evidence: Iterable[Mapping[str, Any]], units: Mapping[str, int]) -> list[dict[str, Any]]:
        """For each guard-rail of votes or scores, which share of the units has one; `differs` has bounds where that differs.

        Args:
            evidence: verdicts, as plain values.
            units: that were counted when those were made, by variant.
        """
        found = []
        for one in evidence:
            sides = (one["canary_n"], units[self.plan.canary]), (one["control_n"], units[self.plan.control])
            if one["rail"] in LATER and all(n for _, n in sides):
                canary, control = (k / n for k, n in sides)
                bounds = turnout(*sides, self.judge.alpha)
                differs = None if bounds is None else asdict(bounds)
                found.append({"rail": one["rail"], "canary": canary, "control": control, "differs": differs})
        return found

    def _side(self, arm: str) -> Observed | None:
        return {self.plan.canary: self.canary, self.plan.control: self.control}.get(arm)

    def _evidence(self) -> tuple[RailVerdict, ...]:
        return tuple(self.judge.verdicts(self.canary, self.control))

    def _end(self, stand: Stand, action: Any, reason: str) -> Decision:
        evidence, units = self._evidence(), self.units
        self.stand, self.reason = stand, reason
        return Decision(action, reason, self.share, units, evidence)

    def _mismatch(self) -> str | None:
        canary, control = self._settled[self.plan.canary], self._settled[self.plan.control]
        found = mismatch(canary, control, self.share)
        if found is None:
            return None
        return (
            f"sample-ratio mismatch: {self.plan.canary} has {canary} of {canary + control} units, {found.low:.3g} to "
            f"{found.high:.3g} %, not {self.share:g} %. Answers of one side go missing: compare 4xx and clients that leave"
        )
