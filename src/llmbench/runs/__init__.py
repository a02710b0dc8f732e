"""Runs: a folder for each training, its checkpoints, and which evaluation was the best."""

from llmbench.runs.resuming import changes, resume, rewind
from llmbench.runs.run import Run, check, create, every, open_run, remove, resolved

__all__ = [
    "Run",
    "best",
    "changes",
    "check",
    "checkpoints",
    "create",
    "diff",
    "every",
    "ingredients",
    "open_run",
    "remove",
    "resolved",
    "resume",
    "rewind",
]
