"""loss.svg: the loss of every log step and held out, what was answered right, what a method measures, the learning rate."""

from __future__ import annotations

from typing import Any

from llmbench import workspace
from llmbench.recipe import TrainingSpec
from llmbench.runs import Run
from llmbench.runs.best import goal
from llmbench.svg.panels import Curve, Panel, draw
from llmbench.svg.scale import Point
from llmbench.training.loop import figures

__all__ = ["write"]

_MANY = 60
"""Logged steps above which the curve is drawn smoothed, over itself."""


def write(run: Run) -> None:
    """Draws the curves of a run into loss.svg. A run without a logged step gets none."""
    rows = run.metrics()
    train = _points(rows, "loss")
    if not train:
        return
    asked = run.recipe["evaluation"]
    names = [f"eval_{name}" for name in asked["metrics"]] if asked is not None else []
    judged = goal(TrainingSpec.model_validate(run.recipe["training"]))
    best = judged.best(rows) if judged is not None else None
    own = next((name for name in figures.SHOWN if any(name in row for row in rows)), None)
    many = len(train) > _MANY
    loss = [Curve(train, "a", faint=True)] if many else []
    loss.append(Curve(_smooth(train) if many else train, "a", "train, smoothed" if many else "train"))
    loss.append(Curve(_points(rows, "eval_loss"), "b", "held out", dots=True))
    answers = [
        Curve(_points(rows, name), colour, name.removeprefix("eval_"), dots=True)
        for name, colour in zip(names, "abcde" * len(names), strict=False)
    ]
    panels = [
        Panel("loss" if own else "loss (nats per token)", loss, 240, () if min(y for _, y in train) < 0 else (0.0,)),
        Panel("accuracy", answers, 110, (0.0, 1.0)),
        Panel(
            own or "",
            [Curve(_points(rows, own), "a"), Curve(_points(rows, f"eval_{own}"), "b", "held out")] if own else [],
            110,
        ),
        Panel("rate", [Curve(_points(rows, "learning_rate"), "quiet")], 60, (0.0,)),
    ]
    drawn = draw(run.name, panels, at=(float(best[0]), f"best ({best[0]})") if best is not None else None)
    workspace.write_text(run.folder / "loss.svg", drawn)


def _points(rows: list[dict[str, Any]], name: str) -> list[Point]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]


def _smooth(points: list[Point]) -> list[Point]:
    """A running mean over a thirtieth of the curve."""
    width = max(len(points) // 30, 2)
    result = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - width) : i + width + 1]]
        result.append((step, sum(near) / len(near)))
    return result
