"""The run as every process but the first one has it: its folder is read, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llmbench.runs import Run

__all__ = ["Follower"]


class Follower(Run):
    """A run that the first process writes. What this one would write of it is the same, or of itself alone."""

    def log(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def log_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Nothing."""

    def write_lock(self, lock: dict[str, Any]) -> None:
        """Nothing."""

    def drop_metrics_after(self, step: int) -> None:
        """Nothing."""

    def mark(self, state: Any, reason: str = "", **figures: Any) -> None:
        """Nothing."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds no lock: the first process holds it for all."""
        yield
