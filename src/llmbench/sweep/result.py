"""What a sweep found, as a value, and the sweeps of this workspace."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbench import workspace, written
from llmbench.errors import LlmbenchError
from llmbench.sweep import holdout, trial
from llmbench.sweep.claim import Claim
from llmbench.sweep.cluster import PROBE
from llmbench.sweep.trial import Trial

__all__ = ["FILES", "Sweep", "every", "load", "remove"]

FILES = ("recipe.yaml", "plan.json", "best.yaml", "summary.json", "report.html")
"""What a sweep writes beside its folders."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as its folder tells it. `trials` are by number, `keys` the settings in the order of the space.

    `importances` are the shares of the settings in how the objective varies, adding up to 1; empty for too few trials.
    """

    folder: Path
    created: float
    objective: str
    minimizes: bool
    sampler: str
    pruner: str
    keys: tuple[str, ...]
    logarithmic: tuple[str, ...]
    trials: tuple[Trial, ...]
    best: int
    importances: dict[str, float]
    claim: Claim | None
    notes: tuple[str, ...] = ()
    confirmations: tuple[Trial, ...] = ()
    """The trainings that checked winners."""

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.folder.name

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.folder / "report.html"

    @property
    def winner(self) -> Trial:
        """The best trial."""
        return next(one for one in self.trials if one.number == self.best)

    @property
    def ranked(self) -> list[Trial]:
        """The trials, best first; then pruned ones and failed ones by number."""
        order = {"finished": 0, "pruned": 1, "failed": 2, "running": 3}

        def place(one: Trial) -> tuple[int, float, int]:
            value = 0.0 if one.value is None else one.value if self.minimizes else -one.value
            return order[one.state], value, one.number

        return sorted(self.trials, key=place)

    def verdict(self) -> str:
        """The winner, and what is known of it, in a sentence or two."""
        settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in self.winner.params.items())
        many = f"{len(self.trials)} trial{'s' if len(self.trials) > 1 else ''}"
        text = f"Best of {many}: trial {self.best} with {self.objective} {self.winner.value:.4g} ({settings})."
        return f"{text} {self.claim.sentence()}" if self.claim else text

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        values = {key: value for key, value in vars(self).items() if key not in ("folder", "trials", "claim")}
        return values | {
            "name": self.name,
            "verdict": self.verdict(),
            "trials": [_plain(one) for one in self.trials],
            "confirmations": [_plain(one) for one in self.confirmations],
            "claim": self.claim.to_json() if self.claim else None,
            "files": {"report": str(self.report), "best": str(self.folder / "best.yaml")},
        }

    @staticmethod
    def from_json(folder: Path, values: dict[str, Any], trials: list[Trial], confirmations: list[Trial]) -> Sweep:
        """The inverse of `to_json`; the trials come from their own files."""
        left = {key: value for key, value in values.items() if key not in ("name", "verdict", "files")}
        return Sweep(
            **left
            | {
                "folder": folder,
                "keys": tuple(left["keys"]),
                "logarithmic": tuple(left["logarithmic"]),
                "notes": tuple(left["notes"]),
                "trials": tuple(one for one in trials if one.state != "running"),
                "confirmations": tuple(confirmations),
                "claim": Claim.from_json(left["claim"]) if left["claim"] else None,
            }
        )


def _plain(one: Trial) -> dict[str, Any]:
    """A trial as JSON has it, which knows no figure that is no number: there it is a word."""
    evaluations = [[step, value if math.isfinite(value) else str(value)] for step, value in one.evaluations]
    return asdict(one) | {"evaluations": evaluations}


def load(name: str) -> Sweep:
    """A sweep that has finished once.

    Raises:
        LlmbenchError: there is none of this name, or its files are damaged.
    """
    folder = workspace.sweeps() / workspace.check_name(name, "sweep")
    path = folder / "summary.json"
    if not path.exists():
        known = ", ".join(_names()) or "none yet"
        raise LlmbenchError(f"There is no finished sweep {name} (available: {known}). Make one: llmbench sweep RECIPE")
    try:
        trials, confirmations = trial.read(folder / "trials"), trial.read(folder / "confirm")
        return Sweep.from_json(folder, json.loads(path.read_text(encoding="utf-8")), trials, confirmations)
    except (ValueError, TypeError, KeyError, StopIteration) as error:
        raise LlmbenchError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Run llmbench sweep again: the trials are saved."
        ) from error


def every() -> list[Sweep]:
    """All finished sweeps that can be read, the newest first."""
    found = []
    for name in _names():
        with suppress(LlmbenchError):  # one that is damaged must not hide the rest; `load` says what is wrong with it
            found.append(load(name))
    return sorted(found, key=lambda sweep: sweep.created, reverse=True)


def remove(name: str) -> None:
    """Removes a sweep's folder, finished or not. The runs of its trials stay.

    Raises:
        LlmbenchError: there is none of this name, one of its trainings runs, or its folder holds something that llmbench did
            not write; nothing was changed.
    """
    from llmbench.runs import Run
    from llmbench.sweep.process import TrainingProcess

    folder = workspace.sweeps() / workspace.check_name(name, "sweep")
    if not (folder / "plan.json").exists() and written.made_by(folder, "sweep") is None:
        raise LlmbenchError(f"There is no sweep {name} (available: {', '.join(_names()) or 'none yet'}).")
    written.check_claim(folder, "sweep", known=written.shows(folder / "plan.json", "space", "recipe"))
    with workspace.lock(folder, "sweep"):
        ours = [*FILES, written.RECORD, ".lock", PROBE, "confirm/looks.json"]
        for part in ("trials", "confirm"):
            for one in trial.read(folder / part):
                if TrainingProcess(folder / part, one.file, Run(workspace.runs() / one.run)).alive:
                    raise LlmbenchError(
                        f"Run {one.run} of sweep {name} is training. Stop it first: llmbench runs stop {one.run}"
                    )
                ours += [f"{part}/{one.file}.{end}" for end in ("json", "log", "lock")]
        ours += [f"data/{path.name}" for path in folder.glob("data/*") if re.fullmatch(holdout.FILE, path.name)]
        written.refuse(folder, ours)
        written.remove(folder, ours)


def _names() -> list[str]:
    return sorted(path.parent.name for path in workspace.sweeps().glob("*/summary.json"))
