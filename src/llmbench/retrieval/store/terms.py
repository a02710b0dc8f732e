"""The words of passages: an FTS5 table, which is written in the same transaction as the passages and never has to be rebuilt.

It keeps postings only (no copy of the text). Words are stemmed (Porter) and lose their accents; Chinese, Japanese and Korean,
which put no spaces between words, are indexed as pairs of characters. BM25 is FTS5's own: k1 1.2, b 0.75, an inverse document
frequency that is never negative.
"""

from __future__ import annotations

import re

__all__ = ["SCHEMA", "STOP_WORDS", "body", "query"]

SCHEMA = "CREATE VIRTUAL TABLE {name} USING fts5(body, content='', tokenize='porter unicode61 remove_diacritics 2')"

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to "
    "was will with".split()
)
"""Lucene's English list. They are indexed, and left out of queries: what nearly every passage has tells nothing."""

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_WORD = re.compile(r"[^\W_]+")


def body(title: str, text: str) -> str:
    """What is indexed of a passage: its title and its text."""
    return _pairs(f"{title}\n{text}")


def query(text: str) -> str:
    """A question as an FTS5 expression: any of its words; empty when it has none. Nothing in it is taken as an operator."""
    words = [word for word in _WORD.findall(_pairs(text)) if word]
    telling = [word for word in words if word.lower() not in STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in telling)


def _pairs(text: str) -> str:
    """Each run of characters of a script without spaces, as overlapping pairs."""

    def pairs(match: re.Match[str]) -> str:
        run = match[0]
        return " " + " ".join(run[i : i + 2] for i in range(max(1, len(run) - 1))) + " "

    return _CJK.sub(pairs, text)
