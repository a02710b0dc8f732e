"""What a learning-rate range test says: where the loss begins to fall, where it falls fastest, and where it turns up.

After Smith 2015 (arXiv 1506.01186). The loss of a step is noisy, so it is smoothed over the logarithm of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from llmbench.diagnosis import robust
from llmbench.svg.panels import Curve, Panel, draw

__all__ = ["RateRange", "picture", "read_range"]

_FEWEST = 20
_BASE = 6
"""The first sixth of the steps has rates too low to do anything: the level that the fall is measured from."""
_TURNED = 0.1
"""Share of the fall by which the smoothed loss must rise above its lowest to have turned up."""
_SAFE = 4.0
"""The suggestion stays below the rate of the lowest loss by this factor: what is well for a step or two is too high for a whole
training."""


@dataclass(frozen=True)
class RateRange:
    """The smoothed curve, and the rates that it names; None for one that the test did not reach."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    falls: float | None
    """Where the loss has fallen by a tenth of its whole fall."""
    steepest: float | None
    lowest: float | None
    """Where it is lowest."""
    turns: float | None
    """Where it has turned up."""
    suggested: float | None
    problem: str = ""
    """Why nothing is suggested."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "falls_from": self.falls, "steepest": self.steepest, "lowest": self.lowest, "turns_up": self.turns,
            "suggested": self.suggested, "problem": self.problem, "rates": list(self.rates), "losses": list(self.losses),
            "smooth": list(self.smooth),
        }  # fmt: skip


def read_range(points: Sequence[tuple[float, float]]) -> RateRange:
    """Reads (rate, loss) of a test, the rates rising by a constant factor."""
    rates, losses = tuple(rate for rate, _ in points), tuple(loss for _, loss in points)
    if len(points) < _FEWEST:
        return RateRange(
            rates, losses, losses, None, None, None, None, None, "the loss was no number before 20 steps were done"
        )
    smooth = _smooth(losses)
    base = median(losses[: len(losses) // _BASE])
    at = min(range(len(smooth)), key=lambda i: smooth[i])
    fall, scatter = base - smooth[at], robust.noise(losses)
    if fall < max(0.02 * base, robust.level_error(scatter, 5)):
        why = "the loss fell at no rate of the range: it may be too low all over, or the model knows these rows already"
        return RateRange(rates, losses, smooth, None, None, None, None, None, why)
    begins = next(i for i in range(len(smooth)) if smooth[i] <= base - 0.1 * fall and i >= len(losses) // _BASE // 2)
    begins = min(begins, at)
    reach = max(len(smooth) // 20, 1)
    slopes = {i: smooth[min(i + reach, at)] - smooth[max(i - reach, 0)] for i in range(begins, at + 1)}
    steep = min(slopes, key=lambda i: slopes[i])
    turned = next((i for i in range(at, len(smooth)) if smooth[i] > smooth[at] + _TURNED * fall), None)
    suggested = min(rates[steep], rates[at] / _SAFE)
    return RateRange(
        rates, losses, smooth, rates[begins], rates[steep], rates[at], rates[turned] if turned is not None else None,
        float(f"{suggested:.1e}"),
    )  # fmt: skip


def _smooth(losses: Sequence[float]) -> tuple[float, ...]:
    """A running median against single batches, then a triangle over a fifteenth of the range."""
    calm, half = robust.running(losses, 5), max(2, len(losses) // 15)
    found = []
    for i in range(len(calm)):
        parts = [(half + 1 - abs(j - i), calm[j]) for j in range(max(0, i - half), min(len(calm), i + half + 1))]
        found.append(sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts))
    return tuple(found)


def picture(name: str, found: RateRange) -> str:
    """The curve as an SVG file; what rises far above the start is cut, so that the fall can be seen."""
    most = 1.5 * max(found.smooth[: max(1, len(found.smooth) // 2)], default=1.0)
    logs = [math.log10(rate) for rate in found.rates]
    curves = [
        Curve([(x, min(y, most)) for x, y in zip(logs, found.losses, strict=True)], "a", "each step", faint=True),
        Curve([(x, min(y, most)) for x, y in zip(logs, found.smooth, strict=True)], "a", "smoothed"),
    ]
    at = (math.log10(found.suggested), f"suggested: {found.suggested:g}") if found.suggested else None
    return draw(
        f"{name}: loss over the learning rate", [Panel("loss", curves, 240)], x="learning rate, as a power of ten", at=at
    )
