"""What people added to a page of a PDF: what they filled into its fields, and the comments that they put on it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from llmbench.retrieval.reading.formats.layout import Area, Piece
from llmbench.retrieval.reading.formats.pieces import upright

__all__ = ["Added", "among", "beside", "read"]

MOST = 5000
"""Annotations of one page that are looked at."""
NEAR = 250
"""Points from a field to the label on its left."""
_UNSEEN = 1 | 2 | 32
"""Flags of an annotation that is not shown: invisible, hidden, no view."""
_PASSWORD = 1 << 13
"""Flag of a text field whose value is not shown."""


@dataclass(frozen=True)
class Added:
    """The values of a page's fields and its comments, each as a piece at its place, in the order of the file."""

    fields: tuple[tuple[Piece, str], ...]
    """Each value with the name of its field, for want of a label."""
    comments: tuple[Piece, ...]


def read(page: Any, form: Any, words_on_page: Callable[[], str]) -> Added:
    """Reads the annotations of a page.

    Args:
        page: pypdfium2's page.
        form: PDFium's form environment, None where the document has no fields.
        words_on_page: gives the page's own text; what a link says of itself is left out where the page says it.
    """
    import pypdfium2.raw as pdfium

    fields: list[tuple[Piece, str]] = []
    comments: list[Piece] = []
    edge, turn = page.get_bbox(), page.get_rotation() % 360
    for at in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), MOST)):
        with _annotation(page, at) as annotation:
            if annotation is None or pdfium.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
                continue
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            if kind == pdfium.FPDF_ANNOT_WIDGET:
                text, name = _filled(form, annotation) if form is not None else ("", "")
                if text:
                    fields.append((Piece(*_place(annotation, edge, turn), text), name))
            elif kind != pdfium.FPDF_ANNOT_POPUP and (text := _said(annotation, kind)):
                if kind == pdfium.FPDF_ANNOT_LINK and (_ADDRESS.match(text) or _folded(text) in _folded(words_on_page())):
                    continue
                comments.append(Piece(*_place(annotation, edge, turn), text))
    return Added(tuple(fields), tuple(comments))


_ADDRESS = re.compile(r"\s*(?:https?:|mailto:|www\.)\S*\s*$", re.IGNORECASE)


def _folded(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


@contextmanager
def _annotation(page: Any, at: int) -> Iterator[Any]:
    import pypdfium2.raw as pdfium

    annotation = pdfium.FPDFPage_GetAnnot(page.raw, at)
    try:
        yield annotation or None
    finally:
        if annotation:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _place(annotation: Any, edge: tuple[float, float, float, float], turn: int) -> tuple[float, float, float, float]:
    import pypdfium2.raw as pdfium

    box = pdfium.FS_RECTF()
    pdfium.FPDFAnnot_GetRect(annotation, box)
    return upright((box.left, min(box.bottom, box.top), box.right, max(box.bottom, box.top)), edge, turn)


def _string(ask: Callable[[Any, int], int]) -> str:
    """What PDFium writes into a buffer of UTF-16, asked for its length first."""
    size = min(ask(None, 0), 2**20)
    if size <= 2:
        return ""
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    ask(buffer, size)
    return bytes(buffer)[: size - 2].decode("utf-16-le", "replace").replace("\0", "").strip()


def _value(annotation: Any, key: bytes) -> str:
    import pypdfium2.raw as pdfium

    return _string(lambda buffer, size: pdfium.FPDFAnnot_GetStringValue(annotation, key, buffer, size))


def _filled(form: Any, annotation: Any) -> tuple[str, str]:
    """What a field holds, and its name: its tooltip where it has one. Empty where nothing was filled in or ticked."""
    import pypdfium2.raw as pdfium

    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    text = ""
    match kind:
        case pdfium.FPDF_FORMFIELD_CHECKBOX | pdfium.FPDF_FORMFIELD_RADIOBUTTON:
            text = "[x]" if pdfium.FPDFAnnot_IsChecked(form, annotation) else ""
        case pdfium.FPDF_FORMFIELD_COMBOBOX | pdfium.FPDF_FORMFIELD_LISTBOX:
            text = ", ".join(_chosen(form, annotation))
            text = text or _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, size))
        case pdfium.FPDF_FORMFIELD_TEXTFIELD if not pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
            text = _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, size))
    if not text:
        return "", ""
    name = _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldAlternateName(form, annotation, buffer, size))
    name = name or _string(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldName(form, annotation, buffer, size))
    return " ".join(text.split()), " ".join(name.split())


