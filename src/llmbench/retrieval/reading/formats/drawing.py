"""What Word, PowerPoint and Excel draw: charts as their numbers, SmartArt as its words, pictures as their descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.office import relations
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["add_drawn", "described", "paragraphs", "relation"]

_KINDS = {
    "barChart": "Bar chart", "bar3DChart": "Bar chart", "lineChart": "Line chart", "line3DChart": "Line chart",
    "pieChart": "Pie chart", "pie3DChart": "Pie chart", "doughnutChart": "Doughnut chart", "areaChart": "Area chart",
    "area3DChart": "Area chart", "scatterChart": "Scatter chart", "bubbleChart": "Bubble chart", "radarChart": "Radar chart",
    "stockChart": "Stock chart", "surfaceChart": "Surface chart", "surface3DChart": "Surface chart", "ofPieChart": "Pie chart",
}  # fmt: skip
_MADE = re.compile(
    r"\s*(?:AI-generated content may be incorrect\.?|Description automatically generated(?: with .{0,30} confidence)?)\s*$"
)
"""What Office adds to a description that it made itself."""


def relation(element: Element, name: str) -> str:
    """An attribute by which a part of the archive is named: `id`, `dm`, `embed`; empty where there is none."""
    return next((value for key, value in element.attrib.items() if key.endswith(f"relationships}}{name}")), "")


def described(shape: Element) -> str:
    """The description of a picture, where it is more than a word; a file's name is none."""
    for node in shape.iter():
        text = node.get("descr", "") if local(node) in ("docPr", "cNvPr") else ""
        text = text or (node.get("alt", "") if local(node) in ("shape", "rect", "image") else "")
        text = _MADE.sub("", " ".join(text.split()))
        if " " in text and not re.fullmatch(r"(?:[A-Za-z]:\\|https?://|/).*", text):
            return text
    return ""


def add_drawn(shape: Element, archive: Archive, parts: Mapping[str, tuple[str, str]], out: Writer) -> None:
    """Adds the charts and diagrams of a drawing, which are parts of their own. One that is broken is named.

    Args:
        shape: the drawing.
        archive: the file.
        parts: the relations of the part that the drawing stands in.
        out: the document.
    """
    for node in shape.iter():
        name = local(node)
        if name not in ("chart", "relIds"):
            continue
        _, place = parts.get(relation(node, "id" if name == "chart" else "dm"), ("", ""))
        if not place:
            continue
        try:
            if name == "chart":
                chart(archive.tree(place), out)
            else:
                _diagram(archive, place, parts, out)
        except Unreadable as error:
            out.warnings.append(f"{'a chart' if name == 'chart' else 'a diagram'} was left out: {error}")


def chart(tree: Element, out: Writer) -> None:
    """Adds a chart: its title, its kind, and a row for each category with what every series has there."""
    title = next((node for node in tree.iter() if local(node) == "title"), None)
    kinds = dict.fromkeys(_KINDS[local(node)] for node in tree.iter() if local(node) in _KINDS)
    name = " ".join(_words(title).split()) if title is not None else ""
    series = [node for node in tree.iter() if local(node) == "ser"]
    if not series:  # the newer kinds (funnel, tree map, sunburst) keep numbers by dimension
        rows = [[*(_text(point) for point in node.iter() if local(node) and local(point) == "pt")]
                for node in tree.iter() if local(node) in ("strDim", "numDim")]  # fmt: skip
        out.block(name)
        out.table(_across(rows))
        return
    out.block("\n".join(filter(None, (name, ", ".join(kinds)))))
    names = [" ".join(_values(node, "tx").values()) for node in series]
    categories: dict[int, str] = {}
    values = []
    for node in series:
        categories |= {at: text for at, text in (_values(node, "cat") or _values(node, "xVal")).items() if at not in categories}
        values.append(_values(node, "val") or _values(node, "yVal"))
    length = max((at + 1 for found in (categories, *values) for at in found), default=0)
    length = min(length, 10_000)
    if len(names) == 1 and name == names[0]:
        names = ["" if not categories else name]
    out.table([["", *names], *([categories.get(at, ""), *(v.get(at, "") for v in values)] for at in range(length))])


