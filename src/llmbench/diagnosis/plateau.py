"""Whether the loss goes anywhere: not at all, no longer, or still at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from llmbench.diagnosis import robust
from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "no progress": "The loss at the end is the loss at the start.",
    "plateau": "The loss has not fallen for most of the run, though the rate was there to move it.",
}
_BLOCKS = 10
_FEWEST = 20
_FLAT = 0.7
"""Share of the updates without a fall from which it is worth a note."""
_FALL = 0.02
"""Share of the start that counts as a fall."""
_STILL = 0.05
"""Share of the start that a fall stays below, its error counted in, where nothing was learned."""


def found(of: Traces) -> Iterator[Finding]:
    """Findings about progress."""
    losses = of.losses
    if not of.likelihood or len(losses) < _FEWEST or not any(point.rate > 0 for point in of.points):
        return
    scatter, each = robust.noise(losses), len(losses) // _BLOCKS
    error = robust.level_error(scatter, each) * math.sqrt(2)
    levels = robust.blocks(losses, _BLOCKS, [point.rate for point in of.points]) or robust.blocks(losses, _BLOCKS)
    fell = of.start - levels[-1]
    swing = max(levels) - min(levels)
    if abs(fell) + 2 * error < _STILL * of.start and of.start > 0.05 and swing < max(_STILL * of.start, 6 * error):
        yield Finding(
            "no progress", "error",
            f"The loss was {of.start:.4g} at the start and {levels[-1]:.4g} at the end, after {of.step} steps "
            f"(scatter of a step {scatter:.2g}).",
            "Make sure that what is learned differs from what the model says already, and raise the rate: "
            f"llmbench diagnose {of.name} --lr-range.",
            (f"training.learning_rate={10 * float(of.training['learning_rate']):.2g}",),
            figures={"start": of.start, "end": levels[-1], "scatter": scatter},
        )  # fmt: skip
        return
    yield from _flat(of, levels, error)


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.likelihood and 8 <= len(of.points) < _FEWEST:
        yield f"plateaus: {len(of.points)} losses are known, and {_FEWEST} are needed"


def _flat(of: Traces, levels: list[float], error: float) -> Iterator[Finding]:
    end = levels[-1]
    reached = next(
        i for i, level in enumerate(levels) if all(abs(x - end) <= max(3 * error, _FALL * of.start) for x in levels[i:])
    )
    share = 1 - (reached + 1) / _BLOCKS
    if share < _FLAT or end < 0.25 * of.start:
        return
    weights = [point.rate for point in of.points]
    total, so_far, step = sum(weights), 0.0, of.step
    for point in of.points:
        so_far += point.rate
        if so_far >= total * (reached + 1) / _BLOCKS:
            step = point.step
            break
    yield Finding(
        "plateau", "note",
        f"Since step {step} of {of.step} the loss stays at {end:.4g}: the last {share:.0%} of the updates brought nothing "
        f"that shows in it.",
        "If held-out answers are good enough, stop there. If not, change something else than the length: more varied "
        "rows, a higher "
        "lora.r, or another rate.",
        (f"training.max_steps={step}",), steps=(step,), figures={"level": end, "share": share},
    )  # fmt: skip
