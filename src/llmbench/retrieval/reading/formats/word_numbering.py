"""Word's automatic numbers: what numbering.xml makes of a paragraph's list and level (ECMA-376 part 1, 17.9)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llmbench.retrieval.reading.formats.numbering import ordinal
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["Numbering", "formatted", "value"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
BULLET = "-"
"""What a list without numbers begins its items with."""
_CYRILLIC = "абвгдежзиклмнопрстуфхцчшщыэюя"
_COUNTING = {
    *("chineseCounting", "chineseCountingThousand", "japaneseCounting", "ideographDigital", "taiwaneseCounting"),
    *("taiwaneseCountingThousand", "koreanDigital2", "japaneseDigitalTenThousand"),
}


def value(element: Element, name: str = "val") -> str:
    """An attribute of Word's namespace, in either of its two names."""
    return element.get(_W + name) or element.get(_STRICT + name) or ""


@dataclass
class _Level:
    """How one level of a list is numbered."""

    start: int = 1
    style: str = "decimal"
    text: str = ""
    restart: int | None = None  # the level whose numbers make this one begin again; 0 is none
    legal: bool = False  # numbers of other levels are shown as figures
    joined: bool = False  # nothing between the number and the text


@dataclass
class _List:
    """A list that paragraphs refer to: whose counters it shares, its levels, and where it begins otherwise than these."""

    shared: str
    levels: dict[int, _Level]
    starts: dict[int, int] = field(default_factory=dict)


