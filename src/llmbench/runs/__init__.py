"""Runs: a folder for each training, its checkpoints, and which evaluation was the best."""

from llmbench.runs.resuming import changes, resume, rewind
from llmbench.runs.run import Run, check, check_removal, create, every, open_run, remove, resolved

__all__ = [
    "Run",
    "best",
    "changes",
    "check",
    "check_removal",
    "checkpoints",
    "create",
    "diff",
    "every",
    "ingredients",
    "labels",
    "lineage",
    "made",
    "open_run",
    "remove",
    "resolved",
    "resume",
    "rewind",
]
