"""Text made fit for search: ligatures, odd spaces, invisible characters and hidden instructions; a measure of garbage."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Cleaner", "Words", "garbage", "mend_hyphens"]

_BULLETS = dict.fromkeys((0xF0B7, 0xF0A7, 0xF0A8, 0xF076, 0xF0D8, 0xF02D), "•")
"""Where Word's symbol fonts keep their bullets."""
_FOLDED = {
    "<compat>",
    "<wide>",
    "<narrow>",
    "<font>",
    "<isolated>",
    "<initial>",
    "<medial>",
    "<final>",
    "<noBreak>",
    "<vertical>",
}
"""Kinds of compatibility characters that stand for plain ones. Not `<super>`, `<sub>`, `<fraction>`, `<circle>` and
`<square>`: the whole of NFKC would turn 10² into 102 and m² into m2."""

_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile("(?<!\U0001f3f4)[\U000e0000-\U000e007f]{2,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_JOINERS = re.compile("(?<![\u0600-\U0010ffff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\U0010ffff])")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours of a terminal in a log."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class _Table(dict[int, str | None]):
    """What each character becomes, found out when it is first met."""

    def __missing__(self, code: int) -> str | None:
        self[code] = found = _replacement(code)
        return found


def _replacement(code: int) -> str | None:
    character = chr(code)
    if code in _BULLETS:
        return _BULLETS[code]
    if code in (0x00AD, 0x200B, 0x2060, 0xFEFF, 0x180E, 0x200E, 0x200F, 0x061C) or 0xE0000 <= code <= 0xE01EF:
        return None
    if 0xFE00 <= code <= 0xFE0F or 0x202A <= code <= 0x202E or 0x2061 <= code <= 0x206F:
        return None
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if code in (0x2028, 0x2029):
        return "\n"
    if category in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE:
        return " " if character not in "\t\n" else character
    if unicodedata.decomposition(character).split(" ")[0] not in _FOLDED or 0x3130 <= code <= 0x318F:
        return character
    plain = unicodedata.normalize("NFKC", character)
    return plain if all(unicodedata.category(part)[0] in "LNM" for part in plain) or 0xFF00 < code < 0xFFEF else character


_CHARACTERS = _Table()


@dataclass
class Cleaner:
    """Cleans piece after piece of one document and counts what a reader should know of."""

    overrides: int = 0
    hidden: int = 0
    seen: set[str] = field(default_factory=set)

    def __call__(self, text: str) -> str:
        """The text without what is invisible, its compatibility characters and accents in one form; line ends stay."""
        if "\x1b" in text:
            text = _ESCAPES.sub("", text)
        if text.isascii():
            return _CONTROL.sub(" ", text) if _CONTROL.search(text) else text
        self.overrides += len(_OVERRIDES.findall(text))
        self.hidden += sum(len(run) for find in (_TAGS, _SELECTORS) for run in find.findall(text))
        text = _JOINERS.sub("", text).translate(_CHARACTERS)
        return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)

    @property
    def warnings(self) -> list[str]:
        """What was taken out that may have been put there to mislead."""
        found = []
        if self.overrides:
            found.append(f"{self.overrides} characters that reverse the order of writing were removed")
        if self.hidden:
            found.append(f"{self.hidden} invisible characters that can carry hidden instructions were removed")
        return found


class Words:
    """The words of a document, in lower case, by which it is told what a divided word was: collected when it is asked for."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines

    @cached_property
    def whole(self) -> set[str]:
        """Words without a hyphen."""
        return set(_WORD.findall(self._text))

    @cached_property
    def hyphenated(self) -> set[str]:
        """Pairs of words with a hyphen between them."""
        return set(_HYPHENATED.findall(self._text))

    @cached_property
    def _text(self) -> str:
        return "\n".join(self._lines).lower()

    def keeps_hyphen(self, head: str, tail: str) -> bool:
        """Whether `head-tail` is written with a hyphen: elsewhere it is, or both are words and the joined one is none."""
        head, tail = head.lower(), tail.lower()
        if head + tail in self.whole:
            return False
        known = f"{head}-{tail}" in self.hyphenated
        return known or (len(head) > 3 and len(tail) > 3 and head in self.whole and tail in self.whole)


def mend_hyphens(lines: list[str], words: Words) -> list[str]:
    """Joins words that were divided at line ends, on the upper line; as many lines come back, some perhaps empty."""
    mended = list(lines)
    for at in range(len(mended) - 1):
        if not mended[at].rstrip(" ").endswith(_HYPHENS):
            continue
        head, tail = _DIVIDED.search(mended[at]), _TAIL.match(mended[at + 1])
        if head and tail:
            hyphen = "-" if words.keeps_hyphen(head[1], tail[1]) else ""
            mended[at] = mended[at][: head.end(1)] + hyphen + tail[0].rstrip()
            mended[at + 1] = mended[at + 1][tail.end() :]
    return mended


_WORD = re.compile(r"(?<![\w-])[^\W\d_]+(?![\w-])")
_HYPHENATED = re.compile(r"[^\W\d_]+-[^\W\d_]+")
_HYPHENS = ("-", "\u2010", "\u00ad", "\ufffe", "\x02")
_DIVIDED = re.compile(r"([^\W\d_]{2,})[-\u2010\u00ad\ufffe\x02] *$")
_TAIL = re.compile(r"([^\W\d_A-Z]+)[^\w\s]* ?")


_ODD = re.compile(r"[^\x20-\x7e\s]")
"""What may be no text; of most pages that is little."""
_NO_LETTERS = bytes(set(range(256)) - set(string.ascii_letters.encode()))
_VOWELS = b"aeiouyAEIOUY"


def garbage(text: str) -> float:
    """The share of characters that are no text, from 0 to 1: private use, replacement and unassigned characters.

    A text of Latin letters among which vowels are rare (under a fifth; languages have 30 to 50 %) was written with a font
    whose letters are other than they look, and counts as all garbage.
    """
    signs = sum(map(len, text.split()))
    if not signs:
        return 0.0
    bad = sum(sign == "\ufffd" or unicodedata.category(sign) in ("Co", "Cn", "Cc", "Cs") for sign in _ODD.findall(text))
    letters = text.encode("ascii", "ignore").translate(None, _NO_LETTERS)
    few = len(letters) <= 200 or len(letters) <= signs / 2
    if not few and len(letters.translate(None, _VOWELS)) > 0.8 * len(letters):
        return 1.0
    return float(bad / signs)
