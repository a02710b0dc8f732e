"""The list of what a search found: each passage with its document, page and score, the query's words marked in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from llmbench.retrieval import Hit, doubt

from . import render
from .prose import plain

__all__ = ["hit_list", "marked", "words_of"]

_SNIPPET = 240
_COMMON = """a an and are as at be by can do does for from has have how i in is it its me my of on or our that the their there
this to was we were what when where which who whose why will with you your"""


def hit_list(hits: Sequence[Hit], position: int, *, query: str = "", address: str = "") -> str:
    """The hits, those of one document together in the place of its best one; `position` is the chosen one."""
    words = words_of(query)
    order = sorted(
        range(len(hits)), key=lambda i: next(j for j, h in enumerate(hits) if h.chunk.source == hits[i].chunk.source)
    )
    items, before = [], None
    for i in order:
        same = hits[i].chunk.source == before
        items.append(_item(hits[i], i, words, chosen=i == position, same=same))
        before = hits[i].chunk.source
    at = f'<span data-address="{escape(address)}"></span>' if address else ""
    return f'{at}{render.notice(doubt(hits), "info") if query else ""}<ol class="hit-list">{"".join(items)}</ol>'


def words_of(query: str) -> list[str]:
    """The words of a query that are worth marking in a text."""
    return [word for word in dict.fromkeys(re.findall(r"\w+", query.lower())) if word not in _COMMON.split()]


def marked(text: str, words: Sequence[str]) -> str:
    """A text for HTML with the words marked, whole and with an ending of up to three letters."""
    if not words:
        return plain(text)
    found = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})\w{{0,3}}\b", re.IGNORECASE)
    parts, at = [], 0
    for match in found.finditer(text):
        parts += [plain(text[at : match.start()]), f'<b class="word">{plain(match[0])}</b>']
        at = match.end()
    return "".join([*parts, plain(text[at:])])


def _item(hit: Hit, i: int, words: Sequence[str], *, chosen: bool, same: bool) -> str:
    c = hit.chunk
    page = f" · page {c.page:,}" if c.page else ""
    dense = hit.stages.get("dense")
    cosine = f'<span class="also">cosine {dense.score:.2f}</span>' if dense is not None and hit.kind != "dense" else ""
    title = plain(c.title or c.source)
    return (
        f'<li{" class=same" if same else ""}><button type="button" data-hit="{i}"{" aria-current=true" if chosen else ""}>'
        f'<span class="top-line"><b dir="auto" title="{escape(c.title or c.source)}">{title}</b>'
        f"{render.score(hit.score, hit.kind)}</span>"
        f'<span class="source">{plain(c.source)}{page}{cosine}</span>'
        f'<span class="text" dir="auto">{marked(_snippet(c.text, words), words)}</span></button></li>'
    )


def _snippet(text: str, words: Sequence[str]) -> str:
    """The beginning of a passage, or the place of the query's first word where that lies further on."""
    places = [at for word in words if (at := text.lower().find(word)) >= 0]
    start = min(places, default=0)
    if start < _SNIPPET - 40:
        return text[:_SNIPPET]
    start = text.rfind(" ", 0, start - 40) + 1
    return "… " + text[start : start + _SNIPPET]