def _chosen(form: Any, annotation: Any) -> Iterator[str]:
    import pypdfium2.raw as pdfium

    for at in range(min(max(pdfium.FPDFAnnot_GetOptionCount(form, annotation), 0), MOST)):
        if pdfium.FPDFAnnot_IsOptionSelected(form, annotation, at):
            yield _string(lambda buffer, size, at=at: pdfium.FPDFAnnot_GetOptionLabel(form, annotation, at, buffer, size))  # type: ignore[misc]


def _said(annotation: Any, kind: int) -> str:
    """A comment in one line, with who made it; a stamp without words says its name (`Approved`)."""
    import pypdfium2.raw as pdfium

    text = _value(annotation, b"Contents") or re.sub(r"<[^>]{1,2000}>", " ", _value(annotation, b"RC"))
    if not text.strip() and kind == pdfium.FPDF_ANNOT_STAMP:
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _value(annotation, b"Name"))
    text = " ".join(text.split())
    if not text or kind == pdfium.FPDF_ANNOT_LINK:
        return text
    author = " ".join(_value(annotation, b"T").split()) if kind != pdfium.FPDF_ANNOT_WATERMARK else ""
    return f"Comment ({author}): {text}" if author else f"Comment: {text}"


def beside(pieces: Sequence[Piece], fields: Sequence[tuple[Piece, str]]) -> tuple[list[Piece], list[tuple[Piece, str]]]:
    """The pieces of a page with what was filled in, behind the words at whose side it stands; and the fields that stand alone.

    Two forms side by side, and buttons to choose by, share a line: each value keeps its place in it.
    """
    behind: dict[int, list[Piece]] = {}
    alone: list[tuple[Piece, str]] = []
    rows = [[piece] for piece in pieces] if fields else []
    for field, name in fields:
        at = _row(field, rows)
        if at is None or field.height > 2.5 * pieces[at].height:
            alone.append((field, name))
        else:
            behind.setdefault(at, []).append(field)
    return [part for at, piece in enumerate(pieces) for part in (piece, *behind.get(at, ()))], alone


def among(lines: Sequence[Piece], fields: Sequence[tuple[Piece, str]]) -> list[Piece]:
    """The lines of a page with what was filled into its fields: in the line of the label at its left, under the label above
    it, else where it stands, behind the field's name.
    """
    found = [[line] for line in lines]
    loose: list[Piece] = []
    for field, name in sorted(fields, key=lambda entry: (round(entry[0].top / 4), entry[0].left)):
        ticked = field.text == "[x]"
        row = _row(field, found)
        if row is not None:
            found[row].append(field)
            continue
        named = replace(field, text=f"{name}: {'yes' if ticked else field.text}" if name else field.text)
        above = _above(field, found)
        if above is not None and not ticked:
            found.insert(above + 1, [field])
        else:
            loose.append(named)
    for piece in loose:  # by height: a form's fields are rarely in the order of its text
        at = next((n for n, row in enumerate(found) if row[0].top > piece.bottom), len(found))
        found.insert(at, [piece])
    return [_line(row) for row in found]


def _row(field: Area, lines: Sequence[Sequence[Piece]]) -> int | None:
    """The line at whose height a field stands, beside its words: on the left within reach, or close to it on the right."""
    best: tuple[float, int] | None = None
    for at, row in enumerate(lines):
        first = row[0]
        middle = (first.top + first.bottom) / 2
        if not field.top - 2 <= middle <= field.bottom + 2 or (
            field.height > 2.5 * first.height and middle > field.top + 2 * first.height
        ):
            continue
        gap = field.left - row[-1].right if field.left >= first.left else first.left - field.right
        if gap < (NEAR if field.left >= first.left else 30) and (best is None or gap < best[0]):
            best = gap, at
    return best[1] if best else None


def _above(field: Area, lines: Sequence[Sequence[Piece]]) -> int | None:
    """The line that stands closely above a field."""
    for at, row in enumerate(lines):
        for label in row:
            over = min(label.right, field.right) - max(label.left, field.left)
            if over > 0 and -3 <= field.top - label.bottom < 1.2 * label.height:
                return at
    return None


def _line(row: Sequence[Piece]) -> Piece:
    """A line with the fields in it, from left to right."""
    if len(row) == 1:
        return row[0]
    ordered = sorted(row, key=lambda piece: piece.left)
    text = "  ".join(piece.text for piece in ordered)
    sides = (min(p.left for p in row), min(p.top for p in row), max(p.right for p in row), max(p.bottom for p in row))
    return replace(row[0], text=text, left=sides[0], top=sides[1], right=sides[2], bottom=sides[3])
