"""The rows of a part's sources in batches, each turned into what it holds: a conversation, a document, tokens, or a fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from llmbench.data.files import Fault, Row
from llmbench.data.formats import READS, BadRow, Chat, Text, Tokens, converted, detect
from llmbench.data.messages import dense
from llmbench.data.sources import read, title
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec, Format

__all__ = ["BATCH", "Item", "batches"]

BATCH = 500
"""Rows in a batch at most."""
_CHARACTERS = 2_000_000
"""About how many characters a batch has at most."""


class Item(NamedTuple):
    """One row on its way: its source's position, its line or position there, and what it holds."""

    source: int
    number: int
    place: str
    holds: Chat | Text | Tokens | Fault


def batches(spec: DataSpec, sources: list[DataSource]) -> Iterator[list[Item]]:
    """The rows of all sources. With `bad_rows: error` the first that cannot be used ends it, after the others are counted.

    Raises:
        DataError: that row; or a source without rows or of no known format.
    """
    batch: list[Item] = []
    size = 0
    for index, source in enumerate(sources):
        rows = faults = 0
        format: Format | None = None
        first = ""
        for row in read(source):
            rows += 1
            if format is None and row.fault is None:
                format = detect(row, source)
            holds = _held(row, format, reasoning=spec.reasoning == "keep")
            if isinstance(holds, Fault) and spec.bad_rows == "error":
                faults += 1
                first = first or f"{row.place}: {holds.detail}"
            if faults:
                continue
            batch.append(Item(index, row.number, row.place, holds))
            size += _size(holds)
            if len(batch) == BATCH or size > _CHARACTERS:
                yield batch
                batch, size = [], 0
        if faults:
            more = f" ({faults - 1:,} more rows of this source cannot be used)" if faults > 1 else ""
            raise DataError(f"{first.rstrip('.')}{more}. Fix it, or set data.bad_rows=skip to leave such rows out.")
        if not rows:
            raise DataError(f"{title(source)}: has no rows; {READS}.")
    if batch:
        yield batch


def _held(row: Row, format: Format | None, *, reasoning: bool) -> Chat | Text | Tokens | Fault:
    if row.fault is not None or format is None:
        return row.fault or Fault("not valid", "cannot be read")
    try:
        values = {key: dense(item) for key, item in row.values.items()} if row.filled else row.values
        return converted(values, format, reasoning=reasoning)
    except BadRow as error:
        return Fault(error.reason, str(error))


def _size(holds: Chat | Text | Tokens | Fault) -> int:
    """About how many characters or tokens there are."""
    match holds:
        case Chat(messages):
            return sum(len(turn["content"] or "") for turn in messages)
        case Text(text):
            return len(text)
        case Tokens(ids):
            return len(ids)
        case _:
            return 0
