"""A passage in its document: in the text, in Markdown as it is meant, or on the picture of its page. All is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from llmbench.recipe import RagRecipe
from llmbench.retrieval import Document, Hit
from llmbench.retrieval.reading import pages

from . import render
from .drawn import MOST, drawn
from .hits import marked
from .prose import plain

__all__ = ["Look", "sheet", "text"]

_PAGE = ("Page", "Text")
_FORMATTED = ("Formatted", "Source")


@dataclass(frozen=True)
class Look:
    """What is looked at: which hit, its text or its page, and which page when it has been turned."""

    position: int = 0
    as_text: bool = False
    number: int | None = None


def sheet(recipe: RagRecipe, document: Document, hits: Sequence[Hit], look: Look, *, words: Sequence[str] = ()) -> str:
    """The chosen passage on the picture of its page, the other hits of that page more quietly; else in the text, and why."""
    if document.kind == "markdown" and not look.as_text:
        formatted = drawn(document.text, _spans(hits, look.position), words=words)
        if formatted is not None:
            body = f'<div class="text answer drawn" dir="auto" tabindex="0" role="region" aria-label="Text">{formatted}</div>'
            return _article(document, hits[look.position], _switch(_FORMATTED, as_text=False), body)
    if not pages.has_pages(document):
        both = document.kind == "markdown" and len(document.text) <= MOST
        head = _switch(_FORMATTED, as_text=True) if both else ""
        return text(document, hits, look.position, head=head, words=words)
    if look.as_text:
        return text(document, hits, look.position, head=_switch(_PAGE, as_text=True), words=words)
    chosen = hits[look.position].chunk
    own = pages.pages_of(document, chosen.start, chosen.end)
    number = min(max(look.number or own[0], 1), len(document.pages))
    same = [i for i, hit in enumerate(hits) if hit.chunk.source == chosen.source and i != look.position]
    spans = [(hits[i].chunk.start, hits[i].chunk.end) for i in (look.position, *same)]
    try:
        picture = pages.draw(recipe, document, number, spans)
    except pages.NotShown as error:
        return render.notice(str(error), "info") + text(document, hits, look.position, words=words)
    marks = _marks("other", [area for areas in picture.areas[1:] for area in areas]) + _marks("hit", picture.areas[0])
    data = base64.b64encode(picture.png).decode("ascii")
    title = plain(document.title or chosen.source)
    return (
        f'<article class="card page"><header><h2 dir="auto">{title}</h2>{_switch(_PAGE, as_text=False)}</header>'
        f'<p class="source">{_where(document, hits[look.position])}</p>{_pager(number, len(document.pages), own)}'
        f'<div class="desk" tabindex="0" role="region" aria-label="Page {number}"><div class="leaf">'
        f'<img src="data:image/png;base64,{data}" width="{picture.width}" '
        f'height="{picture.height}" alt="Page {number} of {escape(document.source)}">'
        f'<div class="marks" aria-hidden="true">{marks}</div>'
        "</div></div></article>"
    )


def text(document: Document, hits: Sequence[Hit], position: int, *, head: str = "", words: Sequence[str] = ()) -> str:
    """A whole document with the chosen passage highlighted, and more quietly the other hits in it."""
    whole, parts, at = document.text, [], 0
    for start, end, is_chosen in _spans(hits, position):
        kind = "hit" if is_chosen else "other"
        inside = marked(whole[start:end], words) if is_chosen else plain(whole[start:end])
        parts.append(f'{plain(whole[at:start])}<mark class="{kind}">{inside}</mark>')
        at = end
    parts.append(plain(whole[at:]))
    body = f'<div class="text" dir="auto" tabindex="0" role="region" aria-label="Text">{"".join(parts)}</div>'
    return _article(document, hits[position], head, body)


def _article(document: Document, hit: Hit, head: str, body: str) -> str:
    return (
        f'<article class="card page"><header><h2 dir="auto">{plain(document.title or document.source)}</h2>{head}</header>'
        f'<p class="source">{_where(document, hit)}</p>{body}</article>'
    )


def _spans(hits: Sequence[Hit], position: int) -> list[tuple[int, int, bool]]:
    """The passages of the chosen one's document, in order and apart."""
    source = hits[position].chunk.source
    return _apart([(h.chunk.start, h.chunk.end, i == position) for i, h in enumerate(hits) if h.chunk.source == source])


def _where(document: Document, hit: Hit) -> str:
    chunk = hit.chunk
    page = f" · page {chunk.page}" if chunk.page else ""
    return f"{plain(document.source)}{page} · characters {chunk.start:,} to {chunk.end:,}"


def _switch(names: tuple[str, str], *, as_text: bool) -> str:
    """Between the page as it looks and its text."""
    buttons = "".join(
        f'<button type="button" data-look="{look}" aria-pressed="{str(pressed).lower()}">{name}</button>'
        for look, name, pressed in zip(("page", "text"), names, (not as_text, as_text), strict=True)
    )
    return f'<div class="switch" role="group" aria-label="Show as">{buttons}</div>'


def _pager(number: int, count: int, own: Sequence[int]) -> str:
    """Turns pages; and says where the passage is when it is not, or not only, on this one."""

    def to(page: int, label: str, name: str = "") -> str:
        off = "" if 1 <= page <= count else " disabled"
        title = f' aria-label="{name}" title="{name}"' if name else ""
        return f'<button type="button" data-number="{page}"{title}{off}>{label}</button>'

    if number not in own:
        more = to(own[0], f"Back to the passage on page {own[0]}")
    elif number + 1 in own:
        more = to(number + 1, f"The passage continues on page {number + 1}")
    else:
        more = to(number - 1, f"The passage begins on page {own[0]}") if number - 1 in own else ""
    back, on = to(number - 1, "&lsaquo;", "Previous page"), to(number + 1, "&rsaquo;", "Next page")
    return f'<nav class="pager">{back}<span>Page {number:,} of {count:,}</span>{on}{more}</nav>'


def _marks(kind: str, areas: Sequence[pages.Area]) -> str:
    """The areas of passages as rectangles over the picture; what is drawn later covers what was drawn before."""
    return "".join(
        f'<i class="{kind}" style="left:{left:.3%};top:{top:.3%};width:{right - left:.3%};height:{bottom - top:.3%}"></i>'
        for left, top, right, bottom in areas
    )


def _apart(spans: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Spans in order without overlap; where two overlap, the chosen one keeps its whole length."""
    chosen = next(span for span in spans if span[2])
    apart = [chosen]
    for start, end, _ in sorted(spans):
        pieces = [(start, min(end, chosen[0])), (max(start, chosen[1]), end)]
        apart += [(a, b, False) for a, b in pieces if a < b]
    result: list[tuple[int, int, bool]] = []
    for start, end, is_chosen in sorted(apart):
        start = max(start, result[-1][1]) if result else start
        if start < end:
            result.append((start, end, is_chosen))
    return result
