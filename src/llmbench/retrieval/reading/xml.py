"""XML from files that nobody vouches for: no entities, no external parts, bounded depth and number of elements."""

from __future__ import annotations

from html import unescape
from typing import NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder  # the builder only: it parses nothing
from xml.parsers import expat

from llmbench.retrieval.documents import Unreadable

__all__ = ["Broken", "Element", "local", "tree"]

DEEPEST = 500
"""Elements within one another; the deepest of 40 real office documents has 24."""
MOST = 5_000_000
"""Elements in one part; 100 bytes of memory each and more."""
ENTITIES, SHORT = 100, 80
"""How many entities a document may declare, and the characters of each, where any are allowed."""


class Broken(Unreadable):
    """It is not well-formed."""


def tree(data: bytes, what: str = "XML", *, encoding: str | None = None, entities: bool = False) -> Element:
    """The document as a tree; names read `{namespace}local`. `encoding` overrules what the document says of itself.

    `entities` allows a few short ones that name no others, and unparsed ones (pictures), which are passed over. Signs such as
    `&mdash;` that only an external DTD declares, which is never opened, are those of HTML.

    expat is driven directly: ElementTree's own parser offers no place to refuse entities; defusedxml does, at the same speed
    (0.7 s for 5 MB), but bounds neither depth nor number.

    Raises:
        Unreadable: it declares entities (billion laughs, external files), or is nested too deep. Broken: not well-formed.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate(encoding, namespace_separator="}")
    depth = count = declared = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEEPEST or count > MOST:
            raise Unreadable(f"{what} is nested too deep" if depth > DEEPEST else f"{what} has too many elements")
        builder.start(_named(name), {_named(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_named(name))

    def refuse(*_: object) -> NoReturn:
        raise Unreadable(f"{what} declares entities, which can hide text or attacks")

    def declare(name: str, parameter: bool, value: str | None, *_: object) -> None:
        nonlocal declared
        declared += 1
        grows = value is None or len(value) > SHORT or ("&" in value and name not in ("amp", "lt")) or "%" in value
        if not entities or grows or parameter or declared > ENTITIES:
            refuse()

    def skipped(name: str, parameter: bool) -> None:
        if not parameter:
            builder.data(unescape(f"&{name};"))

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = declare
    parser.UnparsedEntityDeclHandler = (lambda *_: None) if entities else refuse
    parser.SkippedEntityHandler = skipped
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ParseError, AssertionError, ValueError, LookupError) as error:
        raise Broken(f"{what} is broken ({error})") from None


def _named(name: str) -> str:
    return "{" + name if "}" in name else name


def local(element: Element) -> str:
    """The name without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
