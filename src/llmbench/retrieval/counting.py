"""Numbers with what they count, for people: 1 document, 2 documents, 1,000 documents."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, what: str, many: str = "") -> str:
    """The number and the word, which where it is not one takes an s, or is another one."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"
