"""Small files of every kind, written by the tests themselves."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from llmbench.recipe import SourceSpec
from llmbench.retrieval.documents import Document
from llmbench.retrieval.reading import File, read, read_all

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
A = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
CORE = (
    '<cp:p xmlns:cp="c" xmlns:dc="d" xmlns:t="t"><dc:title>The plan</dc:title><dc:creator>Ada</dc:creator>'
    "<t:created>2026-01-02T00:00:00Z</t:created></cp:p>"
)


def saved(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


def document(path: Path, **place: object) -> Document:
    return read(File(path, path.name, SourceSpec.model_validate({"path": path, **place})))


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return packed.getvalue()


def relations(*entries: tuple[str, str, str]) -> str:
    inner = "".join(f'<Relationship Id="{i}" Type="{RELATION}/{kind}" Target="{to}"/>' for i, kind, to in entries)
    return f"<Relationships>{inner}</Relationships>"


def docx(body: str, **parts: str) -> bytes:
    """A DOCX with a body; `styles`, `footnotes`, `header1` as further parts."""
    styles = f'<w:styles {W}><w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>' + (
        '<w:style w:styleId="Mine"><w:basedOn w:val="berschrift1"/></w:style></w:styles>'
    )
    all_parts = {"styles": styles, **parts}
    entries = [(f"r{n}", name.rstrip("0123456789"), f"{name}.xml") for n, name in enumerate(all_parts)]
    return zipped(
        {
            "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relations(*entries),
            "docProps/core.xml": CORE,
            **{f"word/{name}.xml": text for name, text in all_parts.items()},
        }
    )


def paragraph(text: str, style: str = "", more: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r>{more}</w:p>"


def pptx(*slides: str, more: Mapping[str, str] | None = None) -> bytes:
    """A PPTX whose slides hold these shapes."""
    ids = "".join(f'<p:sldId r:id="r{n}"/>' for n in range(len(slides)))
    parts = {
        "ppt/presentation.xml": f"<p:presentation {A}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(*((f"r{n}", "slide", f"slides/s{n}.xml") for n in range(len(slides)))),
        "docProps/core.xml": CORE,
    }
    for n, shapes in enumerate(slides):
        parts[f"ppt/slides/s{n}.xml"] = f"<p:sld {A}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"
    return zipped({**parts, **(more or {})})


def shape(text: str, kind: str = "", top: int = 0, left: int = 0) -> str:
    holder = f'<p:nvPr><p:ph type="{kind}"/></p:nvPr>' if kind else ""
    return (
        f'<p:sp>{holder}<p:spPr><a:xfrm><a:off x="{left}" y="{top}"/></a:xfrm></p:spPr>'
        f"<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def odt(body: str) -> bytes:
    spaces = (
        'xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"<o:document-content {spaces}><o:body><o:text>{body}</o:text></o:body></o:document-content>",
        }
    )


def xlsx(rows: list[list[str | float]]) -> bytes:
    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>' if value else "<c/>"
        return f"<c><v>{value}</v></c>"

    spread = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    data = "".join(
        f'<row r="{n}">' + "".join(cell(v).replace("<c", f'<c r="{chr(65 + at)}{n}"', 1) for at, v in enumerate(row)) + "</row>"
        for n, row in enumerate(rows, 1)
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": relations(("r0", "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook {spread} xmlns:r="{RELATION}"><sheets><sheet name="Teams" sheetId="1" r:id="r1"/>'
            "</sheets></workbook>",
            "xl/_rels/workbook.xml.rels": relations(("r1", "worksheet", "worksheets/sheet1.xml")),
            "xl/worksheets/sheet1.xml": f"<worksheet {spread}><sheetData>{data}</sheetData></worksheet>",
        }
    )


def epub(*chapters: str) -> bytes:
    items = "".join(f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in reversed(range(len(chapters))))
    about = "<metadata><dc:title>A book</dc:title><dc:creator>Bo</dc:creator></metadata>"
    package = f'<package xmlns:dc="d">{about}{items}{spine}</package>'
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfile full-path="in/b.opf"/></container>',
        "in/b.opf": package,
    }
    return zipped({**parts, **{f"in/c{n}.xhtml": text for n, text in enumerate(chapters)}})


def ole(streams: Mapping[str, bytes]) -> bytes:
    """An OLE compound file (MS-CFB, version 3) with these small streams, whose names are paths of storages."""
    free, end, none = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF
    paths = sorted({"/".join(path.split("/")[:n]) for path in streams for n in range(1, path.count("/") + 2)})
    mini, chains, starts = b"", [], {}
    for path, data in streams.items():
        count = -(-len(data) // 64)
        first = len(mini) // 64
        starts[path] = first if count else end
        chains += [first + n + 1 for n in range(count - 1)] + [end] * bool(count)
        mini += data.ljust(count * 64, b"\0")
    children: dict[str, list[int]] = {}
    for number, path in enumerate(paths, 1):
        children.setdefault(path.rpartition("/")[0], []).append(number)
    following = {a: b for kids in children.values() for a, b in pairwise(kids)}

    def entry(number: int, name: str, kind: int, child: int, start: int, size: int) -> bytes:
        raw = name.encode("utf-16-le") + b"\0\0"
        head = raw.ljust(64, b"\0") + struct.pack("<HBB", len(raw), kind, 1)
        links = struct.pack("<III", none, following.get(number, none), child)
        return head + links + bytes(36) + struct.pack("<IQ", start, size)

    def sectors(data: bytes) -> list[bytes]:
        return [data[at : at + 512].ljust(512, b"\0") for at in range(0, len(data), 512)]

    minifat = b"".join(number.to_bytes(4, "little") for number in chains)
    minifat = minifat.ljust(-(-max(len(minifat), 1) // 512) * 512, b"\xff")
    counts = [-(-128 * (len(paths) + 1) // 512), len(minifat) // 512, -(-len(mini) // 512)]
    places = [1, 1 + counts[0], 1 + counts[0] + counts[1]]
    tree = entry(0, "Root Entry", 5, children[""][0], places[2] if mini else end, len(mini))
    for number, path in enumerate(paths, 1):
        kind, child = (2, none) if path in streams else (1, children[path][0])
        start, size = (starts[path], len(streams[path])) if path in streams else (0, 0)
        tree += entry(number, path.rpartition("/")[2], kind, child, start, size)
    fat = [0xFFFFFFFD]
    for place, count in zip(places, counts, strict=True):
        fat += [place + n + 1 for n in range(count - 1)] + [end] * bool(count)
    fat += [free] * (128 - len(fat))
    head = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(16)
        + struct.pack("<HHHHH6xIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, places[1], counts[1], end, 0)
    )
    head += b"".join(n.to_bytes(4, "little") for n in [0, *[free] * 108])
    return head + b"".join(n.to_bytes(4, "little") for n in fat) + b"".join(sectors(tree)) + minifat + b"".join(sectors(mini))


def readings(path: Path, **place: object) -> tuple[dict[str, Document], str]:
    """Every document of a file by its source, and what is told of the rest."""
    found: dict[str, Document] = {}
    failures: list[str] = []
    for reading in read_all([File(path, path.name, SourceSpec.model_validate({"path": path, **place}))], workers=1):
        found |= {each.source: each for each in reading.documents}
        failures += [reading.failure] if reading.failure else []
    return found, "; ".join(failures)
