"""The numbers of OpenDocument's lists and headings (ODF 1.3, 19.880 and 16.30): levels, formats, start values, what goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmbench.retrieval.reading.formats.word_numbering import formatted
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["Lists", "value"]

_FORMATS = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}


def value(element: Element, name: str) -> str:
    """An attribute, in whichever namespace."""
    return next((text for key, text in element.attrib.items() if key.rpartition("}")[2] == name), "")


@dataclass(frozen=True)
class _Level:
    """How one level is numbered; an empty format shows nothing."""

    format: str
    before: str
    after: str
    levels: int
    start: int
    bullet: bool


@dataclass
class _Open:
    """A list that is being read: its style, its level from 1, and what it counts."""

    style: str
    level: int
    counts: dict[int, int] = field(default_factory=dict)


class Lists:
    """Counts the items and headings of one document in their order."""

    def __init__(self, content: Element, styles: Element | None) -> None:
        self.styles: dict[str, dict[int, _Level]] = {}
        self.headings: dict[int, _Level] = {}
        self.open: list[_Open] = []
        self.last: dict[str, dict[int, int]] = {}
        self.by_id: dict[str, dict[int, int]] = {}
        self.outlined: dict[int, int] = {}
        for tree in (styles, content):
            for node in tree.iter() if tree is not None else ():
                if local(node) == "list-style":
                    self.styles[value(node, "name")] = _levels(node)
                elif local(node) == "outline-style":
                    self.headings = _levels(node)

    def enter(self, element: Element) -> None:
        """Begins a list, or a list within one."""
        style = value(element, "style-name")
        if self.open:
            outer = self.open[-1]
            self.open.append(_Open(style or outer.style, outer.level + 1, outer.counts))
            return
        counts: dict[int, int] = {}
        if before := value(element, "continue-list"):
            counts = self.by_id.get(before, {})
        elif value(element, "continue-numbering") == "true":
            counts = self.last.get(style, {})
        self.open.append(_Open(style, 1, counts))
        self.last[style] = counts
        if identity := value(element, "id"):
            self.by_id[identity] = counts

    def leave(self) -> None:
        """Ends it."""
        self.open.pop()

    def next(self, item: Element) -> str:
        """The number of an item that comes next, or its bullet, with a space behind it."""
        here = self.open[-1]
        levels = self.styles.get(here.style, {})
        level = levels.get(here.level)
        _count(here.counts, here.level, value(item, "start-value"), level.start if level else 1)
        if level is None or level.bullet:
            return "- "
        return _shown(here.counts, here.level, levels)

    def outline(self, heading: Element, level: int) -> str:
        """The number of a heading, where the document numbers its headings."""
        if level not in self.headings or value(heading, "is-list-header") == "true":
            return ""
        _count(self.outlined, level, value(heading, "start-value"), self.headings[level].start)
        return _shown(self.outlined, level, self.headings)


def _levels(style: Element) -> dict[int, _Level]:
    found = {}
    for node in style:
        number = value(node, "level")
        if number.isdecimal():
            shown, start = value(node, "display-levels"), value(node, "start-value")
            found[int(number)] = _Level(
                format=value(node, "num-format"),
                before=value(node, "num-prefix"),
                after=value(node, "num-suffix"),
                levels=int(shown) if shown.isdecimal() else 1,
                start=int(start) if start.isdecimal() and len(start) < 7 else 1,
                bullet=local(node) in ("list-level-style-bullet", "list-level-style-image"),
            )
    return found


def _count(counts: dict[int, int], level: int, given: str, start: int) -> None:
    for deeper in [at for at in counts if at > level]:
        del counts[deeper]
    for above in range(1, level):
        counts.setdefault(above, 1)
    if given.isdecimal() and len(given) < 7:
        counts[level] = int(given)
    else:
        counts[level] = counts[level] + 1 if level in counts else start


def _shown(counts: dict[int, int], level: int, levels: dict[int, _Level]) -> str:
    own = levels[level]
    if not own.format:
        return ""
    first = max(1, level - own.levels + 1)
    parts = [
        formatted(counts.get(at, 1), _FORMATS.get(levels[at].format, "decimal"))
        for at in range(first, level + 1)
        if at in levels and levels[at].format
    ]
    return f"{own.before}{'.'.join(parts)}{own.after} ".lstrip()
