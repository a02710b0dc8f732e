"""What FTS5 is given of a text, so that a word is found however it is written: in a passage and in a question alike.

- Scripts that put no spaces between words are given as overlapping pairs of characters, marks kept with their character.
- A code is also given in its glued and its divided form: `AL-4417` with `AL4417`, `AL4417` with `AL` and `4417`,
  `maxRetryCount` with its three words.
- Words with letters that many keyboards lack are indexed as they are typed there too: `Kündigung` with `Kuendigung`. Only
  passages have this form: in a question it would count such a word twice.
- Emoji, which FTS5 passes over, become words.
- Vowel points of Arabic and Hebrew, which are mostly left out, are left out.

Forms are put behind the text: where words stand is not looked at.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["indexed", "is_cluster", "searched", "words"]

_LONGEST = 40
"""Letters of a form: longer ones are hashes and blobs, which nobody types otherwise."""
_MOST = 6
"""Parts into which a code is divided; one of more is no code."""

_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003fffd"  # Chinese, Korean
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ecf\u0edc-\u0edf"  # Thai, Lao
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Burmese
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c\ua980-\ua9c0\u1b00-\u1b4c"  # Tai Le, Tai Lue, Tai Tham, Javanese, Balinese
)
_RUN = re.compile(f"[{_UNSPACED}]+")
_MARKS = "".join(chr(c) for c in range(0x0E00, 0xAA80) if _RUN.match(chr(c)) and unicodedata.category(chr(c)) in ("Mn", "Mc"))
_JOINING = "\u17d2\u1039"
"""Signs that stack the next consonant under the last: Khmer's coeng, Burmese's virama."""
_CLUSTER = re.compile(f"[{_UNSPACED}](?:[{_JOINING}][{_UNSPACED}]|[{_MARKS}])*")
_POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]+")
_SIGNS = re.compile("[\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff]")

_ODD = re.compile(r"[\d_]|[a-z][A-Z]|[A-Z]{2}[a-z]")
"""What a word holds that may be a code: a digit, an underscore, a capital letter within."""
_CODE = re.compile(r"[^\W_]+(?:[-\u2010-\u2013./_:][^\W_]+)*")
_PARTS = re.compile(r"[^\W_]+")
_LETTERS_OR_DIGITS = re.compile(r"\d+|[^\W\d_]+")
_COMPOUND = re.compile(r"\d+[-\u2010-\u2013][a-z]{3,}s?")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s)", re.IGNORECASE)
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TYPED = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d"}
    | {"Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ẞ": "SS", "Ø": "Oe", "Å": "Aa", "Æ": "Ae", "Œ": "Oe", "Ł": "L", "Đ": "D", "Ð": "D"}
    | {"\u0131": "i", "þ": "th", "Þ": "Th"}
)


def indexed(text: str) -> str:
    """What FTS5 is given of a passage, the same when it is written and when it is deleted."""
    forms = [*_codes(text), *_typed(text), *_signs(text)]
    return " ".join([_spaced(text), *forms])


def searched(text: str) -> str:
    """What is looked up of a question."""
    forms = [*_codes(text), *_signs(text)]
    return " ".join([_spaced(text).replace("ß", "ss"), *forms])


def words(text: str) -> list[str]:
    """The words of a text as FTS5 tells them apart: letters, digits and the marks on them."""
    if text.isascii():
        return _ASCII.findall(text)
    apart = "".join(c if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc", "Co") else " " for c in text)
    return apart.split()


_ASCII = re.compile(r"[A-Za-z0-9]+")


def is_cluster(word: str) -> bool:
    """Whether a word is one character of a script without spaces, with its marks."""
    return bool(_CLUSTER.fullmatch(word))


def _spaced(text: str) -> str:
    """Each run of characters of a script without spaces, as overlapping pairs."""
    if text.isascii():
        return text

    def pairs(match: re.Match[str]) -> str:
        run = _CLUSTER.findall(match[0])
        return f" {' '.join(one + two for one, two in pairwise(run)) or match[0]} "

    return _RUN.sub(pairs, _POINTS.sub("", text))


def _codes(text: str) -> Iterator[str]:
    """The other forms of codes and of identifiers, each as often as it stands there."""
    plain = text if text.isascii() else _RUN.sub(" ", text)
    for word in plain.split():
        if (word.islower() and word.isalpha()) or not _ODD.search(word):
            continue
        for code in _CODE.findall(word):
            if len(code) > _LONGEST:
                continue
            parts = _PARTS.findall(code)
            if 1 < len(parts) <= _MOST and (_is_code(code) or "_" in code):
                yield "".join(parts)
            for part in parts:
                yield from _divided(part)


def _is_code(code: str) -> bool:
    """Whether letters and digits stand together in it, or digits in three groups: a version, a date, a number of an order.

    A number and a word, as in `17-year`, are no code.
    """
    if _COMPOUND.fullmatch(code):
        return False
    digits = sum(c.isdigit() for c in code)
    return digits > 0 and (any(c.isalpha() for c in code) or sum(not c.isalnum() for c in code) > 1)


def _divided(part: str) -> list[str]:
    """Letters and digits apart, or the words of camelCase; none where it is one of them. A letter alone tells nothing."""
    found = _LETTERS_OR_DIGITS.findall(part)
    if len(found) == 1 and not part.islower() and part.isascii():
        found = _HUMPS.findall(part)
    if not 1 < len(found) <= _MOST or _ORDINAL.fullmatch(part):
        return []
    return [piece for piece in found if len(piece) > 1 or piece.isdigit()]


def _typed(text: str) -> Iterator[str]:
    """Words with letters that many keyboards lack, as they are typed there."""
    if text.isascii() or text.translate(_TYPED) == text:
        return
    for word in words(text):
        if not word.isascii() and (form := word.translate(_TYPED)) != word:
            yield form


def _signs(text: str) -> Iterator[str]:
    """Emoji as words."""
    return (f"u{ord(sign):x}" for sign in ([] if text.isascii() else _SIGNS.findall(text)))
