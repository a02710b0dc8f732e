"""Steps whose loss or gradient stands out, with the rows of their batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from llmbench.diagnosis import robust
from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "loss spike": "Single steps had a loss far above those around them.",
    "gradient spike": "Single steps had a gradient far above those around them, without a spike of the loss.",
}
_WINDOW, _FEWEST = 25, 12
_BEFORE = 12
"""Steps before one whose median it must stand above, too: where a loss falls fast, they lie higher than those around."""
_MANY = 10.0
"""Robust standard deviations (MAD) around the level."""
_TAIL, _SHARE = 4.0, 0.02
"""Times the size that the largest 2 % of all steps reach, upwards or downwards: what has heavy tails has no spikes. The largest
of 4,000 draws of Student's t with 4 degrees of freedom reaches 4 times that in one of six curves."""
_RISE, _OF_RANGE = 0.8, 0.1
"""Shares of the level, and of the way from the highest to the lowest level, by which a spike must stand out besides."""
_SHOWN = 8


def found(of: Traces) -> Iterator[Finding]:
    """Findings about single steps."""
    spikes = _loss(of)
    if spikes:
        yield _spike(of, spikes)
    yield from _gradients(of, {step for step, *_ in spikes})


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    every = int(of.training["logging_steps"])
    if len(of.points) >= 8 and every > 1 and not of.has("losses"):
        yield f"spikes of single steps: only means of {every} steps are recorded (training.logging_steps=1)"
    if _loss(of) and not of.has("spikes"):
        yield "the rows of a spike: they were not noted while it trained, by an earlier version or among too few steps"


def _loss(of: Traces) -> list[tuple[int, float, float]]:
    """Step, loss and the level around it, of each step that stands out."""
    losses = of.losses
    if len(losses) < _FEWEST or not of.likelihood:
        return []
    level = robust.running(losses, _WINDOW)
    rest = [loss - middle for loss, middle in zip(losses, level, strict=True)]
    sizes = sorted(map(abs, rest[len(rest) // 5 :]))  # the fall at the start is steeper than a median follows
    tail = sizes[min(len(sizes) - 1, int((1 - _SHARE) * len(sizes)))] if len(sizes) >= 100 else sizes[-max(3, len(sizes) // 10)]
    span = max(level) - min(level)
    sigma, found = 1.4826 * median(sizes), []
    for i in range(_BEFORE // 2, len(losses)):
        middle = max(level[i], median(losses[max(0, i - _BEFORE) : i]))
        least = max(_MANY * sigma, _TAIL * tail, _RISE * abs(middle), _OF_RANGE * span, 1e-3)
        if losses[i] - middle > least:
            found.append((of.points[i].step, losses[i], middle))
    return found


def _spike(of: Traces, spikes: Sequence[tuple[int, float, float]]) -> Finding:
    recorded: dict[int, dict[str, Any]] = {one["step"]: one for row in of.logged for one in row.get("spikes", ())}
    step, loss, level = max(spikes, key=lambda one: one[1] - one[2])
    rows = Counter(row for number, *_ in spikes for row in recorded.get(number, {}).get("rows", ()))
    again = [row for row, count in rows.items() if count > 1]
    named = again or [str(row) for row in recorded.get(step, {}).get("rows", ())]
    often = f" {len(again)} rows stood in more than one of them." if again and len(spikes) > 1 else ""
    many = f"{len(spikes)} steps stand" if len(spikes) > 1 else f"Step {step} stands"
    worst = f", the worst is step {step} with" if len(spikes) > 1 else " with"
    return Finding(
        "loss spike", "warning",
        f"{many} out above the steps around{worst} a loss of {loss:.4g} where {level:.4g} is usual.{often}",
        "Look at these rows: llmbench check shows them token by token. If they are right, lower the rate or max_grad_norm."
        if named else "Train again with training.logging_steps=1 to have the rows named, or lower the rate.",
        (f"training.max_grad_norm={float(of.training['max_grad_norm']) / 2:g}",),
        steps=tuple(number for number, *_ in spikes[:_SHOWN]), rows=tuple(named[:64]),
        figures={"count": len(spikes), "loss": loss, "usual": level},
    )  # fmt: skip


def _gradients(of: Traces, spiked: set[int]) -> Iterator[Finding]:
    points = [point for point in of.points if point.norm is not None]
    norms = [point.norm for point in points if point.norm is not None]
    if len(norms) < _FEWEST:
        return
    level = robust.running(norms, _WINDOW)
    start = len(norms) // 10
    wild = [
        (point.step, norm, middle)
        for i, (point, norm, middle) in enumerate(zip(points, norms, level, strict=True))
        if i >= start and point.step not in spiked and norm > 30 * middle and norm > 5 * max(norms[:start] or [0.0])
        and norm > 10 * float(of.training["max_grad_norm"])
    ]  # fmt: skip
    if wild:
        step, norm, middle = max(wild, key=lambda one: one[1])
        yield Finding(
            "gradient spike", "warning",
            f"{len(wild)} step{'s have' if len(wild) > 1 else ' has'} a gradient norm far above the others, step "
            f"{step} with {norm:.3g} "
            f"where {middle:.3g} is usual. Clipping to {of.training['max_grad_norm']:g} kept it out of the weights.",
            "Look at what these steps read; a lower adam_beta2 lets the optimizer forget them sooner.",
            ("training.adam_beta2=0.95",), steps=tuple(one[0] for one in wild[:_SHOWN]),
            figures={"count": len(wild), "norm": norm, "usual": middle},
        )  # fmt: skip
