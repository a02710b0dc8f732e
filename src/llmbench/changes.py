"""What a recipe says otherwise than a run's own, and whether the run may be continued with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "differences"]

_MAY_CHANGE = {f"training.{name}" for name in (
    "logging_steps", "save_steps", "save_total_limit", "eval_steps", "per_device_eval_batch_size",
    "early_stopping_patience", "early_stopping_threshold",
)} | {"evaluation.samples_shown"}  # fmt: skip
"""What a resumed run may say otherwise: it changes what is seen and kept, and no step."""
_MAY_GROW = ("training.max_steps", "training.num_train_epochs")
"""What may be made larger. The learning rate follows the longer schedule from there on."""


@dataclass(frozen=True)
class Change:
    """One place of a recipe that says otherwise than the run's own."""

    place: str
    old: Any
    new: Any

    @property
    def allowed(self) -> bool:
        """Whether a run may go on with it."""
        if self.place == "model.attn_implementation":
            return (self.old, self.new) == ("sdpa", "auto")  # what was written down for auto before there was a word for it
        return self.grows or self.place in _MAY_CHANGE or self.place.partition(".")[0] in ("distributed", "tracking")

    @property
    def grows(self) -> bool:
        """Whether it makes the training longer."""
        return self.place in _MAY_GROW and isinstance(self.old, (int, float)) and 0 < self.old < self.new

    def __str__(self) -> str:
        return f"{self.place}: {self.old} -> {self.new}"


def differences(old: dict[str, Any], new: dict[str, Any], place: str = "") -> list[Change]:
    """Dotted places whose values differ."""
    result: list[Change] = []
    for key in sorted(old.keys() | new.keys()):
        a, b, here = old.get(key), new.get(key), f"{place}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            result += differences(a, b, f"{here}.")
        elif a != b:
            result.append(Change(here, a, b))
    return result
