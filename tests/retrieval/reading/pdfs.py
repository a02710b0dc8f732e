"""PDF files written object by object, for what no library writes: fields, ligatures, hidden text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import saved


def pdf(
    folder: Path,
    name: str,
    content: str,
    *,
    annotations: Sequence[str] = (),
    unicode: Mapping[int, str] | None = None,
    datasets: str = "",
) -> Path:
    """A PDF of one page of 400 by 400 points, in Helvetica (`/F`) and in its bold (`/B`).

    Args:
        folder: where it is written.
        name: its name.
        content: the page's content stream.
        annotations: dictionaries; those of fields are the form's.
        unicode: what the codes of the font `/U` stand for.
        datasets: the values of an XFA form, as XML.
    """
    maps = "".join(f"<{code:02x}> <{text.encode('utf-16-be').hex()}>\n" for code, text in (unicode or {}).items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def 1 begincodespacerange <00> <ff> "
        f"endcodespacerange {len(unicode or {})} beginbfchar\n{maps}endbfchar endcmap end end"
    )
    first = 9
    places = " ".join(f"{first + n} 0 R" for n in range(len(annotations)))
    fields = " ".join(f"{first + n} 0 R" for n, entry in enumerate(annotations) if "/Widget" in entry)
    packets = f"/XFA[(datasets) {first + len(annotations)} 0 R]" if datasets else ""
    objects = [
        f"<</Type/Catalog/Pages 2 0 R/AcroForm<<{packets}/Fields[{fields}]/DA(/F 10 Tf)/DR<</Font<</F 5 0 R>>>>>>>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 400]/Contents 4 0 R/Resources<</Font<</F 5 0 R/B 6 0 R/U 7 0 R>>"
        f"/ExtGState<</Clear<</ca 0>>>>>>/Annots[{places}]>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica-Bold>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Courier/ToUnicode 8 0 R>>",
        f"<</Length {len(cmap)}>>stream\n{cmap}\nendstream",
        *annotations,
        *([f"<</Length {len(datasets)}>>stream\n{datasets}\nendstream"] if datasets else []),
    ]
    body, offsets = b"%PDF-1.7\n", []
    for number, thing in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{thing}\nendobj\n".encode("latin-1")
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF"
    return saved(folder, name, body + (table + end).encode())


def text(left: float, top: float, words: str, *, font: str = "F", size: float = 10, before: str = "") -> str:
    """Operators that write words at a place: points from the left and the top."""
    return f"q {before} BT /{font} {size} Tf {left} {400 - top} Td ({words}) Tj ET Q\n"


def field(kind: str, top: float, more: str, *, left: float = 200, width: float = 150, height: float = 16) -> str:
    """A field of a form: `Tx` (text), `Btn` (to tick) or `Ch` (to choose from)."""
    return (
        f"<</Type/Annot/Subtype/Widget/FT/{kind}/Rect[{left} {400 - top - height} {left + width} {400 - top}]/P 3 0 R{more}>>"
    )
