"""A document's sections: the stretches between headings and page borders, with the path of headings above each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmbench.retrieval.documents import Document

__all__ = ["Section", "grouped", "sections"]


@dataclass(frozen=True)
class Section:
    """A stretch of text without its heading. `head` is where its heading begins, or `start` where it has none of its own."""

    start: int
    end: int
    path: tuple[str, ...]
    head: int


def sections(document: Document) -> list[Section]:
    """Sections that hold something, in order; a document of nothing but headings is one section."""
    found = [part for part in _sections(document) if document.text[part.start : part.end].strip()]
    if not found and document.text.strip():
        return [Section(0, len(document.text), (document.title,), 0)]
    return found


def _sections(document: Document) -> Iterator[Section]:
    marks = sorted(
        [(h.start, h.end, h) for h in document.headings] + [(p, p, None) for p in document.pages], key=lambda mark: mark[:2]
    )
    path: list[tuple[int, str]] = []
    here = 0
    head: int | None = None
    for start, end, heading in marks:
        if start > here:
            yield Section(here, start, _path(document.title, path), here if head is None else head)
            if document.text[here:start].strip():
                head = None
        here = max(here, end)
        if heading is not None and heading.level:
            path = [step for step in path if step[0] < heading.level] + [(heading.level, heading.text)]
            head = start if head is None else head
    yield Section(here, len(document.text), _path(document.title, path), here if head is None else head)


def _path(title: str, path: list[tuple[int, str]]) -> tuple[str, ...]:
    steps = [text for _, text in path if text]
    return tuple(steps if steps and steps[0] == title else [title, *steps])


def grouped(text: str, parts: Sequence[Section], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Numbers of sections, those together that are small, stand side by side and belong to one parent.

    Small is a quarter of `size` or less; a group has at most `size` tokens, its headings among them. A section belongs to
    the next page of itself, to its subsections, and to its siblings; and nothing but headings may stand between.
    """
    groups: list[list[int]] = []
    room = 0
    above: tuple[str, ...] | None = None
    for i, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        small = length <= size // 4
        if small and length <= room and not text[parts[i - 1].end : part.head].strip():
            shared = _above(parts[i - 1], part, above)
            if shared is not None:
                groups[-1].append(i)
                room, above = room - length, shared
                continue
        groups.append([i])
        room, above = (size - length if small else 0), None
    return groups


def _above(first: Section, part: Section, above: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The path above both a group and the next section, where they belong together."""
    for path in [first.path, first.path[:-1]] if above is None else [above]:
        if path and path in (part.path, part.path[:-1]):
            return path
    return None
