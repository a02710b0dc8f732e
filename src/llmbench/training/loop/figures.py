"""What a method measures beside the loss: which of TRL's figures are kept, and which of them are shown."""

from __future__ import annotations

from typing import Any

__all__ = ["SHOWN", "of", "shown"]

_KEPT = {
    "kl",
    "entropy",
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "accuracy",
    "margin",
    "mean_reward",
    "nll_loss",
    "aux_loss",
}
_GROUPS = ("rewards/", "logps/", "completions/", "clip_ratio/", "log_odds", "sampling/")
SHOWN = {
    "reward": "reward",
    "rewards/margins": "margin",
    "margin": "margin",
    "rewards/accuracies": "accuracy",
    "accuracy": "accuracy",
    "kl": "kl",
    "completions/mean_length": "length",
}
"""The figures of the bar, the lines and the plot, by the name that TRL gives them; the first is plotted."""


def of(logs: dict[str, Any]) -> dict[str, float]:
    """The method's own figures of a log step, as TRL names them; those of an evaluation keep their `eval_`."""
    found = {}
    for key, value in logs.items():
        name = key.removeprefix("eval_")
        if value is not None and (name in _KEPT or name.startswith(_GROUPS)):
            found[key] = float(value)
    return found


def shown(row: dict[str, Any]) -> str:
    """The figures worth a look in a few words, such as `margin 0.31  accuracy 0.75`."""
    return "  ".join(f"{word} {row[name]:.3g}" for name, word in SHOWN.items() if name in row)
