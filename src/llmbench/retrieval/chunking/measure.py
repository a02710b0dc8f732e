"""How long stretches of a text are in the embedder's tokens: each stretch is tokenized once, whatever is cut from it.

A passage's length is the difference of two places among its section's tokens. That is exact where both its ends are at
white space and the tokenizer never lets a token reach across white space, as WordPiece does not; everything else is
tokenized anew, as it stands alone.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

__all__ = ["CHARACTERS", "TITLE_TOKENS", "Stretch", "Tokens", "line_start", "short_title"]

CHARACTERS = 8
"""Characters that a passage may have for each of its tokens, whatever its words are: one that the embedder does not know is one
token however long it is. English has 4 to 5."""

TITLE_TOKENS = 32
"""What a title may take of the embedder's window."""

_BLOCK = 20_000
"""Characters given to the tokenizer at once: its own record of them takes 100 bytes a character."""
_WORD = re.compile(r"\s+")
_PROBE = (
    "of the in order to a I word Word words, (word) 3.14 $1,000.50 don't naïve Straße 漢字かな 안녕 привет مرحبا foo_bar x=1; "
    "<tag> https://a.b/c?d=e # ## ** - \u2013 \u2014 … 😀 e\u0301 \u00a0 \ufeff fi ﬁ II Ⅱ 10 % 。 \uff01 def f(x): return"
).split(" ")


class Tokens(Protocol):
    """The embedder's own tokenizer, without special tokens and without truncation."""

    def starts(self, text: str) -> list[int]:
        """The character at which each token begins, ascending."""
        ...


@dataclass
class _Known:
    """What was learnt of one tokenizer: whether its tokens end at white space, and titles that were cut to length."""

    by_words: bool
    titles: dict[str, str] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[Tokens, _Known] = WeakKeyDictionary()


def _known(tokens: Tokens) -> _Known:
    if tokens not in _KNOWN:
        _KNOWN[tokens] = _Known(_by_words(tokens))
    return _KNOWN[tokens]


def _by_words(tokens: Tokens) -> bool:
    """Whether pieces count the same alone and joined by white space, tried on hard words, in pairs and in other orders."""
    alone = {word: len(tokens.starts(word)) for word in _PROBE}
    orders = [_PROBE, _PROBE[::-1], *(_PROBE[i::7] + _PROBE[i::5] for i in range(5))]
    return all(
        len(tokens.starts(gap.join(order))) == sum(alone[word] for word in order)
        for order in orders
        for gap in (" ", "\n", "\n\n  ")
    )


def short_title(title: str, tokens: Tokens) -> str:
    """A title cut to its last and most telling headings, and to `TITLE_TOKENS`."""
    titles = _known(tokens).titles
    if title not in titles:
        if len(titles) > 4096:
            titles.clear()
        titles[title] = _shortened(title, tokens)
    return titles[title]


def _shortened(title: str, tokens: Tokens) -> str:
    starts = tokens.starts(title)
    while (len(starts) > TITLE_TOKENS or len(title) > TITLE_TOKENS * CHARACTERS) and " > " in title:
        title = title.split(" > ", 1)[1]
        starts = tokens.starts(title)
    while len(starts) > TITLE_TOKENS or len(title) > TITLE_TOKENS * CHARACTERS:
        end = starts[TITLE_TOKENS] if len(starts) > TITLE_TOKENS else len(title) - 1
        title = title[: min(end, TITLE_TOKENS * CHARACTERS)].rstrip()
        starts = tokens.starts(title)
    return title


def line_start(text: str, place: int, least: int = 0) -> int | None:
    """Where the line of a place begins, `least` at least; None where more than white space stands before it there.

    No further back than to that is looked: a text may be one line of 16 MB.
    """
    while place > least and text[place - 1] != "\n":
        if not text[place - 1].isspace():
            return None
        place -= 1
    return place


class Stretch:
    """`text[start:end]` with the place of every token and of every word in it."""

    def __init__(self, text: str, start: int, end: int, tokens: Tokens) -> None:
        self.text, self.start, self.end, self.tokens = text, start, end, tokens
        self.words = array("I", (m.end() for m in _WORD.finditer(text, start, end)))
        self._seams: list[int] = []
        self.starts = self._token_starts()
        self._by_words = _known(tokens).by_words

    def _token_starts(self) -> array[int]:
        result, here, words = array("I"), self.start, self.words
        while here < self.end:
            i = bisect_right(words, here + _BLOCK) - 1
            if self.end - here <= _BLOCK:
                stop = self.end
            elif i >= 0 and words[i] > here:
                stop = words[i]
            else:  # a word longer than a block: what spans the seam is counted anew
                stop = min(here + _BLOCK, self.end)
                self._seams.append(stop)
            result.extend([here + offset for offset in self.tokens.starts(self.text[here:stop])])
            here = stop
        return result

    def trim(self, start: int, end: int) -> tuple[int, int]:
        """A span without blank lines and white space at its ends, but with its first line's indentation.

        `(start, start)` where there is nothing but white space.
        """
        part = self.text[start:end]
        bare = part.lstrip()
        if not bare:
            return start, start
        first = end - len(bare)
        line = line_start(self.text, first, self.start)
        return first if line is None else line, end - len(part) + len(part.rstrip())

    def solid(self, start: int) -> int:
        """The next character that is not white space."""
        while start < self.end and self.text[start].isspace():
            start += 1
        return start

    def count(self, start: int, end: int) -> int:
        """How many tokens `text[start:end]` has where it stands alone."""
        text = self.text
        clean = (start == self.start or text[start - 1].isspace()) and (end == self.end or text[end].isspace())
        if clean and self._by_words and not any(start < seam < end for seam in self._seams):
            return bisect_left(self.starts, end) - bisect_left(self.starts, start)
        return len(self.tokens.starts(text[start:end]))

    def fits(self, start: int, end: int, size: int) -> bool:
        """Whether `text[start:end]` is no longer than a passage of `size` tokens, in tokens and in characters."""
        return end - start <= size * CHARACTERS and self.count(start, end) <= size

    def after(self, start: int, tokens: int) -> int:
        """Where a passage of so many tokens from `start` on ends, at most the stretch's end."""
        i = bisect_left(self.starts, start) + tokens
        return min(self.starts[i] if i < len(self.starts) else self.end, start + tokens * CHARACTERS)

    def before(self, stop: int, tokens: int) -> int:
        """Where a passage of so many tokens begins that ends at `stop`, at least the stretch's start."""
        i = bisect_left(self.starts, stop) - tokens
        return max(self.starts[i] if i > 0 else self.start, stop - tokens * CHARACTERS)
