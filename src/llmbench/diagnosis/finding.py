"""A finding, and all of them about a run, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Diagnosis", "Finding", "Severity"]

Severity = Literal["error", "warning", "note"]
"""error: the result is harmed or missing. warning: look at it before the result is used. note: know it; it is no alarm."""
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth to know."""

    name: str
    """The field's word for it, one of `KINDS`."""
    severity: Severity
    evidence: str
    """What was seen, with its figures, in a sentence."""
    next: str
    """What to try, in a sentence."""
    change: tuple[str, ...] = ()
    """The same as overrides of the recipe, such as `training.learning_rate=1e-4`; empty where it is no matter of the recipe."""
    steps: tuple[int, ...] = ()
    """Where it shows in the curves."""
    rows: tuple[str, ...] = ()
    """The rows of the data that it is about, as `file:line`."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The figures of the evidence, for programs."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a run, the gravest first, and what could not be looked at."""

    run: str
    state: str
    step: int
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...]
    """Questions that the run's records do not answer, each with the reason."""

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Errors and warnings."""
        return tuple(one for one in self.findings if one.severity != "note")

    @property
    def verdict(self) -> str:
        """All of it in a few words."""
        counts = [(sum(one.severity == level for one in self.findings), level) for level in _ORDER]
        words = [f"{count} {level}{'s' * (count != 1)}" for count, level in counts if count]
        return ", ".join(words) if words else "no problems found"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "run": self.run,
            "state": self.state,
            "step": self.step,
            "verdict": self.verdict,
            "findings": [{**asdict(one), "change": list(one.change)} for one in self.findings],
            "not_looked_at": list(self.unseen),
        }


def ranked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The gravest first, otherwise in their order."""
    return tuple(sorted(findings, key=lambda one: _ORDER.index(one.severity)))
