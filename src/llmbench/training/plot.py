"""loss.svg: the loss of every log step, the held-out loss, what the method measures beside it, and the learning rate."""

from __future__ import annotations

import io
from typing import Any

from llmbench import workspace
from llmbench.runs import Run
from llmbench.training import figures

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
    if not train:
        return
    style: Any = _STYLE | {"svg.hashsalt": run.name}  # matplotlib types every key of its settings by name
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained", facecolor="white")
        own = next((name for name in figures.SHOWN if any(name in row for row in rows)), None)
        panels = figure.subplots(2 + (own is not None), 1, sharex=True, height_ratios=(4, 2, 1) if own else (4, 1))
        loss, below = panels[0], panels[-1]
        faint = len(train) > 60
        if faint:
            loss.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=1, alpha=0.35)
        shown = _smooth(train) if faint else train
        loss.plot(*zip(*shown, strict=True), color=_TRAIN, linewidth=1.8, label="train, smoothed" if faint else "train")
        if held_out:
            loss.plot(*zip(*held_out, strict=True), color=_EVAL, linewidth=1.8, marker="o", markersize=4, label="held out")
        if own is not None:
            for name, color, label in ((own, _TRAIN, None), (f"eval_{own}", _EVAL, "held out")):
                points = [(row["step"], row[name]) for row in rows if name in row]
                if points:
                    panels[1].plot(*zip(*points, strict=True), color=color, linewidth=1.5, label=label)
            panels[1].set_ylabel(own)
        loss.set_ylabel("loss" if own else "loss (nats per token)")
        if min(value for _, value in train) >= 0:  # a policy's loss may be below
            loss.set_ylim(bottom=0)
        loss.set_title(run.name, loc="left", color=_INK, fontweight="bold")
        loss.legend(frameon=False)
        below.plot(*zip(*rate, strict=True), color=_RATE, linewidth=1.5)
        below.set_ylabel("rate")
        below.set_ylim(bottom=0)
        below.set_xlabel("step")
        for axes in panels:
            axes.grid(color=_GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(colors=_INK, length=0)
            for side in axes.spines.values():
                side.set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    workspace.write_text(run.folder / "loss.svg", drawn.getvalue())


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A running mean over a thirtieth of the curve."""
    width = max(len(points) // 30, 2)
    result = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - width) : i + width + 1]]
        result.append((step, sum(near) / len(near)))
    return result
