"""Whether a template wrote a turn's tool calls: each name, each argument and each value, in the text of that turn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["Lost", "nothings", "written"]

_NOTHING = re.compile(r"(?<!\w)(?:None|null)(?!\w)")
_WORD = re.compile(r"\w")


class Lost(NamedTuple):
    """The first part of a call that is not in the text: which call (from 1), its function, and the argument, if it is one."""

    call: int
    name: str
    argument: str | None

    def __str__(self) -> str:
        if self.argument is None:
            return f"call {self.call} ({self.name})"
        return f"argument {self.argument} of call {self.call} ({self.name})"


class _Piece(NamedTuple):
    """A word of a call: the ways in which it may be written, and what it belongs to."""

    pattern: re.Pattern[str]
    lost: Lost


def written(calls: Sequence[dict[str, Any]], text: str) -> int | Lost:
    """Where the last call ends in the text of its turn (all but closing brackets and quotes); or what of them is not there.

    Templates write arguments as JSON, JSON in JSON, XML, Python or YAML, so the words are compared and not the brackets: each
    name, each key and each value (in any of its spellings), in the row's order; or in any order, each as often as the row
    has it, where a template sorts the keys or puts arguments before names.
    """
    pieces = list(_pieces(calls))
    at = 0
    for piece in pieces:
        match = piece.pattern.search(text, at)
        if match is None:
            break
        at = match.end()
    else:
        return at
    lost, needed, ends = piece.lost, dict[str, int](), [0]
    for one in pieces:
        key = one.pattern.pattern
        needed[key] = needed.get(key, 0) + 1
        where = [match.end() for match in one.pattern.finditer(text)]
        if len(where) < needed[key]:
            return one.lost if one.lost.call <= lost.call else lost
        ends.append(where[needed[key] - 1])
    return max(ends)


def _pieces(calls: Sequence[dict[str, Any]]) -> Iterator[_Piece]:
    for number, call in enumerate(calls, 1):
        function = call["function"]
        name = function["name"]
        yield _Piece(_word(name), Lost(number, name, None))
        given = function["arguments"]
        for key, value in (json.loads(given) if isinstance(given, str) else given).items():
            lost = Lost(number, name, key)
            yield _Piece(_word(key), lost)
            yield from (_Piece(pattern, lost) for pattern in _values(value))


def _values(value: Any) -> Iterator[re.Pattern[str]]:
    """The words of a value, however deep."""
    match value:
        case dict():
            for key, item in value.items():
                yield _word(str(key))
                yield from _values(item)
        case list():
            for item in value:
                yield from _values(item)
        case str():
            if value:
                yield _any(*_spellings(value))
        case None:
            yield _any("null", "None", whole=True)
        case bool():
            yield _any(json.dumps(value), str(value), whole=True)
        case _:
            yield _any(json.dumps(value), str(value), whole=True)


def _spellings(text: str) -> list[str]:
    """A text as itself, in JSON, in JSON that is a string of JSON, and in Python."""
    ways = [text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1], repr(text)[1:-1]]
    ways += [json.dumps(way)[1:-1] for way in ways[1:3]]
    return sorted(set(ways), key=len, reverse=True)


def _word(text: str) -> re.Pattern[str]:
    return _any(*_spellings(text), whole=True)


def _any(*ways: str, whole: bool = False) -> re.Pattern[str]:
    """One of several spellings; `whole` not within a longer word or number."""
    found = "|".join(map(re.escape, ways))
    if not whole:
        return re.compile(found)
    before = r"(?<![\w])" if _WORD.match(ways[0][0]) else ""
    after = r"(?!\w|\.\d)" if _WORD.match(ways[0][-1]) else ""
    return re.compile(f"{before}(?:{found}){after}")


def nothings(text: str) -> int:
    """How often a text says None or null, as templates write what is not there."""
    return len(_NOTHING.findall(text))
