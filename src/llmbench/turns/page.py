"""A chat template and what is asked of it: rows in, samples out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llmbench.turns.refusal import Refused
from llmbench.turns.row import Row
from llmbench.turns.signs import CODED, HIDDEN, PRIVATE, Turn
from llmbench.turns.writing import THINKING, Writing

__all__ = ["Page"]

_ESCAPED = re.compile(r"\\udb[89a-f][0-9a-f]\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)
_RUNS = re.compile("([\U000f0000-\U000f7fff])\\1*")


class Page(Writing):
    """A template at work.

    A row becomes one sample, or several where the template rewrites earlier turns (as those do that strip the thinking of
    history): each assistant turn is learned exactly once, in the form in which the model meets it when it answers there.
    """

    def samples(self, row: dict[str, Any]) -> dict[str, Any]:
        """The samples of a row: text, the spans that are learned, where turns end, and whose words are where."""
        turns, tools = row["messages"], row["tools"]
        words = "\n".join([turn["content"] or "" for turn in turns])
        if tools or any(len(turn) > 2 for turn in turns):
            words = json.dumps([turns, tools], ensure_ascii=False)
        self.allowed = self.characters + 8 * len(words)
        self.private = PRIVATE.search(words) is not None
        literal = self.special.search(words) is not None and self._in_words(turns) + self._in_words(tools)
        if literal:
            if self.private:
                raise Refused("an invalid character", "contains private-use characters together with control tokens")
            turns, tools = self._hide(turns), self._hide(tools)
        if self.in_parts is None:
            self.in_parts = self._takes_parts()
        found = self._first(turns, tools)
        for sample in found:
            if literal:
                text = sample["text"]
                if _ESCAPED.search(text):
                    words = "the chat template writes a control token that is spelled out in this row as escaped JSON"
                    raise Refused("a control token in the text", f"{words}; remove it from the row")
                sample["coded"] = self._shown(self.special.sub(lambda m: chr(CODED + self.numbers[m[0]]) * len(m[0]), text))
                sample["text"] = self._shown(text)
        return {"samples": found, "control": bool(literal)}

    def _first(self, turns: list[Turn], tools: Any) -> list[dict[str, Any]]:
        """The samples of the first form of the turns that the template writes whole; or the reason of the best refusal."""
        import jinja2

        refused: Exception | None = None
        for form in self._forms(turns):
            try:
                return Row(self, form, tools).samples()
            except Refused as error:
                refused = error if refused is None or not isinstance(refused, Refused) else refused
            except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def _forms(self, turns: list[Turn]) -> Iterator[list[Turn]]:
        """The ways to hand turns to a template. They disagree on the name of the thinking and, where there are tool calls, on
        empty content and on arguments as an object or as text; empty content is tried as a text first, as null is written out.
        """
        reasoned = any("reasoning_content" in turn for turn in turns)
        for name in (self.thinking or THINKING[:1]) if reasoned else THINKING[:1]:
            named = [_named(turn, name) for turn in turns] if reasoned else turns
            if not any("tool_calls" in turn for turn in turns):
                yield named
                continue
            for content, as_text in (("", False), (None, False), ("", True), (None, True)):
                yield [_called(turn, content, as_text) for turn in named]

    def _takes_parts(self) -> bool:
        """Whether content is written only as a list of parts, as templates for pictures have it; engines find out likewise."""
        for content in ("probe", [{"type": "text", "text": "probe"}]):
            if "probe" in self.tried([{"role": "user", "content": content}], None):
                return isinstance(content, list)
        return False

    def _in_words(self, value: Any) -> int:
        """How many control tokens are spelled out in the words of a row."""
        if isinstance(value, str):
            return len(self.special.findall(value))
        if isinstance(value, dict):
            return sum(map(self._in_words, value)) + sum(map(self._in_words, value.values()))
        return sum(map(self._in_words, value)) if isinstance(value, list) else 0

    def _hide(self, value: Any) -> Any:
        """The words with private characters in the place of control tokens, as long as those."""
        if isinstance(value, str):
            return self.special.sub(lambda m: chr(HIDDEN + self.numbers[m[0]]) * len(m[0]), value)
        if isinstance(value, dict):
            return {self._hide(key): self._hide(item) for key, item in value.items()}
        return [self._hide(item) for item in value] if isinstance(value, list) else value

    def _shown(self, text: str) -> str:
        def show(match: re.Match[str]) -> str:
            name: str = self.names[ord(match[1]) - HIDDEN]
            return name * (len(match[0]) // len(name))

        return _RUNS.sub(show, text)


def _named(turn: Turn, name: str) -> Turn:
    if "reasoning_content" not in turn or name == "reasoning_content":
        return turn
    return {(name if key == "reasoning_content" else key): value for key, value in turn.items()}


def _called(turn: Turn, content: str | None, as_text: bool) -> Turn:
    if "tool_calls" not in turn:
        return turn
    calls = turn["tool_calls"]
    if as_text:
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
            for call in calls
        ]
    return turn | {"content": turn["content"] or content, "tool_calls": calls}
