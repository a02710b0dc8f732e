"""Runs: a folder for each training, its checkpoints, and which evaluation was the best."""

from llmbench.runs.run import Run, changes, check, create, every, open_run, remove, resolved, resume

__all__ = ["Run", "best", "changes", "check", "checkpoints", "create", "every", "open_run", "remove", "resolved", "resume"]
