"""The words of passages: an FTS5 table, which is written in the same transaction as the passages and never has to be rebuilt.

It keeps postings only (no copy of the text). Words are stemmed (Porter) and lose their accents; `forms` says in which other
forms they are indexed. BM25 is FTS5's own: k1 1.2, b 0.75, an inverse document frequency that is never negative; a word in
the title counts twice. docs/decisions/005-terms.md has the measurements.
"""

from __future__ import annotations

from llmbench.retrieval.store.words import forms

__all__ = ["STOP_WORDS", "TITLE", "VERSION", "columns", "is_beginning", "leaf", "query", "schema", "totals", "words"]

_FUNCTION_WORDS = (
    # who and whose
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its "
    "itself they them their theirs themselves what which who whom this that these those "
    # to be, to have, to do, and their like
    "am is are was were be been being have has had having do does did doing would should could ought can will "
    # small words
    "a an the and but if or because as until while of at by for with about against between into through during before after "
    "above below to from up down in out on off over under again further then once here there when where why how all any both "
    "each few more most other some such no nor not only own same so than too very just now s t don d ll m re ve"
)
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English function words. They are indexed, and left out of queries: they tell nothing and are slow to count."""

TITLE = 2
"""How much a word in the title counts."""

VERSION = 2
"""Raised when the same passage would be indexed with other words, so that older indexes are built again."""


def schema(name: str) -> str:
    """The statements that make the table, in `main` or in another schema (`temp.again`).

    Marks belong to their letters (Mn, Mc): a Hindi or Thai word would else be cut at each of its vowels.
    """
    plain = name.rpartition(".")[2]
    return (
        f"CREATE VIRTUAL TABLE {name} USING fts5(title, text, content='', "
        "tokenize=\"porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'\");"
        f"INSERT INTO {name}({plain}, rank) VALUES ('rank', 'bm25({TITLE}.0, 1.0)');"
    )


def columns(title: str, head: str, text: str) -> tuple[str, str]:
    """What is indexed of a passage, the same when it is written and when it is deleted; `head` as in `Chunk`."""
    return forms.indexed(title), forms.indexed(f"{head}\n{text}" if head else text)


def words(text: str) -> list[str]:
    """The words of a question that are looked up, each as often as it stands there; none when it has none."""
    found = forms.words(forms.searched(text).lower())
    return [word for word in found if word not in STOP_WORDS] or found


def is_beginning(word: str) -> bool:
    """Whether words that begin with it are meant: a character that stands alone in a script without spaces."""
    return forms.is_cluster(word)


def query(text: str) -> str:
    """A question as an FTS5 expression: any of its words; empty when it has none.

    Every word is quoted, so that nothing in a question is taken as an operator.
    """
    return " OR ".join(f'"{word}"{"*" if is_beginning(word) else ""}' for word in words(text))


def totals(averages: bytes) -> tuple[int, int]:
    """How many rows there are and how many words they have in all, of FTS5's own record (`terms_data`, id 1).

    The layout is that of SQLite's fts5_index.c: the number of rows, then of each column's words.
    """
    rows, at = _number(averages, 0)
    count = 0
    while at < len(averages):
        size, at = _number(averages, at)
        count += size
    return rows, count


def leaf(page: bytes) -> list[str]:
    """The words of one leaf of FTS5's tree as they stand in the file, also those whose passages were deleted since.

    The layout is that of SQLite's fts5_index.c: two numbers of two bytes, of which the second says where the footer begins; the
    footer has the places of the words, each as the distance from the one before. A word is written as how many bytes it has in
    common with the one before (not at the first), how many follow, and these. Its first byte names the index, "0" the main one.
    """
    footer = int.from_bytes(page[2:4], "big")
    words, place, at, before = list[str](), 0, footer, b""
    while at < len(page):
        step, at = _number(page, at)
        place += step
        kept, start = (0, place) if not words else _number(page, place)
        length, start = _number(page, start)
        before = before[:kept] + page[start : start + length]
        words.append(before[1:].decode("utf-8", "replace"))
    return words


def _number(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's whole number of one to eight bytes, seven bits each (nine are of 2^56 and more), and where it ends."""
    value = 0
    while True:
        value = value << 7 | data[at] & 0x7F
        at += 1
        if data[at - 1] < 0x80:
            return value, at
