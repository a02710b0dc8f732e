"""The filters of a search, the recipe's and the caller's, and what a user should know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store.filters import asked

__all__ = ["condition", "unmet"]

_SHOWN = 12
"""Fields that are named."""


def condition(own: Mapping[str, Any] | None, where: Mapping[str, Any] | None) -> Filter | None:
    """Both filters as one."""
    filters = [words for words in (own, where) if words]
    return Filter.of({"$and": filters} if len(filters) > 1 else filters[0]) if filters else None


def unmet(index: Index, *filters: Mapping[str, Any] | None) -> list[str]:
    """A line for each field that a filter asks for and that no document has, or has only values of another kind."""
    lines = []
    for field, kind in dict.fromkeys(pair for words in filters if words for pair in asked(words)):
        there = index.kinds(field)
        if not there:
            fields = index.fields(_SHOWN + 1)
            more = ", ..." if len(fields) > _SHOWN else ""
            known = f"Fields: {', '.join(fields[:_SHOWN])}{more}." if fields else "The documents have no fields."
            lines.append(f"No document has the field {field!r} that the filter asks for. {known}")
        elif kind not in there:
            lines.append(f"The field {field!r} contains {' and '.join(sorted(there))}, but the filter asks for {kind}.")
    return lines
