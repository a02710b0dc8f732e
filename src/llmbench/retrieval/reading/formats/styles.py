"""What a page's own styles hide: by its style sheet, without ink, white on white, in font size 0."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["Styles"]

RULES = 400
"""Rules of a page that are looked at; others are as if they were not there."""
_LONGEST = 500, 5000
"""Characters of a selector and of what stands in its braces; fonts and pictures that a style sheet holds are longer."""
_TELLING = re.compile(
    r"display|visibility|opacity|font-size|color|background|clip|position|transform|indent|overflow", re.IGNORECASE
)
_KEPT = {
    *("display", "visibility", "opacity", "font-size", "color", "background", "background-color", "position", "left", "top"),
    *("text-indent", "clip", "clip-path", "transform", "height", "width", "overflow"),
}
_FAR = re.compile(r"-\s*(?:9\d\d|\d{4,7})(?:\.\d+)?\s*(?:px|pt|em|rem|%|vw|vh|cm|in)?\s*(?:!important)?$")
_NOTHING = re.compile(r"0+(?:\.0+)?\s*(?:px|pt|em|rem|%)?\s*(?:!important)?$")
_CLIPPED = re.compile(r"inset\(\s*(?:50|100)%|circle\(\s*0")
_NUMBER = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(%|px|pt|em|rem)?\s*(?:!important)?\s*$")
_NAMES = {"white": "ffffff", "black": "000000", "red": "ff0000", "yellow": "ffff00", "blue": "0000ff", "green": "008000"}

Declarations = dict[str, str]


def declarations(style: str) -> Declarations:
    """What a `style` attribute, or the body of a rule, says of how a thing is shown."""
    found: Declarations = {}
    for part in style.split(";"):
        name, _, value = part.partition(":")
        name = name.strip().lower()
        if name in _KEPT:
            found["background" if name.startswith("background") else name] = value.strip().lower()
    return found


class Styles:
    """The rules of a page's `<style>` elements that bear on what is seen, by element."""

    def __init__(self, tree: Any) -> None:
        self.linked = tree.css_first('link[rel~="stylesheet" i]') is not None
        self.by_node: dict[int, Declarations] = {}
        for selector, found in self._rules(tree):
            for node in _chosen(tree, selector):
                self.by_node.setdefault(node.mem_id, {}).update(found)

    def _rules(self, tree: Any) -> Iterator[tuple[str, Declarations]]:
        count = 0
        for style in tree.css("style"):
            if (style.attributes.get("media") or "all").strip().lower() not in ("", "all", "screen"):
                continue
            text = re.sub(r"/\*.*?\*/", "", style.text() or "", flags=re.DOTALL)
            for selector, body in _bodies(_without_blocks(text)):
                if _TELLING.search(body) and (found := declarations(body)) and "@" not in selector:
                    count += 1
                    if count > RULES:
                        return
                    yield selector.strip(), found

    def of(self, node: Any, style: str | None) -> Declarations:
        """What holds for an element: its own `style` before the sheet's."""
        found = self.by_node.get(node.mem_id, {})
        return {**found, **declarations(style)} if style else found

    def own(self, style: str) -> Declarations:
        """What a `style` attribute alone says."""
        return declarations(style)

    def hides(self, found: Declarations, behind: str) -> str:
        """Why an element with these declarations is not seen; empty where it is. `behind` is the colour around it, or empty
        where that is not known.
        """
        if found.get("display", "").startswith("none") or found.get("visibility", "").startswith(("hidden", "collapse")):
            return "not displayed"
        if (opacity := _NUMBER.match(found.get("opacity", ""))) and float(opacity[1]) < (5 if opacity[2] else 0.05):
            return "fully transparent"
        if (size := _NUMBER.match(found.get("font-size", ""))) and float(size[1]) < {"%": 10, "em": 0.1, "rem": 0.1}.get(
            size[2], 2
        ):
            return "font size 0"
        if self._off_page(found):
            return "outside the page"
        if _CLIPPED.match(found.get("clip-path", "")) or re.match(r"scale\(\s*0(?:\.0+)?\s*\)", found.get("transform", "")):
            return "without room"
        sizes = (found.get(name, "") for name in ("height", "width"))
        if found.get("overflow", "").startswith(("hidden", "clip")) and any(map(_NOTHING.match, sizes)):
            return "without room"
        if "color" in found:
            colour = _colour(found["color"])
            if colour == "transparent":
                return "fully transparent"
            if colour and colour == (_colour(found["background"]) if "background" in found else behind):
                return "in the colour of its background"
        return ""

    @staticmethod
    def _off_page(found: Declarations) -> bool:
        """Whether a thing is moved so far to the left or up that nobody can scroll there."""
        placed = found.get("position", "").startswith(("absolute", "fixed"))
        if placed and re.match(r"rect\((?:\s*[01](?:px)?[\s,]*){4}\)", found.get("clip", "")):
            return True
        if placed and any(_FAR.match(found.get(name, "")) for name in ("left", "top")):
            return True
        return _FAR.match(found.get("text-indent", "")) is not None

    def behind(self, found: Declarations, around: str) -> str:
        """The colour behind what is in an element."""
        return _colour(found["background"]) or "" if "background" in found else around


def _chosen(tree: Any, selector: str) -> list[Any]:
    """The elements of a selector; one that the parser does not know hides nothing."""
    try:
        return list(tree.css(selector))
    except Exception:
        return []


def _bodies(text: str) -> Iterator[tuple[str, str]]:
    """The rules of a style sheet: each selector with what stands in its braces."""
    for part in text.split("}")[:-1]:
        before, brace, body = part.rpartition("{")
        selector = before.rpartition("{")[2].rpartition(";")[2]  # behind an @import or @charset
        if brace and 0 < len(selector) <= _LONGEST[0] and len(body) <= _LONGEST[1]:
            yield selector, body


def _without_blocks(text: str) -> str:
    """A style sheet without `@media` and its like, whose rules hold on other screens or on paper."""
    parts: list[str] = []
    depth = start = 0
    inside = False
    for match in re.finditer(r"@(?:media|supports|keyframes|-webkit-keyframes|layer|container)\b[^{;]{0,500}\{|[{}]", text):
        if not inside and match[0][0] == "@":
            parts.append(text[start : match.start()])
            inside, depth = True, 1
        elif inside:
            depth += -1 if match[0] == "}" else 1
            if depth == 0:
                inside, start = False, match.end()
    return "".join(parts) + ("" if inside else text[start:])


def _colour(value: str) -> str:
    """A colour as six hexadecimal digits, `transparent`, or empty where it is none of the plain ones."""
    value = re.sub(r"\s*!important", "", value).strip()
    if value == "transparent" or re.fullmatch(r"rgba\([^)]*,\s*0(?:\.0+)?\s*\)", value):
        return "transparent"
    if found := re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", value.split()[0] if value else ""):
        return found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    if found := re.match(r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})", value):
        return "".join(f"{min(int(part), 255):02x}" for part in found.groups())
    return _NAMES.get(value.split()[0], "") if value else ""
