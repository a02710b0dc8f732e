"""LoRA's matrices: B begins at zero, and an adapter whose B stays there does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {"LoRA stays at zero": "B matrices of the adapter are zero after updates, so that the adapter does nothing there."}


def found(of: Traces) -> Iterator[Finding]:
    """Findings about the adapter."""
    rows = [row for row in of.logged if "lora_b" in row]
    moved = [row for row in rows if row["step"] > 2 and any(p.rate > 0 for p in of.points if p.step < row["step"])]
    if not moved:
        return
    still: dict[str, Any] | None = moved[-1].get("lora_b_zero")
    if still is None:
        return
    every = still["count"] == still["of"]
    names = ", ".join(still["names"][:4]) + (f" and {still['count'] - 4} more" if still["count"] > 4 else "")
    yield Finding(
        "LoRA stays at zero", "error" if every else "warning",
        f"{'All' if every else still['count']}{'' if every else ' of'} {still['of']} B matrices are zero at step "
        f"{moved[-1]['step']}: {names}.",
        "Raise the rate, and make sure that rows reach these modules." if every
        else "Leave these modules out of lora.target_modules, or see why no row reaches them.",
        (f"training.learning_rate={10 * float(of.training['learning_rate']):.2g}",) if every else (),
        steps=(moved[-1]["step"],), figures=dict(still),
    )  # fmt: skip


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.recipe.get("lora") and of.points and not of.has("lora_b"):
        yield "whether LoRA's matrices moved: not recorded"
