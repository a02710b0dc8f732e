"""A row whose answers are judged, marked or still to be written, as it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Conversation", "Example", "Turn"]

Turn = dict[str, Any]
Conversation = list[Turn]


@dataclass(frozen=True)
class Example:
    """One row: a prompt, and the answers to it that were judged (chosen, rejected), or one with its label, or none."""

    place: str
    prompt: Conversation
    answers: tuple[Turn, ...] = ()
    label: bool | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """For prompts: the columns that reward functions may read."""
    origin: tuple[int, int] = (-1, -1)
    """Its source's number in the recipe, and its line or row number there."""
    tools: list[dict[str, Any]] | None = None
    """What the assistant may call."""
