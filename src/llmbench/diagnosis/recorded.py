"""What a run recorded, as a diagnosis reads it: the loss of every step that is known, evaluations, and the data report."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from llmbench.runs import Run

__all__ = ["Point", "Traces", "read"]

_LIKELIHOOD = ("sft", "pretrain", "distillation", "orpo")
"""Methods whose loss is a mean over tokens that starts high and falls; the others have losses of other shapes."""


@dataclass(frozen=True)
class Point:
    """A step, or where only means were logged, the last of its stretch."""

    step: int
    loss: float
    rate: float
    norm: float | None


@dataclass(frozen=True)
class Traces:
    """One run's records, of whatever version of llmbench wrote them."""

    name: str
    status: dict[str, Any]
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    report: dict[str, Any]

    @property
    def training(self) -> dict[str, Any]:
        """The recipe's section of that name."""
        found: dict[str, Any] = self.recipe["training"]
        return found

    @property
    def likelihood(self) -> bool:
        """Whether the loss is a mean negative log-likelihood of tokens."""
        return self.recipe["method"] in _LIKELIHOOD

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.status["state"] == "finished")

    @cached_property
    def logged(self) -> list[dict[str, Any]]:
        """The lines of the training, without those of evaluations."""
        return [row for row in self.metrics if _is(row.get("loss"))]

    @cached_property
    def points(self) -> list[Point]:
        """Every step whose loss is known, or else the mean of each logged stretch; losses that are no number are left out."""
        found: list[Point] = []
        before = 0.0
        for row in self.logged:
            losses = row.get("losses") or [row["loss"]]
            norms = row.get("norms") or [row.get("grad_norm")] * len(losses)
            rate = float(row.get("learning_rate") or 0.0)
            for i, (loss, norm) in enumerate(zip(losses, norms, strict=False)):
                if _is(loss):
                    share = (i + 1) / len(losses)
                    at = rate if len(losses) == 1 else before + share * (rate - before)
                    found.append(Point(row["step"] - len(losses) + i + 1, float(loss), at, float(norm) if _is(norm) else None))
            before = rate
        return found

    @cached_property
    def losses(self) -> list[float]:
        """Of `points`."""
        return [point.loss for point in self.points]

    @cached_property
    def evaluations(self) -> list[tuple[int, float]]:
        """Step and held-out loss, one for each step."""
        return list({row["step"]: float(row["eval_loss"]) for row in self.metrics if _is(row.get("eval_loss"))}.items())

    @cached_property
    def by_row(self) -> dict[int, tuple[list[float], list[float]]]:
        """Step -> the held-out loss and tokens of each row."""
        return {one["step"]: (one["losses"], one["tokens"]) for one in self.held_out}

    @property
    def epochs(self) -> float:
        """How often the data was read."""
        return max((float(row.get("epoch") or 0.0) for row in self.logged), default=0.0)

    @property
    def step(self) -> int:
        """The last step that is known."""
        return max(int(self.status.get("step") or 0), self.metrics[-1]["step"] if self.metrics else 0)

    @cached_property
    def start(self) -> float:
        """The loss at the start: the median of the first steps, before much was learned."""
        return median(self.losses[: max(1, min(3, len(self.losses) // 8))]) if self.losses else math.nan

    @cached_property
    def end(self) -> float:
        """The loss at the end: the median of the last tenth, of at least five steps where there are ten."""
        return median(self.losses[-min(len(self.losses), max(3, len(self.losses) // 10)) :]) if self.losses else math.nan

    def series(self, name: str) -> list[tuple[int, float]]:
        """Step and value of a figure of the training's lines."""
        return [(row["step"], float(row[name])) for row in self.logged if _is(row.get(name))]

    def has(self, name: str) -> bool:
        """Whether any line of the training has this field."""
        return any(name in row for row in self.logged)


def read(run: Run) -> Traces:
    """A run's records.

    Raises:
        RunError: its recipe is missing or damaged.
    """
    try:
        report = json.loads((run.folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = {}
    metrics, held_out = ([row for row in rows if _is(row.get("step"))] for rows in (run.metrics(), run.held_out()))
    return Traces(run.name, run.status, run.recipe, metrics, held_out, report if isinstance(report, dict) else {})


def _is(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
