"""When two texts say the same, and when one holds a fact: what trainings and comparisons both score answers by."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

__all__ = ["CITATION", "abstains", "cited", "holds_value", "plain", "same_sentence", "span_tokens", "token_f1"]

CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
"""`[1]`, `[1, 3]` and `[1; 3]`; the numbers are its group."""

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def plain(text: str) -> str:
    """One case, one kind of space, one way to write each character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def same_sentence(text: str, expected: str) -> bool:
    """Whether two texts are the same apart from case, spaces and final punctuation."""
    return plain(text).rstrip(" .!?,;:") == plain(expected).rstrip(" .!?,;:")


def abstains(text: str, pattern: str) -> bool:
    """Whether an answer says that it has no answer: whether the pattern is in it, whatever the case and the apostrophe."""
    return re.search(pattern, text.replace("\u2019", "'"), re.IGNORECASE) is not None


def cited(text: str) -> list[int]:
    """The numbers of the passages that an answer cites, in its order, as often as it does."""
    return [int(number) for group in CITATION.findall(text) for number in re.findall(r"\d+", group)]


def holds_value(text: str, value: str, known: str = "") -> bool:
    """Whether a text holds a value as words of their own ("12" is not in "120" or "1.12"), whatever the case.

    Listing does not count: where the value holds a number, the text may name no other number but those of `known`.
    """
    text, value = plain(text), plain(value)
    # A number is not found inside a longer one, such as 300 in 1,300 or in 300.5, nor a code's end such as 300 in AB-300.
    before = r"(?<![\w])(?<!\d[.,])(?<!\w-)" if value[0].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,-]\d)" if value[-1].isdigit() else r"(?!\w)"
    if not re.search(before + re.escape(value) + after, text):
        return False
    rivals = set(_NUMBER.findall(text)) - set(_NUMBER.findall(plain(f"{value} {known}")))
    return not (rivals and _NUMBER.search(value))


def span_tokens(text: str) -> list[str]:
    """The words of a short answer as SQuAD compares them: lower case, without ASCII punctuation and the articles a, an, the.

    Source: the normalisation of SQuAD's evaluation script, v1.1 (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).
    """
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def token_f1(text: str, expected: str) -> float:
    """The harmonic mean of precision and recall of a text's words against the expected ones, 0 to 1; 1 where both have none.

    Source: as for `span_tokens`; where one side has no words, as in SQuAD 2.0.
    """
    found, wanted = span_tokens(text), span_tokens(expected)
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))
