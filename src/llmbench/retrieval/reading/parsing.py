"""Which reader takes which bytes, and the documents that they give: one, or several where files lie within the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from llmbench.retrieval.documents import LOCKED, UNREAD_CIPHER, Document, Unreadable
from llmbench.retrieval.reading.kinds import kind_of, kind_of_bytes, seen
from llmbench.retrieval.reading.writer import Writer

__all__ = ["documents", "failure_of", "parsed"]

DEEPEST = 4
"""Files within files: a report in an archive in a message in a mailbox."""
PARTS = 100_000
"""Files within one file."""
BYTES = 512 * 2**20
"""Bytes of all files within one file, unpacked."""
_PLAIN = ("text", "markdown", "code")


class _Room:
    """What the files within one file may still take, and what holds for each of them."""

    def __init__(self, largest: int, password: str) -> None:
        self.parts, self.bytes = PARTS, BYTES
        self.largest, self.password = largest, password

    def take(self, size: int) -> None:
        self.parts, self.bytes = self.parts - 1, self.bytes - size
        if self.parts < 0:
            raise Unreadable(f"it contains more than {PARTS:,} files; unpack it")
        if self.bytes < 0:
            raise Unreadable(f"its contents unpack to more than {BYTES // 2**20} MiB; unpack it")


def documents(data: bytes, kind: str, suffix: str, largest: int, password: str = "") -> Iterator[dict[str, Any]]:
    """Frames of `{"document": ...}`, and `{"left": [name, reason]}` for a file within the file that gives none.

    A document's `name` is empty for the file itself and `#order.txt` for a file within it.

    Raises:
        Unreadable: the file itself gives nothing.
    """
    yield from _documents(data, kind, suffix, "", _Room(largest, password))


def _documents(data: bytes, kind: str, suffix: str, name: str, room: _Room) -> Iterator[dict[str, Any]]:
    identity = hashlib.sha256(data).hexdigest()
    if name and kind in _PLAIN and not seen(data[:1024]):
        yield {"document": {**_plain(data, identity, name, kind, suffix), "name": name}}
        return
    try:
        out = parsed(data, kind, suffix, room.largest, room.password)
    except Unreadable as error:
        if room.password and str(error) == LOCKED:  # of a format that no password opens here
            raise Unreadable(UNREAD_CIPHER) from None
        raise
    if not out.holder:
        yield {"document": {**out.finished(), "id": identity, "name": name}}
    names: dict[str, int] = {}
    for part, content in out.parts:
        label = _free(f"{name}#{part}", names)
        if isinstance(content, Unreadable):
            yield {"left": [label, str(content)]}
            continue
        room.take(len(content))
        inner = out.inner or kind_of(part)[0] or kind_of_bytes(part, content[:1024])
        if not inner:
            continue
        if name.count("#") + 1 >= DEEPEST:
            yield {"left": [label, "files are nested too deeply"]}
            continue
        try:
            yield from _documents(content, inner, _suffix(part), label, room)
        except MemoryError:
            raise
        except Exception as error:  # a part that is broken costs that part
            yield {"left": [label, failure_of(error)]}


def _free(label: str, names: dict[str, int]) -> str:
    """The name, with a number where two parts are called the same; `names` has of each the highest number so far."""
    count = names.get(label, 0) + 1
    while (found := label if count == 1 else f"{label} ({count})") in names:
        count += 1
    names[label] = count
    names.setdefault(found, 1)
    return found


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def _plain(data: bytes, identity: str, name: str, kind: str, suffix: str) -> dict[str, Any]:
    from llmbench.retrieval.reading import plain

    part = name.rpartition("#")[2]
    found: Document = plain.document(data, identity, part, kind, kind_of(part)[1], suffix)
    fields = asdict(found)
    fields["headings"] = [tuple(heading.values()) for heading in fields["headings"]]
    return {**fields, "unread": []}


def failure_of(error: BaseException) -> str:
    """Why a file gave nothing, in words: what a hostile file makes of a parser is the file's fault, and is reported."""
    match error:
        case Unreadable():
            return str(error)
        case RecursionError():
            return "broken: nested too deeply"
        case ImportError():
            return f"needs {error.name}, which is not installed (pip install 'llmbench[rag]')"
        case _:
            return f"broken ({_words(error)})"


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def parsed(data: bytes, kind: str, suffix: str, largest: int, password: str = "") -> Writer:
    """Reads the bytes of a file as what they are; a name that says otherwise is warned of. An empty password is none."""
    if seen(data[:1024]) == "ole":
        from llmbench.retrieval.reading.formats import encrypted

        data = encrypted.decrypted(data, password)
    if kind == "xml":
        from llmbench.retrieval.reading.formats import flat

        if within := flat.kind_of_flat(data):
            data, kind = flat.packed(data), within
    real = _real(data, kind, password)
    out = Writer(real, largest=largest)
    if kind and real != kind:
        out.warnings.append(f"named like {kind}, but is {real}")
    if not (_paginated(real, data, out, password) or _other(real, data, out, suffix, password)):
        raise Unreadable(f"{real}, which is not supported")
    return out


