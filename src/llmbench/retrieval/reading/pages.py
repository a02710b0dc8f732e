"""A passage of a PDF on the picture of its page, drawn from the very file that was indexed."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmbench.errors import LlmbenchError
from llmbench.recipe import RagRecipe
from llmbench.retrieval.documents import CHANGED, Box, Document, Unreadable
from llmbench.retrieval.reading.children import Child
from llmbench.retrieval.reading.password import password_at
from llmbench.retrieval.reading.standard_input import LARGEST_FILE
from llmbench.retrieval.reading.walk import located

__all__ = ["Area", "NotShown", "Picture", "boxes", "draw", "forget", "has_pages", "pages_of"]

SECONDS = 20
"""Processor time for one page; one of text takes a quarter of a second."""
KEPT = 16
"""Pictures kept in memory, of some 300 kB each."""

Span = tuple[int, int]
"""Start and end of a passage in its document's text."""
Area = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of the page's width and height, from its left and top edge."""


class NotShown(LlmbenchError):
    """A page cannot be shown, and why; its text still can."""


@dataclass(frozen=True)
class Picture:
    """A page (from 1) as a PNG of so many pixels; `areas[i]` is where passage `i` stands on it."""

    number: int
    width: int
    height: int
    png: bytes
    areas: tuple[tuple[Area, ...], ...]


def has_pages(document: Document) -> bool:
    """Whether a document is one whose pages can be drawn."""
    return document.kind == "pdf" and bool(document.pages)


def pages_of(document: Document, start: int, end: int) -> list[int]:
    """The pages, from 1, on which a passage stands."""
    first = document.page(start)
    if first is None:
        return []
    return sorted({box.page for box in document.boxes_of(start, end)}) or [first]


def boxes(document: Document, start: int, end: int) -> list[dict[str, Any]]:
    """The boxes of the lines in which a passage stands, as JSON objects: page from 1, points from its left and top edge."""
    return [
        {key: value for key, value in asdict(box).items() if key not in ("start", "end")}
        for box in document.boxes_of(start, end)
    ]


def draw(recipe: RagRecipe, document: Document, number: int, passages: Sequence[Span], *, painted: bool = False) -> Picture:
    """One page of a document with the places of some passages on it.

    The file is opened by a child process with limits on memory and time, as it was when it was indexed.

    Args:
        recipe: the pipeline that the document is of.
        document: as the index has it.
        number: the page, from 1.
        passages: spans of the document's text.
        painted: whether the passages are drawn into the picture.

    Raises:
        NotShown: the file is gone, is no longer the one that was indexed, or cannot be drawn.
    """
    spans = tuple((start, end) for start, end in passages)
    key = (document.id, number, spans, painted)
    kept = _KEPT.get(key)
    if kept is None:
        kept = _drawn(recipe, document, number, spans, painted=painted)
        _KEPT.put(key, kept)
    return kept


def forget() -> None:
    """Lets go of the pictures that are kept in memory."""
    _KEPT.clear()


def _drawn(recipe: RagRecipe, document: Document, number: int, passages: Sequence[Span], *, painted: bool) -> Picture:
    path = located(recipe.documents, document.source)
    again = f"Run: llmbench index build {recipe.source}"
    if path is None:
        raise NotShown(f"{document.source} no longer exists, so its pages cannot be shown. {again}")
    lines = [[_line(document, box, span) for box in document.boxes_of(*span) if box.page == number] for span in passages]
    request = {
        "path": str(path),
        "sha256": document.id,
        "pages": [{"number": number, "passages": lines}],
        "painted": painted,
        "password": password_at(recipe.documents, path),
    }
    child = Child()  # of its own: what one file makes of its reader is no other file's
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Unreadable(CHANGED)  # such a file is not indexed
        found = [frame["picture"] for frame in child.ask(request, seconds=SECONDS)]
        return _picture(found[0])
    except Unreadable as error:
        if str(error) == CHANGED:
            raise NotShown(f"{path} has {CHANGED}, so its pages are not shown. {again}") from error
        raise NotShown(f"{path}: page {number} cannot be shown: {error}.") from error
    except OSError as error:
        raise NotShown(f"{path} cannot be read ({error.strerror}), so its pages are not shown.") from error
    finally:
        child.close()


def _line(document: Document, box: Box, span: Span) -> list[float]:
    """A line's box, and how many of its characters stand before, in and after a passage."""
    start, end = max(span[0], box.start), min(span[1], box.end)
    counts = (_signs(document.text[a:b]) for a, b in ((box.start, start), (start, end), (end, box.end)))
    return [box.left, box.top, box.right, box.bottom, *counts]


def _signs(text: str) -> int:
    """How many characters are no spaces."""
    return sum(not sign.isspace() for sign in text)


def _picture(found: Any) -> Picture:
    """What a child drew, believed only as far as its types go.

    Raises:
        Unreadable: it is no picture.
    """
    try:
        png = base64.b64decode(found["png"], validate=True)
        areas = tuple(tuple(_area(*area) for area in passage) for passage in found["passages"])
        picture = Picture(int(found["number"]), int(found["width"]), int(found["height"]), png, areas)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise Unreadable("its reader returned an unexpected answer") from error
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise Unreadable("its reader returned an unexpected answer")
    return picture


def _area(left: float, top: float, right: float, bottom: float) -> Area:
    first, second, third, fourth = (min(max(float(side), 0.0), 1.0) for side in (left, top, right, bottom))
    return first, second, third, fourth


class _Kept:
    """The last pictures, for whoever turns a page back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[Any, Picture] = OrderedDict()

    def get(self, key: Any) -> Picture | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def clear(self) -> None:
        with self._lock:
            self._pictures.clear()

    def put(self, key: Any, picture: Picture) -> None:
        with self._lock:
            self._pictures[key] = picture
            while len(self._pictures) > KEPT:
                self._pictures.popitem(last=False)


_KEPT = _Kept()
