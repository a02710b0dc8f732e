"""One trial: the settings it was given, how its training went, and the file that says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.runs import Run
from llmbench.runs.best import Goal

__all__ = ["Trial", "TrialState", "best", "key", "read", "write"]

TrialState = Literal["running", "finished", "pruned", "failed"]
"""A trial that was interrupted stays running: the next sweep takes it over or continues it."""


@dataclass(frozen=True)
class Trial:
    """Settings, and what became of them.

    `evaluations` are (step, objective) in the order of steps. `value` is the objective that counts: of the step that the run
    keeps, which is the last one unless the recipe keeps the best; None for all but finished trials. `seconds` and `tokens` are
    what its training took. `starts` counts how often its training was started, the first time included; `slot` is the worker
    that it has, and so its GPU.
    """

    number: int
    params: dict[str, Any]
    run: str
    state: TrialState = "running"
    value: float | None = None
    evaluations: tuple[tuple[int, float], ...] = ()
    reason: str = ""
    seconds: float = 0.0
    tokens: int = 0
    starts: int = 0
    slot: int = 0
    overrides: tuple[str, ...] = field(default=(), compare=False)

    @property
    def file(self) -> str:
        """The name of its file, without an ending."""
        return f"{self.number:04}"

    @property
    def figure(self) -> float | None:
        """The objective as it is known: what counts, or of other trials the last one measured; None before an evaluation."""
        return self.value if self.value is not None else self.evaluations[-1][1] if self.evaluations else None

    def judged(self, run: Run, goal: Goal) -> Trial:
        """The trial with what its run has measured so far; its state is left as it is."""
        rows = run.metrics()
        status = run.status
        logged = [row for row in rows if "loss" in row]
        tokens = status.get("tokens") or (logged[-1]["tokens"] if logged else 0)
        seconds = status.get("seconds") or (logged[-1]["seconds"] if logged else 0.0)
        return replace(self, evaluations=tuple(goal.evaluations(rows)), tokens=int(tokens), seconds=float(seconds))

    def ended(self, state: TrialState, reason: str = "") -> Trial:
        """The trial in its last state."""
        return replace(self, state=state, reason=" ".join(reason.split())[:500])

    def finished(self, run: Run, goal: Goal) -> Trial:
        """The trial with its value; failed where there is none, or it is not a finite number."""
        if not self.evaluations:
            known = sorted({name for row in run.metrics() for name in row if name.startswith("eval_")})
            return self.ended("failed", f"{goal.metric} was not measured (available: {', '.join(known) or 'nothing'})")
        kept = run.status.get("kept_step")
        value = next((value for step, value in self.evaluations if step == kept), self.evaluations[-1][1])
        if not math.isfinite(value):
            return self.ended("failed", f"the objective is {value}")
        return replace(self.ended("finished"), value=value)


def best(trials: list[Trial], goal: Goal) -> Trial | None:
    """The best finished trial, the earliest of equals; None without one. A pruned or failed trial never is the best."""
    found = [(trial.value, trial) for trial in trials if trial.state == "finished" and trial.value is not None]
    if not found:
        return None
    return min(found, key=lambda pair: (-pair[0] if goal.greater_is_better else pair[0], pair[1].number))[1]


def key(params: Mapping[str, Any]) -> str:
    """What alike settings have in common: 1 and 1.0 are alike, 1 and true are not."""
    return json.dumps({name: _plain(value) for name, value in params.items()}, sort_keys=True)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def write(folder: Path, trial: Trial) -> None:
    """Writes the trial's file, whole or not at all. A figure that is no number is written as a word."""
    values = asdict(trial)
    values["evaluations"] = [[step, value if math.isfinite(value) else str(value)] for step, value in trial.evaluations]
    workspace.write_json(folder / f"{trial.file}.json", values)


def read(folder: Path) -> list[Trial]:
    """The trials of a folder, by number.

    Raises:
        LlmbenchError: a file is damaged.
    """
    found = []
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9].json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            evaluations = tuple((int(step), float(value)) for step, value in values["evaluations"])
            found.append(Trial(**values | {"evaluations": evaluations, "overrides": tuple(values["overrides"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LlmbenchError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Remove that file: its settings are then tried again."
            ) from error
    return found
