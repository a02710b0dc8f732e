"""What a rollout leaves on disk: its plan, how it stands, every decision with its evidence, and every observation.

    LLMBENCH_HOME/rollouts/SERVER/ROUTE/0001/
        state.json           the plan with its hash, how it stands, the step; written whole before it takes effect
        audit.jsonl          a line for each decision, with its evidence
        observations.jsonl   a line for each unit: step, variant, the unit's hash, values; no texts; and one for its vote

A server that is started again, or was killed, goes on from there; it may have lost the observations of its last moments.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.traffic.rollout import LIVE, Decision, Rollout, RolloutPlan
from llmbench.gateway.traffic.verdict import LATER

__all__ = ["Record", "records"]


class Record:
    """The folder of one rollout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: list[str] = []

    @property
    def number(self) -> int:
        """Which of its route's it is, from 1 on."""
        return int(self.folder.name)

    def note(self, step: int, arm: str, unit: str, values: Mapping[str, float]) -> None:
        """Keeps an observation for the next `write`."""
        rounded = {name: round(value, 6) for name, value in values.items()}
        self._lines.append(json.dumps({"step": step, "variant": arm, "unit": unit} | rounded) + "\n")

    def write(self) -> None:
        """Appends the observations that were kept.

        Raises:
            OSError: the disk is full, or the folder has gone; they are kept.
        """
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            _append(self.folder / "observations.jsonl", "".join(lines))
        except OSError:
            self._lines = lines + self._lines
            raise

    def decide(self, rollout: Rollout, decision: Decision) -> None:
        """Appends a decision with its evidence, and then writes how the rollout stands.

        Raises:
            LlmbenchError: the folder cannot be written.
        """
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "action": decision.action,
            "reason": decision.reason,
            "step": rollout.step,
            "share": decision.share,
            "units": dict(decision.units),
            "plan": rollout.plan.hash,
            "evidence": [asdict(verdict) for verdict in decision.evidence],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _append(self.folder / "audit.jsonl", json.dumps(line) + "\n", durably=True)
        except OSError as error:
            raise LlmbenchError(f"{self.folder}: cannot be written ({error.strerror})") from error
        state = {"stand": rollout.stand, "step": rollout.step, "reason": rollout.reason}
        plan = asdict(rollout.plan)
        workspace.write_json(self.folder / "state.json", state | {"hash": rollout.plan.hash, "plan": plan})

    def rollout(self) -> Rollout:
        """The rollout as it was left.

        Raises:
            LlmbenchError: the state is damaged, or its plan is no longer what was fixed at the start.
        """
        path = self.folder / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            plan = RolloutPlan(**state["plan"] | {name: tuple(state["plan"][name]) for name in ("steps", "required")})
            rollout = Rollout(plan)
            stand, step, reason, fixed = state["stand"], int(state["step"]), str(state["reason"]), state["hash"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LlmbenchError(
                f"{path} is damaged ({type(error).__name__}: {error}). Start a new one: llmbench rollout start"
            ) from error
        if plan.hash != fixed:
            raise LlmbenchError(f"{path}: the plan has changed since the rollout began ({fixed} is now {plan.hash})")
        rollout.stand, rollout.step, rollout.reason = stand, step, reason
        for line in self._observations() if stand in LIVE else ():
            if line.pop("step") != step:
                continue
            arm, unit = line.pop("variant"), line.pop("unit")
            if line.keys() <= set(LATER):
                for rail, value in line.items():
                    rollout.learn(arm, unit, rail, value)
            else:
                rollout.add(arm, unit, line)
        return rollout

    def audit(self) -> list[dict[str, Any]]:
        """The decisions, oldest first."""
        return list(_lines(self.folder / "audit.jsonl"))

    def _observations(self) -> Iterator[dict[str, Any]]:
        for line in _lines(self.folder / "observations.jsonl"):
            if line.keys() >= {"step", "variant", "unit"}:
                yield line


def records(folder: Path) -> list[Record]:
    """The rollouts of one route, oldest first."""
    return [Record(path.parent) for path in sorted(folder.glob("[0-9]*/state.json"))]


def _append(path: Path, lines: str, *, durably: bool = False) -> None:
    """Appends whole lines; one that was cut off before stays alone."""
    with path.open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(lines.encode())
        if durably:
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; the last may have been cut off."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        for text in file:
            with suppress(ValueError):
                if isinstance(line := json.loads(text), dict):
                    yield line
