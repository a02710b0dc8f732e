"""Numbers of 16 bits: steps that were skipped because a gradient overflowed, and updates too small to be held."""

from __future__ import annotations

from collections.abc import Iterator

from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "skipped steps": "Gradients overflowed in 16 bits, and their steps were left out.",
    "updates lost to rounding": "Weights are held in 16 bits, and an update is less than half of what separates two of "
    "their values.",
}
_SKIPPED = 0.02
"""Share of the steps. A loss scale that is tried out costs two or three steps in each 2,000 (torch.amp.GradScaler)."""
_BITS = {"bfloat16": 8, "float16": 11}
"""Bits of the significand, the hidden one counted: neighbours lie 2^(1 - bits) of their size apart, or half of that."""


def found(of: Traces) -> Iterator[Finding]:
    """Findings about precision."""
    skipped = sum(int(row.get("skipped") or 0) for row in of.logged)
    if skipped > max(3, _SKIPPED * of.step):
        at = [row["step"] for row in of.logged if row.get("skipped")]
        yield Finding(
            "skipped steps", "warning",
            f"{skipped} of {of.step} steps had a gradient that is infinite or NaN in 16 bits and were not taken, the "
            f"last before step {at[-1]}.",
            "Train in bfloat16, which has float32's range, or in float32.", ("model.dtype=bfloat16",),
            steps=tuple(at[:8]), figures={"skipped": skipped, "steps": of.step},
        )  # fmt: skip
    yield from _lost(of)


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.points and not of.has("layers"):
        yield "mixed precision: skipped steps and the precision of trained weights are not recorded"


def _lost(of: Traces) -> Iterator[Finding]:
    """AdamW, Lion and Muon move a weight by about the rate: beside the weight's own spacing that may be nothing."""
    rows = [row for row in of.logged if row.get("half_rms")]
    if not rows or of.training["optim"] in ("sgd", "adafactor"):
        return
    size, kind = float(rows[-1]["half_rms"]), str(rows[-1].get("half_dtype", "bfloat16"))
    rate = max((point.rate for point in of.points), default=0.0)
    least = size * 2.0 ** -_BITS[kind] / 2
    if 0 < rate < least:
        yield Finding(
            "updates lost to rounding", "error",
            f"Trained weights are {kind} and of size {size:.2g} (root mean square); an update of the rate, {rate:.2g}, "
            f"is below {least:.1g}, "
            "half of the least that separates two values there: most updates are rounded away.",
            "Hold the trained weights in float32, train an adapter (held in float32), or raise the rate.",
            ("model.dtype=float32",),
            figures={"weights": size, "rate": rate, "least": least},
        )  # fmt: skip
