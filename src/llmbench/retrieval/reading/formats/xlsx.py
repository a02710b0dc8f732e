"""What XLSX keeps beside the values of its cells: formats, comments, drawings, hidden rows, formulas that nobody calculated."""

from __future__ import annotations

import re

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats import sparse
from llmbench.retrieval.reading.formats.drawing import relation
from llmbench.retrieval.reading.formats.office import main_part, relations
from llmbench.retrieval.reading.formats.sheet import Sheet, cell_at, format_of
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local
from llmbench.shown import counted

__all__ = ["sheets"]

_CELL = re.compile(rb"<(?:\w+:)?c\s([^>]*)>")
_PLACE, _STYLE = re.compile(rb'\br="([A-Z]{1,3})(\d{1,7})"'), re.compile(rb'\bs="(\d{1,5})"')
_UNVALUED = re.compile(
    rb"<(?:\w+:)?c\b([^>]*)>\s*<(?:\w+:)?f\b[^>]*(?:/>|>[^<]*</(?:\w+:)?f>)\s*"
    rb"(<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_HIDDEN = re.compile(rb'<(?:\w+:)?(row|col)\b[^>]*\bhidden="(?:1|true)"')
_STUB = "[Threaded comment]"


def sheets(archive: Archive, out: Writer) -> dict[str, Sheet]:
    """What each sheet says, by its name, in the order of the book. A part that is broken costs that part."""
    main = main_part(archive, "xl/workbook.xml")
    if not main.endswith(".xml"):  # XLSB, which keeps all of it in another form
        return {}
    parts = relations(archive, main)
    formats = _formats(archive, next((place for kind, place in parts.values() if kind == "styles"), ""))
    people = _people(archive, [place for kind, place in parts.values() if kind == "person"])
    found: dict[str, Sheet] = {}
    for node in archive.tree(main).iter():
        if local(node) != "sheet":
            continue
        kind, place = parts.get(relation(node, "id"), ("", ""))
        sheet = found[node.get("name", "")] = Sheet(drawn=kind == "chartsheet")
        if node.get("state") in ("hidden", "veryHidden"):
            sheet.hidden.append("")
        if place not in archive.names:
            continue
        try:
            _drawings_and_comments(archive, place, sheet, people)
            if not sheet.drawn:
                data = archive.read(place)
                _cells(data, sheet, formats)
                if sparse.extent(data) > sparse.FAR:
                    sheet.part, sheet.moved = place, sparse.moved(data, sheet)
        except Unreadable as error:
            out.warnings.append(f"comments or drawings of {node.get('name', '')} were left out: {error}")
    return found


def _formats(archive: Archive, place: str) -> dict[int, str]:
    """The formats that show more than a number, by the style of a cell."""
    if place not in archive.names:
        return {}
    tree = archive.tree(place)
    codes: dict[int, str] = {}
    styles: list[int] = []
    for node in tree:
        match local(node):
            case "numFmts":
                codes = {_whole(code.get("numFmtId", "")): code.get("formatCode", "") for code in node}
            case "cellXfs":
                styles = [_whole(style.get("numFmtId", "")) for style in node]
    return {at: code for at, number in enumerate(styles) if (code := format_of(number, codes))}


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 8 else 0


def _cells(data: bytes, sheet: Sheet, formats: dict[int, str]) -> None:
    """Looks through the cells by their tags alone: a tree of a million cells would take a GB."""
    if formats:
        for match in _CELL.finditer(data):
            style = _STYLE.search(match[1])
            code = formats.get(int(style[1]), "") if style else ""
            place = _PLACE.search(match[1]) if code else None
            cell = cell_at((place[1] + place[2]).decode()) if place else None
            if cell:
                sheet.formats.setdefault(cell[0], {})[cell[1]] = code
    for match in _UNVALUED.finditer(data) if b"<f" in data or b":f" in data else ():
        sheet.unvalued += not (match[2] and b't="str"' in match[1])
    kinds = [match[1] for match in _HIDDEN.finditer(data)]
    for kind, word in ((b"row", "row"), (b"col", "column")):
        if kind in kinds:
            sheet.hidden.append(counted(kinds.count(kind), word))


def _drawings_and_comments(archive: Archive, place: str, sheet: Sheet, people: dict[str, str]) -> None:
    threads: dict[str, list[str]] = {}
    notes: list[tuple[str, str]] = []
    for kind, part in relations(archive, place).values():
        if part not in archive.names:
            continue
        match kind:
            case "drawing":
                sheet.drawings.append(part)
            case "comments":
                for node in archive.tree(part).iter():
                    if local(node) == "comment":
                        words = " ".join("".join(t.text or "" for t in node.iter() if local(t) == "t").split())
                        notes.append((node.get("ref", ""), words))
            case "threadedComment":
                for node in archive.tree(part).iter():
                    if local(node) == "threadedComment":
                        words = " ".join(_text(node).split())
                        person = people.get(node.get("personId", ""), "")
                        threads.setdefault(node.get("ref", ""), []).append(f"{person}: {words}" if person else words)
    notes = [(ref, words) for ref, words in notes if words and not (ref in threads and words.startswith(_STUB))]
    notes += [(ref, " / ".join(words)) for ref, words in threads.items()]
    sheet.comments = sorted(notes, key=lambda note: cell_at(note[0]) or (0, 0))


def _text(node: Element) -> str:
    return next((part.text or "" for part in node if local(part) == "text"), "")


def _people(archive: Archive, places: list[str]) -> dict[str, str]:
    """The names of those who comment, by their number."""
    return {
        node.get("id", ""): node.get("displayName", "")
        for place in places
        if place in archive.names
        for node in archive.tree(place).iter()
        if local(node) == "person"
    }
