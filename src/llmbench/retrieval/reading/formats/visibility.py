"""Text of a PDF that no reader of the page sees: outside it, without ink, white on white, tiny."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

__all__ = ["Unseen", "seen"]

Unseen = tuple[str, str]
"""Why it is not seen, and its words."""
Sides = tuple[float, float, float, float]
_SAID = {
    "invisible": "in invisible text mode",
    "transparent": "fully transparent",
    "white": "white on white",
    "tiny": "smaller than 1 point",
    "outside": "outside the page",
}


class _Stretch(Protocol):
    @property
    def box(self) -> Sides: ...
    @property
    def unseen(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


S = TypeVar("S", bound=_Stretch)


def seen(page: Any, stretches: Sequence[S], words: Callable[[S], str]) -> tuple[list[S], list[Unseen]]:
    """The stretches that are seen, and the others with the reason in words.

    Text without ink is the layer that OCR puts under the picture of a page: it counts as seen where nothing else is written
    on the page, or where a picture lies there. White counts as seen where something is painted under it.
    """
    edge: Sides = page.get_bbox()
    doubtful = [bool(part.unseen) or _outside(part.box, edge) for part in stretches]
    if not any(doubtful):
        return list(stretches), []
    inked = any(not doubt and words(part) for part, doubt in zip(stretches, doubtful, strict=True))
    pictures, painted = _painted(page)
    kept: list[S] = []
    hidden: list[Unseen] = []
    for part, doubt in zip(stretches, doubtful, strict=True):
        why = part.unseen
        if doubt and _outside(part.box, edge):
            why = "outside"
        elif why == "invisible":
            why = "invisible" if inked and not _lies_on(part.box, pictures) else ""
        elif why == "white":
            why = "" if _lies_on(part.box, pictures) or _lies_on(part.box, painted) else "white"
        if not why:
            kept.append(part)
        elif text := words(part):
            hidden.append((_SAID[why], text))
    return kept, hidden


def _outside(box: Sides, edge: Sides) -> bool:
    return box[2] <= edge[0] or box[0] >= edge[2] or box[3] <= edge[1] or box[1] >= edge[3]


def _lies_on(box: Sides, areas: Sequence[Sides]) -> bool:
    """Whether the middle of a box lies on one of the areas."""
    across, up = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(left <= across <= right and bottom <= up <= top for left, bottom, right, top in areas)


def _painted(page: Any) -> tuple[list[Sides], list[Sides]]:
    """Where pictures (or drawings that may hold some) lie, and where something other than white is painted."""
    import pypdfium2.raw as pdfium

    pictures: list[Sides] = []
    painted: list[Sides] = []
    for thing in _things(page):
        match pdfium.FPDFPageObj_GetType(thing):
            case pdfium.FPDF_PAGEOBJ_IMAGE | pdfium.FPDF_PAGEOBJ_FORM | pdfium.FPDF_PAGEOBJ_SHADING:
                pictures.append(_bounds(thing))
            case pdfium.FPDF_PAGEOBJ_PATH:
                mode, stroke = ctypes.c_int(), ctypes.c_int()
                colours = [ctypes.c_uint() for _ in range(4)]
                pdfium.FPDFPath_GetDrawMode(thing, mode, stroke)
                if mode.value:
                    plain = pdfium.FPDFPageObj_GetFillColor(thing, *colours)  # else a pattern
                    *colour, alpha = (colour.value for colour in colours)
                    if not plain or (alpha > 5 and min(colour) < 250):
                        painted.append(_bounds(thing))
    return pictures, painted


def _things(page: Any) -> Iterator[Any]:
    import pypdfium2.raw as pdfium

    for at in range(pdfium.FPDFPage_CountObjects(page.raw)):
        if thing := pdfium.FPDFPage_GetObject(page.raw, at):
            yield thing


def _bounds(thing: Any) -> Sides:
    import pypdfium2.raw as pdfium

    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    pdfium.FPDFPageObj_GetBounds(thing, left, bottom, right, top)
    return left.value, bottom.value, right.value, top.value
