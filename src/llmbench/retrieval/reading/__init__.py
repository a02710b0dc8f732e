"""Files to documents: which files a pipeline names, and each of them as text with its places."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from llmbench.retrieval.documents import Document, Unreadable
from llmbench.retrieval.reading import html, pdf
from llmbench.retrieval.reading.text import decode, markdown_headings
from llmbench.retrieval.reading.walk import KINDS, File, walk

__all__ = ["File", "Reading", "read", "read_all", "walk"]

LARGEST_TEXT = 64 * 2**20
"""Bytes up to which a text or HTML file is read; beyond it is more likely a dump than a document."""


@dataclass(frozen=True)
class Reading:
    """Some or all documents of one file. `failure` says why it gave none, or not all of them, in words for the report.

    A file of rows comes in several of these, in order; `last` marks the end of each file.
    """

    file: File
    documents: tuple[Document, ...]
    failure: str | None = None
    last: bool = True


def read_all(files: Iterable[File], *, workers: int = 2) -> Iterator[Reading]:
    """Reads files in order, some ahead of time. Never raises for a file: what cannot be read says so in its `failure`."""

    def one(file: File) -> Reading:
        try:
            document = read(file)
        except Unreadable as error:
            return Reading(file, (), str(error))
        unread = document.metadata.get("unread_pages")
        return Reading(file, (document,), f"pages that could not be read: {unread}" if unread else None)

    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        ahead: deque[Future[Reading]] = deque()
        for file in files:
            ahead.append(pool.submit(one, file))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def read(file: File) -> Document:
    """Reads one file.

    Raises:
        Unreadable: it is empty, broken, encrypted, binary or too large; the message is the reason.
    """
    kind = KINDS[file.path.suffix.lower()]
    try:
        size = file.path.stat().st_size
        if size == 0:
            raise Unreadable("empty")
        if kind != "pdf" and size > LARGEST_TEXT:
            raise Unreadable(f"larger than {LARGEST_TEXT // 2**20} MiB; cut it into files")
        data = file.path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    identity, stem = hashlib.sha256(data).hexdigest(), file.path.stem
    match kind:
        case "pdf":
            document = pdf.document(file.path, identity, file.source)
        case "html":
            text, headings, title = html.visible(data)
            document = Document(identity, file.source, title or stem, text, kind, headings=headings)
        case "markdown":
            text = decode(data)
            headings, metadata = markdown_headings(text)
            title = metadata.get("title") or next((h.text for h in headings if h.level == 1), "")
            document = Document(identity, file.source, title or stem, text, kind, metadata, headings=headings)
        case _:
            document = Document(identity, file.source, stem, decode(data), kind)
    if not document.text.strip():
        raise Unreadable("no text in it" + (" (scanned pages need OCR first)" if kind == "pdf" else ""))
    return document
