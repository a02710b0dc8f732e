"""The process that reads files for another: requests come in as lines of JSON, answers go out as frames of JSON.

Started by its path, with the packages around it registered but not run: it starts in 0.15 s of processor time instead of
1.1, and nothing of the parent is within its reach. A frame is 8 bytes of length, then `{"document": ...}`, `{"rows": ...}`,
`{"picture": ...}` or `{"end": ...}`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import resource
import signal
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    _here = Path(__file__).resolve().parent
    sys.path.insert(0, str(_here.parents[2]))
    for _name, _folder in (("llmbench.retrieval", _here.parent), ("llmbench.retrieval.reading", _here)):
        _package = types.ModuleType(_name)
        _package.__path__ = [str(_folder)]
        sys.modules[_name] = _package

from llmbench.retrieval.documents import CHANGED, LOCKED, Momentary, Unreadable, not_read
from llmbench.retrieval.reading.kinds import seen
from llmbench.retrieval.reading.writer import Writer

RESIDENT = 400 * 2**20
"""Bytes of memory in use after a file above which the process ends, for a new one to begin."""


def serve(limits: dict[str, int]) -> None:
    """Answers requests until there are no more, or it has read enough."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not look like an answer
    for served, line in enumerate(sys.stdin.buffer, 1):
        request = json.loads(line)
        failure, momentary = "", False
        try:
            for frame in _frames(request, limits):
                _send(answers, frame)
        except Unreadable as error:
            failure = str(error)
        except MemoryError:
            failure = f"needs more than {limits['memory'] // 2**20} MiB to read"
        except RecursionError:
            failure = "broken: nested without end"
        except OSError as error:
            found = not_read(error)
            failure, momentary = str(found), isinstance(found, Momentary)
        except ImportError as error:
            failure = f"needs {error.name}, which is not installed (pip install 'llmbench[rag]')"
        except Exception as error:  # whatever a hostile file makes of a parser is the file's fault, and is reported
            failure = f"broken ({_words(error)})"
        leaving = served >= limits["files"] or "MiB to read" in failure or _resident() > RESIDENT
        _send(answers, {"end": failure, "momentary": momentary, "leaving": leaving})
        if leaving:
            return


def _frames(request: dict[str, Any], limits: dict[str, int]) -> Iterator[dict[str, Any]]:
    """What one file gives."""
    _allow(request["seconds"])
    path = Path(request["path"])
    if request.get("columns") is not None:
        from llmbench.retrieval.reading.rows import batches

        for batch in batches(path, request["columns"], limits["text"]):
            yield {"rows": batch}
            _allow(request["seconds"])
        return
    data = path.read_bytes()
    if request.get("pages") is not None:
        from llmbench.retrieval.reading.picture import pictures

        if hashlib.sha256(data).hexdigest() != request["sha256"]:  # of the very bytes that are drawn
            raise Unreadable(CHANGED)
        for picture in pictures(data, request["pages"], painted=request["painted"], password=request["password"]):
            yield {"picture": picture}
            _allow(request["seconds"])
        return
    suffix = path.suffix.lower() or request["suffix"]
    out = parsed(data, request["kind"], suffix, limits["text"], request["password"])
    document = out.finished()
    yield {"document": {**document, "id": hashlib.sha256(data).hexdigest()}}


def parsed(data: bytes, kind: str, suffix: str, largest: int, password: str = "") -> Writer:
    """Reads the bytes of a file as what they are; a name that says otherwise is warned of. An empty password is none."""
    real = _real(data, kind)
    out = Writer(real, largest=largest)
    if kind and real != kind:
        out.warnings.append(f"named like {kind}, but it is {real}")
    match real:
        case "pdf":
            from llmbench.retrieval.reading.formats import pdf as reader

            reader.read(data, out, password=password)
        case "html":
            from llmbench.retrieval.reading.formats import html

            html.read(data, out)
        case "docx":
            from llmbench.retrieval.reading.formats import docx

            docx.read(data, out)
        case "pptx":
            from llmbench.retrieval.reading.formats import pptx

            pptx.read(data, out)
        case "xlsx" | "csv":
            from llmbench.retrieval.reading.formats import tables

            tables.read_csv(data, out, suffix) if real == "csv" else tables.read_workbook(data, out)
        case "odt" | "odp":
            from llmbench.retrieval.reading.formats import odf

            odf.read(data, out)
        case "epub":
            from llmbench.retrieval.reading.formats import epub

            epub.read(data, out)
        case "rtf":
            from llmbench.retrieval.reading.formats import rtf

            rtf.read(data, out)
        case "email" | "msg":
            from llmbench.retrieval.reading.formats import mail

            mail.read_eml(data, out) if real == "email" else mail.read_msg(data, out)
            out.kind = "email"
        case "doc":
            from llmbench.retrieval.reading.formats import doc

            doc.read(data, out)
        case "json" | "notebook" | "xml":
            from llmbench.retrieval.reading.formats import data as values

            {"json": values.read_json, "notebook": values.read_notebook, "xml": values.read_xml}[real](data, out)
        case _:
            raise Unreadable(
                "PowerPoint's binary format is not read; save it as PPTX" if real == "ppt" else f"{real}, which is not read"
            )
    return out


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


def _real(data: bytes, kind: str) -> str:
    """The kind by the first bytes, and by what is in the container; the name's kind where those say nothing."""
    if not data:
        raise Unreadable("empty")
    what = seen(data[:1024])
    match what:
        case "zip":
            return _in_zip(data)
        case "ole":
            return _in_ole(data)
        case "pdf" | "rtf":
            return what
        case "html" if kind not in ("xml", "email"):
            return what
        case "a picture" | "a program" | "an archive" | "a database":
            raise Unreadable(f"named like {kind}, but it is {what}" if kind else f"it is {what}")
    if kind in _NAMED or kind in ("doc", "msg", "ppt"):
        if kind == "xlsx" and data[:2] in (b"\x09\x00", b"\x09\x02", b"\x09\x04", b"\x09\x08"):
            return kind
        name = _NAMED.get(kind, kind.upper())
        raise Unreadable(f"broken {name} (cut off, or something else by that name)")
    return kind


def _in_zip(data: bytes) -> str:
    from llmbench.retrieval.reading.archive import Archive

    archive = Archive(data)
    names = archive.names
    mimetype = archive.read("mimetype")[:80].decode("ascii", "replace") if "mimetype" in names else ""
    for start, kind in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if any(name.startswith(start) for name in names):
            return kind
    for end, kind in (("epub+zip", "epub"), (".text", "odt"), (".spreadsheet", "xlsx"), (".presentation", "odp")):
        if mimetype.strip().endswith(end):
            return kind
    if "META-INF/container.xml" in names:
        return "epub"
    raise Unreadable("a zip file; unpack it to have its files read")


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
    raise Unreadable("an OLE file of no kind that is read")


def _allow(seconds: int) -> None:
    """Grants so much processor time from now on; what takes longer is ended by the kernel."""
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds + 1, hard))


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _send(answers: Any, frame: dict[str, Any]) -> None:
    data = json.dumps(frame, separators=(",", ":")).encode()
    answers.write(len(data).to_bytes(8, "big") + data)
    answers.flush()


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def confine(limits: dict[str, int]) -> None:
    """Takes from this process what reading does not need."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the thread that started it
        if os.getppid() != limits["parent"]:
            os._exit(1)  # it ended before that was asked for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes no files
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    confine(given)
    serve(given)
    os._exit(0)
