"""Rows as a training sees them: token by token, what is learned and what is not; secrets are dotted out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import Any

from llmbench.data import secrets

__all__ = ["Fold", "Piece", "Row", "folded", "pieces", "row", "runs"]

_KEPT = 3000
"""Pieces of a row that are kept; of a longer one its beginning and its end."""


@dataclass(frozen=True)
class Piece:
    """What one token says (or several tokens that make up one character)."""

    text: str
    trained: bool
    special: bool = False


@dataclass(frozen=True)
class Fold:
    """Pieces left out."""

    tokens: int
    trained: bool


@dataclass(frozen=True)
class Row:
    """One row to look at."""

    place: str
    tokens: int
    trained_tokens: int
    pieces: tuple[Piece | Fold, ...]


def row(place: str, ids: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> Row:
    """A row of token ids, with a `tokenizers.Tokenizer` to say what they stand for."""
    found = list(pieces(ids, trained, tokenizer))
    kept: list[Piece | Fold] = list(found)
    if len(found) > _KEPT:
        head, tail = _KEPT * 2 // 3, _KEPT // 3
        middle = found[head:-tail]
        kept = [*found[:head], Fold(len(middle), any(piece.trained for piece in middle)), *found[-tail:]]
    return Row(place, len(ids), sum(trained), tuple(kept))


def pieces(ids: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> Iterator[Piece]:
    """Each token's text, secrets dotted out. A character that several tokens make up is one piece."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    parts = list(_decoded(ids, tokenizer))
    whole = secrets.hide("".join(text for text, _ in parts))
    ends = accumulate((len(text) for text, _ in parts), initial=0)
    for (start, end), (_, at) in zip(pairwise(ends), parts, strict=True):
        yield Piece(whole[start:end], bool(trained[at]), int(ids[at]) in special)


def _decoded(ids: Sequence[int], tokenizer: Any) -> Iterator[tuple[str, int]]:
    """The text of each token with its position; tokens that only together make a character give it at the last of them."""
    from tokenizers.decoders import DecodeStream

    stream, waiting = DecodeStream(skip_special_tokens=False), 0
    for at, number in enumerate(ids):
        waiting += 1
        try:
            text = stream.step(tokenizer, int(number))
        except Exception:  # tokenizers raises plain ones, for bytes that never become a character
            text, stream = tokenizer.id_to_token(int(number)) or f"<{number}>", DecodeStream(skip_special_tokens=False)
        if text is not None:
            waiting = 0
            yield text, at
    if waiting:  # a row that was cut within a character
        yield "�", len(ids) - 1


def runs(row: Row) -> Iterator[tuple[bool, list[Piece | Fold]]]:
    """Neighbouring pieces that are all learned, or all not."""
    for trained, together in groupby(row.pieces, key=lambda piece: piece.trained):
        yield trained, list(together)


def folded(run: list[Piece | Fold], head: int, tail: int) -> tuple[list[Piece | Fold], list[Piece | Fold], list[Piece | Fold]]:
    """A run's beginning, the middle that may be folded away (empty where that saves little), and its end."""
    if len(run) <= head + tail + 10:
        return run, [], []
    return run[:head], run[head : len(run) - tail], run[len(run) - tail :]
