"""What a comparison says of itself as an experiment: its factors and their effects, repeats and their noise, whose passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llmbench.statistics import FactorEffect, Noise

__all__ = ["Experiment"]


@dataclass(frozen=True)
class Experiment:
    """How the variants differ, and what of the figures is theirs.

    `levels` is variant -> factor -> level, empty where they make no grid. `noise` is metric -> variant -> what repeats show.
    `passages` says whose passages were given, `engines` what answered, such as `vllm 0.32.0`.
    """

    levels: dict[str, dict[str, str]] = field(default_factory=dict)
    effects: tuple[FactorEffect, ...] = ()
    noise: dict[str, dict[str, Noise]] = field(default_factory=dict)
    repeats: int = 1
    passages: str = ""
    engines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, metric: str) -> list[FactorEffect]:
        """The effects on one metric."""
        return [one for one in self.effects if one.metric == metric]

    def to_json(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Experiment:
        """The inverse of `to_json`."""
        made = dict(values)
        made["effects"] = tuple(
            FactorEffect(**one | {key: tuple(one[key]) for key in ("factors", "levels", "references")})
            for one in values["effects"]
        )
        made["noise"] = {name: {v: Noise(**one) for v, one in of.items()} for name, of in values["noise"].items()}
        return Experiment(**made | {key: tuple(values[key]) for key in ("engines", "notes")})