def _across(columns: list[list[str]]) -> list[list[str]]:
    length = min(max(map(len, columns), default=0), 10_000)
    return [[column[at] if at < len(column) else "" for column in columns] for at in range(length)]


def _values(series: Element, name: str) -> dict[int, str]:
    """The values of a part of a series, by their place; of several levels of categories, all of them."""
    part = next((node for node in series if local(node) == name), None)
    found: dict[int, str] = {}
    for at, point in enumerate(() if part is None else (node for node in part.iter() if local(node) == "pt")):
        text = next((_text(node) for node in point.iter() if local(node) == "v"), "")
        place = point.get("idx", "")
        place_ = int(place) if place.isdecimal() and len(place) < 7 else at
        found[place_] = f"{text} {found[place_]}" if place_ in found else _figure(text)
    if part is not None and not found:
        found = {at: _figure(_text(node)) for at, node in enumerate(n for n in part.iter() if local(n) == "v")}
    return found


def _figure(text: str) -> str:
    """A number without what counting in twos adds: 4.3 for 4.2999999999999998."""
    if not re.fullmatch(r"-?\d+\.\d{6,}(?:[eE]-?\d+)?|-?\d(?:\.\d+)?[eE][-+]?\d+", text):
        return text
    return f"{float(text):.12g}"


def _text(node: Element) -> str:
    return (node.text or "").strip()


def _diagram(archive: Archive, place: str, parts: Mapping[str, tuple[str, str]], out: Writer) -> None:
    """Adds a SmartArt diagram: the words of its points in the order of their tree; else what is drawn of it."""
    tree = archive.tree(place)
    points = {node.get("modelId", ""): node for node in tree.iter() if local(node) == "pt"}
    below: dict[str, list[tuple[int, str]]] = {}
    for node in tree.iter():
        if local(node) == "cxn" and node.get("type", "parOf") == "parOf":
            order = node.get("srcOrd", "0")
            below.setdefault(node.get("srcId", ""), []).append((int(order) if order.isdecimal() else 0, node.get("destId", "")))
    lines: list[str] = []
    seen: set[str] = set()
    roots = [identity for identity, node in points.items() if node.get("type") == "doc"]
    stack = [*reversed([*roots, *points])]
    while stack:
        identity = stack.pop()
        if identity in seen or identity not in points:
            continue
        seen.add(identity)
        kind = points[identity].get("type", "node")
        if kind in ("node", "asst", "doc"):
            lines += [text for text in paragraphs(points[identity]) if text.strip()]
        stack += [child for _, child in sorted(below.get(identity, []), reverse=True)]
    if not lines:
        drawn = next((where for kind, where in parts.values() if kind == "diagramDrawing" and where in archive.names), "")
        drawn = drawn or place.replace("/data", "/drawing")
        if drawn in archive.names:
            lines = [text for text in paragraphs(archive.tree(drawn)) if text.strip()]
    out.block("\n".join(lines))


def paragraphs(element: Element) -> list[str]:
    """The paragraphs of DrawingML's text in an element."""
    found = []
    for paragraph in element.iter():
        if local(paragraph) == "p":
            found.append(_words(paragraph))
    return found


def _words(element: Element) -> str:
    parts = []
    for node in element.iter():
        match local(node):
            case "t" | "v":
                parts.append(node.text or "")
            case "br":
                parts.append("\n")
            case "p" if parts:
                parts.append(" ")
    return "".join(parts)


def of_part(archive: Archive, place: str, out: Writer) -> None:
    """Adds what a drawing of a sheet shows: text boxes, charts, diagrams and descriptions of pictures."""
    parts = relations(archive, place)
    for shape in archive.tree(place).iter():
        match local(shape):
            case "sp" | "cxnSp":
                out.block("\n".join(text for text in paragraphs(shape) if text.strip()))
            case "graphicFrame":
                add_drawn(shape, archive, parts, out)
            case "pic":
                about = described(shape)
                out.block(f"Picture: {about}" if about else "")
