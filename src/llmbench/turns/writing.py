"""A chat template that writes turns, with what is known of it: the ground that a row and its words stand on."""

from __future__ import annotations

import re
from typing import Any

from llmbench.turns.refusal import Limit
from llmbench.turns.sandbox import environment
from llmbench.turns.signs import Turn

__all__ = ["THINKING", "Writing"]

THINKING = ("reasoning_content", "reasoning", "thinking")
"""The names that templates give to what is thought before an answer."""


class Writing:
    """A template, and how it wants its turns."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.env = environment()
        self.templates = {name: self.env.from_string(text) for name, text in setup["templates"].items()}
        source = "\n".join(setup["templates"].values())
        self.marked = bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))
        self.thinking = tuple(name for name in THINKING if re.search(rf"\b{name}\b", source))
        self.variables: dict[str, Any] = setup["variables"]
        self.train_on: str = setup["train_on"]
        self.characters: int = setup["characters"]
        self.allowed = self.characters
        self.private = False
        self.names = sorted(setup["specials"], key=len, reverse=True)
        self.numbers = {special: i for i, special in enumerate(self.names)}
        self.special = _any(self.names)
        self.stops = frozenset(setup["stops"])
        self.token = _any([*setup["tokens"], *setup["stops"]])
        self.endings: dict[tuple[bool, str], tuple[int, str] | None] = {}
        self.nexts: set[str] = set()
        self.in_parts: bool | None = None if re.search(r"\btype\b", source) else False

    def write(self, turns: list[Turn], tools: Any, *, prompt: bool = False, marks: bool = False) -> str:
        """The text of some turns."""
        if self.in_parts:
            turns = [_parted(turn) for turn in turns]
        name = "tool_use" if tools and "tool_use" in self.templates else "default"
        self.env.marking = marks
        text: str = self.templates[name].render(
            messages=turns, tools=tools, documents=None, add_generation_prompt=prompt, **self.variables
        )
        if len(text) > self.allowed:
            raise Limit(f"writes over {self.characters // 2**20} million characters beyond its input")
        return text

    def tried(self, turns: list[Turn], tools: Any, *, prompt: bool = False) -> str:
        """The text of some turns; none where the template does not take them."""
        try:
            return self.write(turns, tools, prompt=prompt)
        except Limit:
            raise
        except Exception:  # a template that looks into the content, or takes no such turn there
            return ""


def _any(texts: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))) or r"(?!)")


def _parted(turn: Turn) -> Turn:
    content = turn["content"]
    return turn | {"content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn
