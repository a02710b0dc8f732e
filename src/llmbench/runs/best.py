"""Which evaluation of a training was the best, and whether the training has stopped getting better.

Both follow from the evaluations alone, as metrics.jsonl and a checkpoint's log hold them, so there is nothing to restore:
a resumed training knows what the one that stopped knew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmbench.recipe import TrainingSpec

__all__ = ["Goal", "goal"]

_LESS_IS_BETTER = ("loss", "perplexity")


@dataclass(frozen=True)
class Goal:
    """What a training is judged by. `metric` is called as in the log: `eval_loss`."""

    metric: str
    greater_is_better: bool
    patience: int | None = None
    threshold: float = 0.0

    def evaluations(self, log: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
        """Step and value of each evaluation. The one before the first step is of the base and does not count."""
        found = {row["step"]: float(row[self.metric]) for row in log if self.metric in row and row["step"] > 0}
        return sorted(found.items())

    def best(self, log: Iterable[Mapping[str, Any]]) -> tuple[int, float] | None:
        """Step and value of the best evaluation, the first one of equals; None before there is any."""
        chosen: tuple[int, float] | None = None
        for step, value in self.evaluations(log):
            if chosen is None or self._gain(value, chosen[1]) > 0:
                chosen = (step, value)
        return chosen

    def exhausted(self, log: Iterable[Mapping[str, Any]]) -> bool:
        """Whether `patience` evaluations in a row gained no more than `threshold` on the best one before them."""
        if self.patience is None:
            return False
        best: float | None = None
        waited = 0
        for _, value in self.evaluations(log):
            waited = 0 if best is None or self._gain(value, best) > self.threshold else waited + 1
            best = value if best is None or self._gain(value, best) > 0 else best
            if waited >= self.patience:
                return True
        return False

    def _gain(self, value: float, other: float) -> float:
        return value - other if self.greater_is_better else other - value


def goal(spec: TrainingSpec) -> Goal | None:
    """What the recipe judges its training by, or None when it keeps the last step whatever it is worth."""
    if spec.metric_for_best_model is None and not spec.load_best_model_at_end and spec.early_stopping_patience is None:
        return None
    name = (spec.metric_for_best_model or "loss").removeprefix("eval_")
    greater = spec.greater_is_better if spec.greater_is_better is not None else not name.endswith(_LESS_IS_BETTER)
    return Goal(f"eval_{name}", greater, spec.early_stopping_patience, spec.early_stopping_threshold)
