"""loss.svg: the loss of every log step and held out, what was answered right, what a method measures, the learning rate."""

from __future__ import annotations

import io
from typing import Any

from llmbench import workspace
from llmbench.recipe import TrainingSpec
from llmbench.runs import Run
from llmbench.runs.best import goal
from llmbench.training.loop import figures

__all__ = ["write"]

_INK, _GRID, _TRAIN, _EVAL, _RATE = "#1f2430", "#e3e6ec", "#2563eb", "#d9480f", "#64748b"
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}


def write(run: Run) -> None:
    """Draws the curves of a run into loss.svg. A run without a logged step gets none."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = run.metrics()
    train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    held_out = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    rate = [(row["step"], row["learning_rate"]) for row in rows if "learning_rate" in row]
    asked = run.recipe["evaluation"]
    names = [f"eval_{name}" for name in asked["metrics"]] if asked is not None else []
    answers = {name: points for name in names if (points := [(row["step"], row[name]) for row in rows if name in row])}
    judged = goal(TrainingSpec.model_validate(run.recipe["training"]))
    best = judged.best(rows) if judged is not None else None
    if not train:
        return
    style: Any = _STYLE | {"svg.hashsalt": run.name}  # matplotlib types every key of its settings by name
    with matplotlib.rc_context(style):
        own = next((name for name in figures.SHOWN if any(name in row for row in rows)), None)
        more = bool(answers) + (own is not None)
        figure = Figure(figsize=(7.2, 4.2 + 1.4 * more), layout="constrained", facecolor="white")
        panels = figure.subplots(2 + more, 1, sharex=True, height_ratios=(4, *(2,) * more, 1))
        loss, below = panels[0], panels[-1]
        faint = len(train) > 60
        if faint:
            loss.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=1, alpha=0.35)
        shown = _smooth(train) if faint else train
        loss.plot(*zip(*shown, strict=True), color=_TRAIN, linewidth=1.8, label="train, smoothed" if faint else "train")
        if held_out:
            loss.plot(*zip(*held_out, strict=True), color=_EVAL, linewidth=1.8, marker="o", markersize=4, label="held out")
        if best is not None:
            loss.axvline(best[0], color=_INK, linewidth=1, linestyle=":", label=f"best ({best[0]})")
        if answers:
            _answers(panels[1], answers)
        if own is not None:
            _own(panels[-2], own, rows)
        loss.set_ylabel("loss" if own else "loss (nats per token)")
        if min(value for _, value in train) >= 0:  # a policy's loss may be below
            loss.set_ylim(bottom=0)
        loss.set_title(run.name, loc="left", color=_INK, fontweight="bold")
        loss.legend(frameon=False)
        below.plot(*zip(*rate, strict=True), color=_RATE, linewidth=1.5)
        below.set_ylabel("rate")
        below.set_ylim(bottom=0)
        below.set_xlabel("step")
        below.xaxis.get_major_locator().set_params(integer=True)
        for axes in panels:
            axes.grid(color=_GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(colors=_INK, length=0)
            for side in axes.spines.values():
                side.set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    workspace.write_text(run.folder / "loss.svg", drawn.getvalue())


def _answers(axes: Any, curves: dict[str, list[tuple[int, float]]]) -> None:
    """The other metrics of the evaluations, one curve each."""
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), linewidth=1.8, marker="o", markersize=4, label=name.removeprefix("eval_"))
    axes.set_ylabel("share right")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False)


def _own(axes: Any, name: str, rows: list[dict[str, Any]]) -> None:
    """What the method measures beside the loss, in training and held out."""
    for key, color, label in ((name, _TRAIN, None), (f"eval_{name}", _EVAL, "held out")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.5, label=label)
    axes.set_ylabel(name)


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A running mean over a thirtieth of the curve."""
    width = max(len(points) // 30, 2)
    result = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - width) : i + width + 1]]
        result.append((step, sum(near) / len(near)))
    return result
