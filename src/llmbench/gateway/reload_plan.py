"""What a reload of the serving document changes, and what of it needs a new start."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from llmbench.recipe import ServeRecipe

__all__ = ["LIVE", "ReloadPlan", "fixed"]

LIVE = {
    "engine": ("restarts",),
    "gateway": ("api_key", "allowed_hosts", "max_requests", "max_waiting", "shutdown_timeout"),
}
"""Fields of a document's sections that a reload applies; the others need a new start."""


@dataclass
class ReloadPlan:
    """What a document changes, by the variants' names."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    """Fields that need a new start of the server, such as `engine.dtype`."""
    refused: dict[str, str] = field(default_factory=dict)
    """Variants and routes that cannot be served as the document says, with the reason."""
    routes_added: list[str] = field(default_factory=list)
    routes_removed: list[str] = field(default_factory=list)
    routes_changed: list[str] = field(default_factory=list)
    engines_added: list[str] = field(default_factory=list)
    engines_removed: list[str] = field(default_factory=list)
    engines_waiting: dict[str, str] = field(default_factory=dict)
    """Engines that were added and do not answer yet, with the reason; they join when they do."""

    @property
    def complete(self) -> bool:
        """Whether the server is as the document says once the rest is done."""
        return not self.restart and not self.refused

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def fixed(before: ServeRecipe, after: ServeRecipe) -> list[str]:
    """The fields that differ and need a new start. `engine.urls` does only where it had none, or has none any more."""
    found = []
    live = {f"{section}.{name}" for section, names in LIVE.items() for name in names}
    if before.engine.urls and after.engine.urls:
        live.add("engine.urls")
    for section in ("model", "engine", "gateway"):
        old, new = getattr(before, section), getattr(after, section)
        found += [f"{section}.{name}" for name in type(old).model_fields if getattr(old, name) != getattr(new, name)]
    return [name for name in found if name not in live]
