"""What an index calls a document and what judgements call it: `pages/4983.md`, `corpus.jsonl#4983` and `4983` are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from pathlib import PurePosixPath

from llmbench.errors import DataError

__all__ = ["Naming", "naming"]

Naming = Callable[[str], str]
"""A source of the index -> the name that judgements use."""

_FORMS: tuple[tuple[str, Naming], ...] = (
    ("its path", lambda source: source),
    ("its row's id", lambda source: source.rpartition("#")[2]),
    ("its file's name", lambda source: PurePosixPath(source).name),
    ("its file's name without ending", lambda source: PurePosixPath(source).stem),
)


def naming(sources: Iterable[str], judged: Set[str], where: str) -> tuple[Naming, list[str]]:
    """The form under which most judged documents are found in the index, and those that are not found, sorted.

    Raises:
        DataError: not one of them is found.
    """
    there = list(sources)
    lacking = {words: (form, judged - {form(source) for source in there}) for words, form in _FORMS}
    form, missing = min(lacking.values(), key=lambda one: len(one[1]))
    if missing == judged:
        some, other = min(judged), there[0] if there else "nothing"
        raise DataError(
            f"{where}: no relevant document is in the index: judged is {some!r}, indexed is {other!r}. "
            f"Index the documents of this collection."
        )
    return form, sorted(missing)
