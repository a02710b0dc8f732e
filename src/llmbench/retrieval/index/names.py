"""Whose a document's name is: the first to write it keeps it, and what comes later under the same name is left out and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from llmbench.retrieval.documents import Document, unreadable_rows
from llmbench.retrieval.store import FileState, Standing

__all__ = ["Names"]


@dataclass
class _LeftOut:
    """Documents of a file whose names are taken: the first of them by line (0: the whole file), and how many."""

    first: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0
    again: bool = False
    """Whether their names may be free at the next pass, though the file is the same."""


class Names:
    """The names that files ask for during one pass over them."""

    def __init__(
        self, standing: Callable[[str], tuple[Standing | None, int]], first_line: Callable[[str], int], current: int
    ) -> None:
        """Looks nothing up yet.

        Args:
            standing: what is known of a source's document, and its line, 0 where it is written already.
            first_line: the line of a written one.
            current: the number of this pass.
        """
        self._standing, self._first_line, self._current = standing, first_line, current
        self._left: dict[str, _LeftOut] = {}

    def free(self, document: Document, file: str) -> bool:
        """Whether a file may have a document of this name; that it may not is noted for `told`."""
        known, line = self._standing(document.source)
        if known is None or (known.file == file and known.seen != self._current):
            return True
        left = self._left.setdefault(file, _LeftOut())
        left.count += 1
        left.again |= known.file != file
        if len(left.first) < 6:
            if known.file is None:
                why = "a program wrote a document with this name"
            elif known.file != file:
                why = f"{known.file} has a document with this name"
            else:
                line = line or self._first_line(document.source)
                why = f"id {document.source.removeprefix(f'{file}#')!r} already appears on line {line}"
            left.first.append((document.first_line if document.source != file else 0, why))
        return False

    def told(self, state: FileState) -> FileState:
        """A file's state, with what of it was left out since its documents' names are taken."""
        left = self._left.pop(state.source, None)
        if left is None:
            return state
        line, why = left.first[0]
        why = unreadable_rows(left.first, left.count) if line else why
        skipped = "; ".join(filter(None, [state.skipped, why]))
        return replace(state, skipped=skipped, sha256="" if left.again else state.sha256)