def _paginated(kind: str, data: bytes, out: Writer, password: str) -> bool:
    """Reads what people write and lay out; False where it is something else."""
    match kind:
        case "pdf":
            from llmbench.retrieval.reading.formats import pdf as reader

            reader.read(data, out, password=password)
        case "docx":
            from llmbench.retrieval.reading.formats import docx

            docx.read(data, out)
        case "pptx":
            from llmbench.retrieval.reading.formats import pptx

            pptx.read(data, out)
        case "xlsx":
            from llmbench.retrieval.reading.formats import workbook

            workbook.read(data, out)
        case "odt" | "odp":
            from llmbench.retrieval.reading.formats import odf

            odf.read(data, out)
        case "epub":
            from llmbench.retrieval.reading.formats import epub

            epub.read(data, out)
        case "rtf":
            from llmbench.retrieval.reading.formats import rtf

            rtf.read(data, out)
        case "doc":
            from llmbench.retrieval.reading.formats import doc

            doc.read(data, out)
        case "ppt":
            from llmbench.retrieval.reading.formats import ppt

            ppt.read(data, out)
        case _:
            return False
    return True


def _other(kind: str, data: bytes, out: Writer, suffix: str, password: str) -> bool:
    """Reads pages of the web, messages, values and archives; False where it is something else."""
    match kind:
        case "html":
            from llmbench.retrieval.reading.formats import html

            html.read(data, out)
        case "csv":
            from llmbench.retrieval.reading.formats import tables

            tables.read_csv(data, out, suffix)
        case "email" | "mbox":
            from llmbench.retrieval.reading.formats import mail

            mail.read_eml(data, out) if kind == "email" else mail.read_mbox(data, out)
        case "calendar":
            from llmbench.retrieval.reading.formats import calendar

            calendar.read(data, out)
        case "msg":
            from llmbench.retrieval.reading.formats import outlook

            outlook.read(data, out)
            out.kind = "email"
        case "zip":
            from llmbench.retrieval.reading.archive import Archive

            out.holder, out.parts = True, Archive(data, password).files()
        case "json" | "notebook":
            from llmbench.retrieval.reading.formats import data as values

            values.read_json(data, out) if kind == "json" else values.read_notebook(data, out)
        case "xml":
            from llmbench.retrieval.reading.formats import data as values
            from llmbench.retrieval.reading.formats import markup

            values.read_plist(data, out) if suffix == ".plist" else markup.read(data, out)
        case _:
            return False
    return True


_NAMED = {
    "pdf": "PDF",
    "docx": "DOCX",
    "pptx": "PPTX",
    "xlsx": "workbook",
    "odt": "ODT",
    "odp": "ODP",
    "epub": "EPUB",
    "rtf": "RTF",
}


def _real(data: bytes, kind: str, password: str) -> str:
    """The kind by the first bytes, and by what is in the container; the name's kind where those say nothing."""
    if not data:
        raise Unreadable("empty")
    what = seen(data[:1024])
    match what:
        case "zip":
            return _in_zip(data, kind, password)
        case "ole":
            return _in_ole(data)
        case "pdf" | "rtf":
            return what
        case "html" if kind not in ("xml", "email"):
            return what
        case "a picture" | "a program" | "an archive" | "a database":
            raise Unreadable(f"named like {kind}, but is {what}" if kind else f"it is {what}")
    if kind in _NAMED or kind in ("doc", "msg", "ppt"):
        if kind == "xlsx" and data[:2] in (b"\x09\x00", b"\x09\x02", b"\x09\x04", b"\x09\x08"):
            return kind
        name = _NAMED.get(kind, kind.upper())
        raise Unreadable(f"broken {name} (cut off, or another kind of file)")
    return kind


def _in_zip(data: bytes, kind: str, password: str) -> str:
    from llmbench.retrieval.reading.archive import Archive

    archive = Archive(data, password)
    names = archive.names
    mimetype = archive.read("mimetype")[:80].decode("ascii", "replace") if "mimetype" in names else ""
    for start, found in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if any(name.startswith(start) for name in names) and (kind != "zip" or "[Content_Types].xml" in names):
            return found
    for end, found in (("epub+zip", "epub"), (".text", "odt"), (".spreadsheet", "xlsx"), (".presentation", "odp")):
        if mimetype.strip().endswith(end):
            return found
    if "META-INF/container.xml" in names:
        return "epub"
    if kind == "zip":
        return kind
    raise Unreadable("a zip file; to have its files read, unpack it or rename it to end in .zip")


def _in_ole(data: bytes) -> str:
    import io

    import olefile

    try:
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            top = {path[0].lower() for path in ole.listdir()}
    except Exception as error:  # olefile raises many things on broken files
        raise Unreadable(f"broken ({_words(error)})") from None
    for name, kind in (
        ("worddocument", "doc"),
        ("workbook", "xlsx"),
        ("book", "xlsx"),
        ("powerpoint document", "ppt"),
        ("__properties_version1.0", "msg"),
    ):
        if name in top:
            return kind
    if "encryptedpackage" in top:
        raise Unreadable(LOCKED)
    raise Unreadable("an unsupported kind of OLE file")
