"""Tables in a document's text, so that a passage that goes on with one can say what its columns are called."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmbench.retrieval.documents import Document

__all__ = ["Table", "head_at", "tables"]

_LEAST = 3
"""Rows of a table, its head among them: two lines with bars in them are no table."""
_WIDEST = 600
"""Characters of a head; a longer first row is data."""
_SAMPLE = 50
"""Rows by which a head is told from data."""

_LINE = re.compile(r"[^\n]+")
_RULE = re.compile(r"(?:\|\s*)?:?-+:?\s*(?:\|\s*:?-+:?\s*)*(?:\|\s*)?")
_BARE = re.compile(r"(?<!\\)\|")
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class Table:
    """The rows under a table's head, from the character `start` to `end`, and the names of its columns as one line."""

    start: int
    end: int
    head: str


def head_at(found: Sequence[Table], offset: int) -> str:
    """The head of the table into whose rows an offset falls; empty where it is in none, or in the head itself."""
    i = bisect_right(found, offset, key=lambda table: table.start) - 1
    return found[i].head if i >= 0 and offset < found[i].end else ""


def tables(document: Document) -> tuple[Table, ...]:
    """The tables of a document that have a head, in order.

    In Markdown a head is what stands above a line of dashes. Readers of other formats write a row as a line, its cells
    divided by bars, and do not say which is the head: the first row is one where its cells look otherwise than those below
    them, or where no cell of the table holds a digit.
    """
    if document.kind == "code" or "|" not in document.text:
        return ()
    return tuple(_markdown(document.text) if document.kind == "markdown" else _rows(document.text))


def _runs(text: str, mark: str) -> Iterator[list[tuple[int, int, str]]]:
    """Lines one behind another that hold a mark, each with its start and end."""
    run: list[tuple[int, int, str]] = []
    for match in _LINE.finditer(text):
        beside = bool(run) and match.start() == run[-1][1] + 1
        if mark in match[0]:
            if run and not beside:
                yield run
                run = []
            run.append((match.start(), match.end(), match[0]))
    if run:
        yield run


def _markdown(text: str) -> Iterator[Table]:
    for run in _runs(text, "|"):
        for i in range(1, len(run) - 1):
            if _RULE.fullmatch(run[i][2].strip()) and (cells := _cells(run[i - 1][2])):
                yield Table(run[i + 1][0], run[-1][1], cells)
                break


def _cells(line: str) -> str:
    """A row of Markdown without the bars at its ends."""
    cells = [cell.strip() for cell in _BARE.split(line.strip().removeprefix("|").removesuffix("|"))]
    joined = " | ".join(cells)
    return joined if any(cells) and len(joined) <= _WIDEST else ""


def _rows(text: str) -> Iterator[Table]:
    for run in _runs(text, " | "):
        rows = [line.strip().split(" | ") for _, _, line in run[:_SAMPLE]]
        head = run[0][2].strip()
        if len(run) >= _LEAST and len(head) <= _WIDEST and _is_head(rows[0], rows[1:]):
            yield Table(run[1][0], run[-1][1], head)


def _is_head(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a row names columns: in most columns of figures its cell has another shape than those below it."""
    named = figures = 0
    for i in range(max(map(len, others))):
        below = Counter(_shape(row[i]) for row in others if i < len(row) and row[i].strip())
        if not below:
            continue
        usual = below.most_common(1)[0][0]
        if "9" in usual:
            figures += 1
            cell = first[i] if i < len(first) else ""
            named += _shape(cell) != usual or bool(_YEAR.fullmatch(cell.strip()))
    if figures:
        return 2 * named > figures
    return not any(c.isdigit() for cell in first for c in cell) and all(cell.strip() for cell in first)


def _shape(cell: str) -> str:
    """`Valve V077` as `a a9`, `1,204.5` as `9,9.9`."""
    return re.sub(r"[^\W\d]+", "a", re.sub(r"\d+", "9", cell.strip()))
