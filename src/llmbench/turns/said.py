"""One answer as a template wrote it, compared with what the row says: words, thinking, tool calls, and nothing invented."""

from __future__ import annotations

import json
import re

from llmbench.turns import calls
from llmbench.turns.calls import Lost
from llmbench.turns.refusal import OTHER, Refused
from llmbench.turns.signs import Turn
from llmbench.turns.writing import THINKING, Writing

__all__ = ["Met", "check", "reasoning", "thought"]

_TAGS = re.compile(r"</?think>")


class Met:
    """A turn as the model meets it: the text through it, where the answer begins, whether the prompt before that is whole.

    `words` is where its last word ends, and `end` where the turn does: behind the token that closes it, where `closed`. That is
    `next` where it is the first token of the turn behind, which is then put to the end of the text.
    """

    def __init__(self, text: str, base: int, whole: bool) -> None:
        self.text, self.base, self.whole = text, base, whole
        self.words = base
        self.end = len(text)
        self.closed = False
        self.next = ""


def reasoning(turn: Turn) -> str:
    """The thinking that a turn has beside its content, under whichever name."""
    return next((turn[name].strip() for name in THINKING if turn.get(name)), "")


def thought(turn: Turn) -> str | None:
    """The thinking of a turn, be it beside its content or at the head of it in `<think>` tags; None where it has none."""
    content = (turn["content"] or "").strip()
    if reasoning(turn):
        return reasoning(turn)
    if content.startswith("<think>") and "</think>" in content:
        return content.removeprefix("<think>").partition("</think>")[0].strip()
    return None


def check(page: Writing, turn: Turn, i: int, met: Met, place: list[int] | None) -> None:
    """Compares an answer with its turn, and notes where its last word ends.

    Args:
        page: the template.
        turn: what the row says, as it was handed to the template.
        i: the turn's position.
        met: what the template wrote.
        place: where the content is, where signs tell.

    Raises:
        Refused: a part of the turn is not there, or None or null is where the turn has nothing.
    """
    text = met.text
    taken = _words(page, turn, i, met, place)
    made = turn.get("tool_calls") or []
    rest = text[met.base :]
    if not made and "None" not in rest and "null" not in rest:
        met.words = max([met.base, *(end for _, end in taken)])
        return
    for start, end in taken:
        rest = rest[: start - met.base] + "\0" * (end - start) + rest[end - met.base :]
    ends = [end for _, end in taken]
    if made:
        bare = page.token.sub(lambda match: "\0" * len(match[0]), rest)
        where = calls.written(made, bare)
        if isinstance(where, Lost):
            where = calls.written(made, rest)
        if isinstance(where, Lost):
            raise _lost(where, made, rest, i)
        ends.append(met.base + where)
    met.words = max([met.base, *ends])
    if calls.nothings(rest) > calls.nothings(json.dumps(made, ensure_ascii=False)):
        words = f"the chat template renders None or null in turn {i + 1}, where the row has nothing. {OTHER}"
        raise Refused("the chat template renders None", words)


def _words(page: Writing, turn: Turn, i: int, met: Met, place: list[int] | None) -> list[tuple[int, int]]:
    """Where the thinking and the content of a turn are."""
    text, taken, at = met.text, [], met.base
    if thinking := reasoning(turn):
        start = text.find(thinking, at)
        if start < 0:
            raise _missing(f"the thinking (reasoning_content) of turn {i + 1}", page)
        at = start + len(thinking)
        taken.append((start, at))
    content = (turn["content"] or "").strip()
    if not content:
        return taken
    if place is not None and place[0] >= met.base and text[place[0] : place[1]] == content:
        return [*taken, (place[0], place[1])]
    if content in text[met.base :]:
        start = _single(page, content, met, at)
        return [*taken, (start, start + len(content))]
    inside = content.startswith("<think>")
    for piece in filter(None, map(str.strip, _TAGS.split(content))):
        start = text.find(piece, at)
        if start < 0:
            if inside and "</think>" in content:
                raise _missing(f"the thinking (<think> in the content) of turn {i + 1}", page)
            words = f"the chat template does not render what the assistant said in turn {i + 1}. {OTHER}"
            raise Refused("the chat template does not render an answer as it is", words)
        inside = False
        at = start + len(piece)
        taken.append((start, at))
    return taken


def _single(page: Writing, content: str, met: Met, at: int) -> int:
    """Where a content is that may be in the text several times: the last place outside of tokens."""
    first = met.text.find(content, met.base)
    if first == met.text.rfind(content, met.base):
        return first
    bare = page.token.sub(lambda match: "\0" * len(match[0]), met.text)
    found = bare.rfind(content, at)
    return found if found >= 0 else max(met.text.find(content, at), met.text.find(content, met.base))


def _missing(what: str, page: Writing) -> Refused:
    names = " and ".join(f"`{name}`" for name in page.thinking)
    knows = f"it reads {names}, but not here" if names else "it has no field for it"
    words = f"the chat template does not render {what}: {knows}. Leave it out with data.reasoning=drop. {OTHER}"
    return Refused("the chat template does not render the thinking", words)


def _lost(lost: Lost, made: list[dict[str, object]], text: str, i: int) -> Refused:
    name = lost.name
    if lost.call == 1 and lost.argument is None and name not in text:
        words = f"the chat template renders no tool calls ({name}). {OTHER}"
        return Refused("the chat template renders no tool calls", words)
    words = f"the chat template does not render {lost} in turn {i + 1}, which has {len(made)}. {OTHER}"
    return Refused("the chat template omits part of a tool call", words)
