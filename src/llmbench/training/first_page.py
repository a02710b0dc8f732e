"""The first page of a run: the data report of what it is about to learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmbench.data import kept
from llmbench.data.report import DataReport
from llmbench.runs import Run

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["report", "write"]


def report(job: Job) -> DataReport | None:
    """The report of a job's rows, from the cache where `llmbench check` has looked at them; None of prompts without answers."""
    folder = job.recipe.model.tokenizer or job.loaded.folder
    if folder is None or "prompt" in job.rows.train.column_names:
        return None
    return kept.report(job.recipe, Path(folder), lambda spec: job.rows)


def write(job: Job, run: Run) -> None:
    """Puts data.json and data.html into the run's folder."""
    found = report(job)
    if found is not None:
        kept.write(found, run.folder)