class Numbering:
    """Counts the paragraphs of one document in their order."""

    def __init__(self, numbering: Element | None, styles: Element | None) -> None:
        self.lists: dict[str, _List] = {}
        self.styles: dict[str, tuple[str, int]] = {}
        """The list and level of the paragraphs of a style."""
        self.counts: dict[str, dict[int, int]] = {}
        self.begun: set[tuple[str, int]] = set()
        if numbering is not None:
            self._read(numbering)
        if styles is not None:
            self._of_styles(styles)

    def next(self, number: str, level: int) -> tuple[str, bool]:
        """The number or bullet of a paragraph that comes next, and whether it stands right before its text; empty is none."""
        found = self.lists.get(number)
        if found is None or level not in found.levels:
            return (BULLET, False) if number not in ("", "0") and found is None else ("", False)
        counts = self.counts.setdefault(found.shared, {})
        own = found.levels[level]
        if level in found.starts and (number, level) not in self.begun:
            counts[level] = found.starts[level]
        else:
            counts[level] = counts[level] + 1 if level in counts else own.start
        for above in range(level):  # a level that was skipped counts as begun
            if above in found.levels:
                counts.setdefault(above, found.starts.get(above, found.levels[above].start))
        self.begun.add((number, level))
        for deeper in [at for at in counts if at > level]:
            restart = found.levels[deeper].restart if deeper in found.levels else None
            if restart is None or restart > level:
                del counts[deeper]
        if own.style == "bullet":
            return BULLET, False

        def shown(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            other = found.levels.get(at, _Level())
            count = counts.get(at, found.starts.get(at, other.start))
            return formatted(count, "decimal" if own.legal else other.style)

        return re.sub("%([1-9])", shown, own.text), own.joined

    def of_style(self, style: str) -> tuple[str, int]:
        """The list and level that a style gives its paragraphs; an empty list is none."""
        return self.styles.get(style, ("", 0))

    def _read(self, numbering: Element) -> None:
        kinds: dict[str, dict[int, _Level]] = {}
        links: dict[str, str] = {}
        owners: dict[str, str] = {}
        for node in numbering:
            if local(node) == "abstractNum":
                identity = value(node, "abstractNumId")
                kinds[identity] = {}
                for part in node:
                    match local(part):
                        case "lvl":
                            at, level, style = _level(part)
                            kinds[identity][at] = level
                            if style:
                                self.styles.setdefault(f"{identity}/{style}", ("", at))
                        case "numStyleLink":
                            links[identity] = value(part)
                        case "styleLink":
                            owners[value(part)] = identity
        for node in numbering:
            if local(node) == "num":
                shared = next((value(part) for part in node if local(part) == "abstractNumId"), "")
                shared = owners.get(links.get(shared, ""), shared)
                found = _List(shared, dict(kinds.get(shared, {})))
                for part in node:
                    if local(part) == "lvlOverride":
                        _override(part, found)
                self.lists[value(node, "numId")] = found

    def _of_styles(self, styles: Element) -> None:
        own: dict[str, tuple[str, int | None]] = {}
        based: dict[str, str] = {}
        for style in styles:
            identity = value(style, "styleId")
            for part in style.iter():
                match local(part):
                    case "basedOn":
                        based[identity] = value(part)
                    case "numPr":
                        number = next((value(node) for node in part if local(node) == "numId"), "")
                        level = next((value(node) for node in part if local(node) == "ilvl"), "")
                        own[identity] = number, int(level) if level.isdecimal() else None
        named = {key: at for key, (number, at) in self.styles.items() if not number}
        self.styles = {}
        for identity in {*own, *based}:
            parent, seen = identity, set[str]()
            while parent and parent not in seen and not own.get(parent, ("",))[0]:
                seen.add(parent)
                parent = based.get(parent, "")
            if parent in own and own[parent][0]:
                number, of_parent = own[parent]
                shared = self.lists[number].shared if number in self.lists else ""
                nearest = own.get(identity, ("", None))[1]
                at = named.get(f"{shared}/{identity}", named.get(f"{shared}/{parent}"))
                self.styles[identity] = number, next((n for n in (at, nearest, of_parent) if n is not None), 0)


def _level(element: Element) -> tuple[int, _Level, str]:
    """Which level it is, how it is numbered, and the style whose paragraphs are of it."""
    level, style = _Level(), ""
    for part in element:
        match local(part):
            case "start":
                level.start = _whole(value(part), 1)
            case "numFmt":
                level.style = value(part) or "decimal"
            case "AlternateContent":  # a format that only newer versions know, and what it falls back to
                level.style = next((value(node) for node in part.iter() if local(node) == "numFmt"), "decimal")
            case "lvlText":
                level.text = value(part)
            case "lvlRestart":
                level.restart = _whole(value(part), 0)
            case "isLgl":
                level.legal = value(part) not in ("0", "false", "off")
            case "suff":
                level.joined = value(part) == "nothing"
            case "pStyle":
                style = value(part)
    return _whole(value(element, "ilvl"), 0), level, style


def _override(element: Element, found: _List) -> None:
    at = _whole(value(element, "ilvl"), 0)
    for part in element:
        match local(part):
            case "startOverride":
                found.starts[at] = _whole(value(part), 1)
            case "lvl":
                found.levels[at] = _level(part)[1]
                found.starts.setdefault(at, found.levels[at].start)


def _whole(text: str, usual: int) -> int:
    return int(text) if re.fullmatch(r"\d{1,6}", text) else usual


def formatted(number: int, style: str) -> str:
    """A number as a list shows it, by the name that Word has for its format."""
    match style:
        case "none" | "bullet":
            return ""
        case "upperRoman" | "lowerRoman" if 0 < number < 4000:
            return ordinal(number, "I" if style == "upperRoman" else "i")
        case "upperLetter" | "lowerLetter" if number > 0:
            text = chr(97 + (number - 1) % 26) * min(1 + (number - 1) // 26, 20)
            return text.upper() if style == "upperLetter" else text
        case "russianLower" | "russianUpper" if number > 0:
            text = _CYRILLIC[(number - 1) % 29]
            return text.upper() if style == "russianUpper" else text
        case "decimalZero":
            return f"{number:02}"
        case "ordinal":
            suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
            return f"{number}{suffix}"
        case "decimalEnclosedCircle" | "decimalEnclosedCircleChinese" if 0 < number < 21:
            return chr(0x245F + number)
        case "decimalFullWidth":
            return str(number)
        case "numberInDash":
            return f"- {number} -"
        case _ if style in _COUNTING and 0 < number < 100:
            return _chinese(number)
        case _:
            return str(number)


def _chinese(number: int) -> str:
    digits = "〇一二三四五六七八九"
    tens, ones = divmod(number, 10)
    return ("" if tens < 2 else digits[tens]) + ("十" if tens else "") + (digits[ones] if ones else "")
