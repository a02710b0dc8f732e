"""The first page of a run: the data report of what it is about to learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmbench.data import kept, preferences, vocabulary
from llmbench.data.report import DataReport
from llmbench.runs import Run

if TYPE_CHECKING:
    from llmbench.data import Rows
    from llmbench.recipe import DataSpec
    from llmbench.training.job import Job

__all__ = ["report", "write"]


def report(job: Job) -> DataReport | None:
    """The report of a job's rows, from the cache where `llmbench check` has looked at them."""
    folder = job.recipe.model.tokenizer or job.loaded.folder
    if folder is None:
        return None

    stops = vocabulary.stops(job.loaded.folder)

    def rows(spec: DataSpec) -> Rows:
        if job.recipe.method != "grpo":
            return job.rows
        seed = job.recipe.training.seed
        return preferences.load(
            "grpo", spec, job.loaded.tokenizer, seed=seed, added=job.recipe.tokenizer, stops=stops, as_tokens=True
        )

    return kept.report(job.recipe, Path(folder), rows, stops=stops)


def write(job: Job, run: Run) -> None:
    """Puts data.json and data.html into the run's folder."""
    found = report(job)
    if found is not None:
        kept.write(found, run.folder)
