"""Questions on their way from another harness's tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DraftedQuestions", "NotMapped"]


@dataclass(frozen=True)
class NotMapped:
    """Something of a test that no metric stands for: where, what, and why."""

    where: str
    what: str
    why: str


@dataclass
class DraftedQuestions:
    """Rows, metrics and the account, as they grow."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    not_mapped: list[NotMapped] = field(default_factory=list)

    def leave(self, where: str, what: str, why: str) -> None:
        """Notes what is not mapped, once."""
        one = NotMapped(where, what, why)
        if one not in self.not_mapped:
            self.not_mapped.append(one)

    def measure(self, metric: Any) -> None:
        """Adds a metric, once."""
        if metric not in self.metrics:
            self.metrics.append(metric)
