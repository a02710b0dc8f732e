"""The list of all families of findings, and a look through all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from types import ModuleType

from llmbench.diagnosis import adapter, data, evaluation, gradients, plateau, precision, preferences, rate, spikes
from llmbench.diagnosis.finding import Diagnosis, Finding, ranked
from llmbench.diagnosis.recorded import Traces, read
from llmbench.runs import Run

__all__ = ["FAMILIES", "KINDS", "diagnose", "judge", "paired"]

FAMILIES: tuple[ModuleType, ...] = (rate, spikes, plateau, evaluation, gradients, adapter, data, precision, preferences)
"""Each has `KINDS`, `found(recorded)` and `unseen(recorded)`."""
KINDS: dict[str, str] = {name: words for family in FAMILIES for name, words in family.KINDS.items()}
"""Every finding's name, with what it means in a sentence."""
_FEWEST = 8
"""Known losses below which a curve has no shape."""


def diagnose(run: Run) -> Diagnosis:
    """Looks at a run, whatever its state; one that trains is judged by what it has recorded so far.

    Raises:
        RunError: its recipe is missing or damaged.
    """
    return judge(read(run))


def judge(recorded: Traces) -> Diagnosis:
    """The same of records that are read."""
    findings = [one for family in FAMILIES for one in family.found(recorded)]
    unseen = [line for family in FAMILIES for line in family.unseen(recorded)]
    if len(recorded.points) < _FEWEST:
        unseen.insert(0, f"the shape of the loss: {len(recorded.points)} losses are recorded, and {_FEWEST} are needed")
    return Diagnosis(
        recorded.name, str(recorded.status["state"]), recorded.step, ranked(_apart(findings)), tuple(dict.fromkeys(unseen))
    )


def paired(runs: Sequence[Run]) -> list[Finding]:
    """What the held-out losses of every two runs say of their difference, row by row."""
    every = [read(run) for run in runs]
    return [one for a, b in combinations(every, 2) for one in evaluation.between(a, b)]


def _apart(findings: Sequence[Finding]) -> list[Finding]:
    """Without what follows from another finding: a loss that rose is no plateau, and what diverged did not learn by heart."""
    names = {one.name for one in findings}
    hidden = {name for other, names_hidden in _FOLLOWS.items() if other in names for name in names_hidden}
    return [one for one in findings if one.name not in hidden]


_FOLLOWS: dict[str, tuple[str, ...]] = {
    "divergence": ("learning rate too high", "learning rate too low", "plateau", "no progress", "overfitting",
                   "exploding gradients", "clipped throughout"),
    "learning rate too high": ("plateau", "no progress", "clipped throughout"),
    "learning rate zero": ("no progress", "plateau", "LoRA stays at zero", "learning rate too low"),
    "zero gradients": ("no progress", "plateau", "LoRA stays at zero", "vanishing gradients"),
    "LoRA stays at zero": ("no progress", "plateau"),
    "learning rate too low": ("no progress", "plateau"),
    "data order": ("divergence", "learning rate too high"),
    "exploding gradients": ("clipped throughout", "gradient spike"),
    "overfitting": ("memorisation",),
    "duplicates learned by heart": ("memorisation",),
}  # fmt: skip
"""Findings that another one explains."""
