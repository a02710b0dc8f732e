"""Open models by their configurations: what `llmbench advise` chooses among."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from llmbench.estimate import shapes

__all__ = ["Candidate", "every", "families", "licences"]


@dataclass(frozen=True)
class Candidate:
    """A model that anybody may download."""

    name: str
    """On the hub."""
    family: str
    licence: str
    """As the hub abbreviates it: `apache-2.0`, `llama3.2`, `gemma`."""
    released: str
    """Year and month."""
    parameters: int
    """As stated; those of the text part, where it also sees."""
    source: str
    """Where each figure was read."""
    config: dict[str, Any]
    """What of its config.json counts."""

    @property
    def context(self) -> int:
        """Tokens that it reads at most, without stretching its positions."""
        most: int = self.config["max_position_embeddings"]
        return most

    @cached_property
    def shape(self) -> shapes.Shape:
        """Its widths."""
        return shapes.of(None, self.config)


@cache
def every() -> tuple[Candidate, ...]:
    """All models of the catalogue, by family and size."""
    read = json.loads((files("llmbench.estimate") / "models.json").read_text(encoding="utf-8"))
    return tuple(Candidate(**one) for one in read["models"])


def families() -> list[str]:
    """The families of the catalogue."""
    return sorted({model.family for model in every()})


def licences() -> list[str]:
    """The licences of the catalogue."""
    return sorted({model.licence for model in every()})
