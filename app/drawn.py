"""A Markdown document drawn as the answers are, with passages of its source marked in it.

A passage is a span of the source, and what is drawn has lost its offsets. So a boundary is carried through the drawing by a
character that no text holds, put into the source of its block; where that would change how the block is drawn (inside a
fence's first line, beside emphasis), the nearest place is taken where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape, unescape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from .hits import marked
from .prose import markdown, plain

__all__ = ["MOST", "Span", "drawn"]

MOST = 300_000
"""Characters of a document up to which it is drawn."""
Span = tuple[int, int, bool]
"""Start and end in the source, and whether it is the chosen one. Spans are in order and do not overlap."""

_CHOSEN, _OTHER, _END = "\ufdd0", "\ufdd1", "\ufdd2"
"""Noncharacters: Unicode keeps them for a program's own use."""
_SIGNS = re.compile("[\ufdd0-\ufdd2]")
_FRONT = re.compile(r"\A---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_PREFIX = re.compile(r"[ \t]*(?:(?:>|[-*+]|\d{1,9}[.)]|#{1,6}|\|)[ \t]*)*(?:\[[ xX]\][ \t]+)?")
_WHOLE = r'<div class="code-head">.*?</div>|<span class="math[^>]*>.*?</math></span>'
_PIECES = re.compile(rf"({_WHOLE}|<[^>]*>)", re.DOTALL)
_TRIES = 12
"""Words that a boundary may be moved by before its whole block is marked."""


@dataclass(frozen=True)
class _Block:
    """A paragraph, list, table, ...: where it is in the source, and how it is drawn without marks."""

    start: int
    end: int
    html: str


def drawn(text: str, spans: Sequence[Span], *, words: Sequence[str] = ()) -> str | None:
    """The document as inert HTML, the spans in `<mark>`; None for one that is shown as text: too long, or of odd characters."""
    if len(text) > MOST or "\r" in text or _SIGNS.search(text):
        return None
    front = _FRONT.match(text)
    at = front.end() if front else 0
    head = ""
    if front:
        state = next((chosen for start, end, chosen in spans if start < at and end > 0), None)
        head, _ = _wrapped(f'<pre class="front"><code>{plain(front[1])}</code></pre>', _sign(state), words)
    parts = [head]
    for block in _blocks(text, at):
        inside = [
            (max(a, block.start), min(b, block.end), chosen) for a, b, chosen in spans if a < block.end and b > block.start
        ]
        inside = [(a, b, chosen) for a, b, chosen in inside if text[a:b].strip()]
        parts.append(_marked(text, block, inside, words) if inside else block.html)
    return "".join(parts)


def _blocks(text: str, at: int) -> Iterator[_Block]:
    """The blocks from an offset on, in order."""
    lines = [at]
    for line in text[at:].split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    group: list[Token] = []
    for token in _parser().parse(text[at:], {"passages": frozenset()}):
        group.append(token)
        if token.level == 0 and token.nesting <= 0:
            first, last = next((one.map for one in group if one.map), (0, 0))
            yield _Block(lines[first], min(lines[last], len(text)), _html(group))
            group = []


def _html(tokens: list[Token], *, colours: bool = True) -> str:
    md = _parser()
    html: str = md.renderer.render(tokens, md.options, {"passages": frozenset(), "plain": not colours})
    return html


def _parser() -> MarkdownIt:
    return markdown(breaks=False)  # documents are folded at any width


def _redrawn(source: str, *, colours: bool) -> str:
    return _html(_parser().parse(source, {"passages": frozenset()}), colours=colours)


def _marked(text: str, block: _Block, spans: Sequence[Span], words: Sequence[str]) -> str:
    """One block with its part of the spans marked."""
    whole = text[block.start : block.end]
    if len(spans) == 1 and not whole[: spans[0][0] - block.start].strip() and not whole[spans[0][1] - block.start :].strip():
        return _wrapped(block.html, _sign(spans[0][2]), words)[0]
    colours = '<div class="code"' not in block.html  # a boundary inside code would be coloured as a fault
    bare = _redrawn(whole, colours=colours)
    source: str | None = whole if colours is False or bare == block.html else None
    for start, end, chosen in reversed(spans):
        source = source and _signed(source, end - block.start, _END, bare, colours=colours)
        source = source and _signed(source, start - block.start, _sign(chosen), bare, colours=colours)
    if source:
        return _wrapped(_redrawn(source, colours=colours), "", words)[0]
    return _wrapped(block.html, _sign(any(chosen for *_, chosen in spans)), words)[0]


def _sign(chosen: bool | None) -> str:
    return "" if chosen is None else _CHOSEN if chosen else _OTHER


def _signed(source: str, offset: int, sign: str, bare: str, *, colours: bool) -> str | None:
    """The source with the sign at the offset, or at the nearest place where it changes nothing of the `bare` drawing; None
    without such a place.
    """
    for place in _places(source, offset, back=sign == _END):
        signed = source[:place] + sign + source[place:]
        html = _redrawn(signed, colours=colours)
        if sign in _PIECES.sub("", html) and _SIGNS.sub("", html) == bare:
            return signed
    return None


def _places(source: str, offset: int, *, back: bool) -> Iterator[int]:
    """Where a boundary may be: at its offset, or behind the marks that begin its line, or at a word near it."""
    if back:
        end = len(source[:offset].rstrip())
        yield end
        ends = [match.end() for match in re.finditer(r"\w+", source[:end])]
        yield from reversed(ends[-_TRIES:])
        return
    line = source.rfind("\n", 0, offset) + 1
    prefix = _PREFIX.match(source, line)
    yield max(offset, prefix.end() if prefix else offset)
    starts = (match.start() for match in re.finditer(r"\w+", source[offset:]))
    for start, _ in zip(starts, range(_TRIES), strict=False):
        yield offset + start


def _wrapped(html: str, state: str, words: Sequence[str]) -> tuple[str, str]:
    """The HTML with each run of text between the signs in a mark; and the sign that holds at its end."""
    parts = []
    for n, piece in enumerate(_PIECES.split(html)):
        if n % 2:  # a tag, a formula, or the head of a block of code
            formula = piece.startswith('<span class="math')
            parts.append(f'<mark class="{_kind(state)}">{piece}</mark>' if formula and state else piece)
            continue
        for run in re.split("([\ufdd0-\ufdd2])", piece):
            if _SIGNS.fullmatch(run):
                state = "" if run == _END else run
            elif state and run.strip():
                inside = marked(unescape(run), words) if state == _CHOSEN else escape(unescape(run), quote=False)
                parts.append(f'<mark class="{_kind(state)}">{inside}</mark>')
            else:
                parts.append(run)
    return "".join(parts), state


def _kind(sign: str) -> str:
    return "hit" if sign == _CHOSEN else "other"
