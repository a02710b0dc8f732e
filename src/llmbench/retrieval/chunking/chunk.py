"""Cuts a document into passages of at most so many tokens and characters, each an exact slice of its text.

Sections are cut, never across a heading or a page unless small ones are taken together (`headings`) or the whole is asked
for (`document`). Headings are no part of a passage but where sections were taken together; their path is its title, which
is embedded with it, and so are the column heads of a table that a passage goes on with. Passages of a section depend on
what stands before their end, so that a change further down leaves the earlier ones as they were.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from llmbench.retrieval.chunking.measure import Tokens, short_title
from llmbench.retrieval.chunking.pieces import Method, Piece, Settings, chosen, pieces
from llmbench.retrieval.documents import Document

__all__ = ["VERSION", "Chunk", "chunks", "embedded_text"]

VERSION = 3
"""Raised when the same document and settings would be cut differently, so that older indexes are built again."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: `document.text[start:end] == text`.

    `page` is for what has pages, `line` for text, Markdown and code, both from 1 and of its start. `tokens` counts `text`
    alone, without title, prefix and special tokens. `parent` is the span around it that is handed to the model, where the
    pipeline has parents; siblings share it. `method` is how it was cut, which is `tokens` where that which was asked for
    could not be: code in a language without a grammar, a document longer than the window. `head` names the columns of the
    table in whose rows the passage begins; it is no part of `text`, and is embedded, searched and handed on with it.
    """

    id: str
    source: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    line: int | None
    tokens: int = 0
    parent: tuple[int, int] | None = None
    method: str = "tokens"
    head: str = ""


def embedded_text(title: str, text: str, tokens: Tokens, *, head: str = "") -> str:
    """What the embedder reads: the title, cut to its last and most telling headings, the column heads, then the passage."""
    return f"{short_title(title, tokens)}\n{head}\n{text}" if head else f"{short_title(title, tokens)}\n{text}"


def chunks(
    document: Document,
    tokens: Tokens,
    *,
    max_tokens: int,
    overlap: int,
    method: Method | Literal["auto"] = "tokens",
    sentences: int = 5,
    parent_tokens: int | None = None,
    window: int | None = None,
) -> list[Chunk]:
    """The passages of a document, in order.

    Args:
        document: as read.
        tokens: counts as the embedder does.
        max_tokens: no passage is longer, nor has more than `CHARACTERS` times as many characters.
        overlap: how many tokens of the end of a passage may begin the next, in whole sentences where there are any.
        method: as in `ChunkingSpec`.
        sentences: how many make a passage where `method` is `sentences`.
        parent_tokens: the length of the stretches around passages, which then never reach across two of them.
        window: the tokens of a passage that the embedder reads, up to which `document` leaves documents whole; null is
            max_tokens.

    Raises:
        MissingPackage: `code` needs a grammar that is not installed.
    """
    how = chosen(document) if method == "auto" else method
    settings = Settings(max_tokens, overlap, sentences, parent_tokens, window or max_tokens)
    key = f"{VERSION} {how} {settings}"
    return [_chunk(document, piece, key) for piece in pieces(document, tokens, how, settings)]


def _chunk(document: Document, piece: Piece, key: str) -> Chunk:
    text = document.text[piece.start : piece.end]
    span = f"{piece.start} {piece.end} {piece.parent or ''}"
    identity = hashlib.sha256(
        "\0".join((document.source, span, key, piece.title, *([piece.head] if piece.head else []), text)).encode(
            "utf-8", "surrogatepass"
        )
    ).hexdigest()
    place = (piece.start, piece.end, document.page(piece.start), document.line(piece.start))
    return Chunk(identity, document.source, piece.title, text, *place, piece.tokens, piece.parent, piece.method, piece.head)
