"""What a method is about to do, in the lines that a user reads before the training begins."""

from __future__ import annotations

from llmbench.training import methods
from llmbench.training.job import Job
from llmbench.training.loading import adapter

__all__ = ["adapter_lines", "lines"]


def lines(job: Job) -> list[str]:
    """The method's settings, its reference and what to know about its result; nothing for supervised fine-tuning."""
    return methods.of(job.recipe.method).plan(job)


def adapter_lines(job: Job) -> list[str]:
    """Which modules have an adapter, by name and number, and what of the model has none and why."""
    recipe = job.recipe
    if not recipe.adapts or (recipe.adapter is not None and recipe.adapter.type == "prompt_tuning"):
        return []
    counts, size = adapter.adapted(job.loaded.model)
    named = ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))
    lines = [f"  adapts  {sum(counts.values())} modules: {named} ({size:,} parameters)"]
    for left in job.loaded.left_out:
        what = f"{', '.join(left.names)} x{left.count} ({left.parameters:,} parameters)"
        lines.append(f"  skips   {what}: {left.reason}")
    return lines
