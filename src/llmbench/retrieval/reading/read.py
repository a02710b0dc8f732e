"""Files to documents, in order and ahead of time, each in a process that can do no harm."""

from __future__ import annotations

import hashlib
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from llmbench.recipe import SourceSpec
from llmbench.retrieval.documents import Box, Document, Heading, Momentary, Skipped, Unreadable, not_read, unreadable_rows
from llmbench.retrieval.reading import plain
from llmbench.retrieval.reading.children import Child
from llmbench.retrieval.reading.kinds import ROWS, kind_of_bytes, seen
from llmbench.retrieval.reading.password import password_of
from llmbench.retrieval.reading.standard_input import LARGEST_FILE
from llmbench.retrieval.reading.walk import File
from llmbench.shown import counted

__all__ = ["VERSION", "Reading", "from_text", "read", "read_all"]

VERSION = 5
"""Raised when the same file would be read otherwise, so that it is read again."""
AHEAD = 4
"""Files that may be read ahead, for each worker."""

_PLAIN = ("text", "markdown", "code")
_OWN = threading.local()


@dataclass(frozen=True)
class Reading:
    """Some or all documents of one file. `failure` says why it gave none, or not all of them, in words for the report.

    A file of rows or of files comes in several of these, in order; `last` marks the end of each file. `momentary`: it is
    there and could not be read now.
    """

    file: File
    documents: tuple[Document, ...]
    failure: str | None = None
    last: bool = True
    momentary: bool = False


def read_all(files: Iterable[File], *, workers: int = 2) -> Iterator[Reading]:
    """Reads files in order, a bounded number ahead of time. Never raises for a file: what cannot be read says so in its
    `failure`. May be closed at any time.
    """
    work = _Work(workers)
    try:
        ahead: deque[_Box] = deque()
        for file in files:
            ahead.append(work.add(file))
            if len(ahead) > AHEAD * workers:
                yield from _taken(ahead.popleft())
        while ahead:
            yield from _taken(ahead.popleft())
    finally:
        work.stop()


def read(file: File) -> Document:
    """Reads one file; what lies within it, such as a message's attachments, is left to `read_all`.

    Raises:
        Unreadable: it is empty, broken, encrypted, binary or too large, or a file of rows or of files; the message is the
            reason.
    """
    if _is_rows(file):
        raise Unreadable("a file of rows, each of which is a document")
    child: Child | None = getattr(_OWN, "child", None)
    if child is None:
        child = _OWN.child = Child()
    found: Document | None = None
    for each in _documents(
        file, child
    ):  # to its end: a child process that is left in between has to go, and takes long to start
        if isinstance(each, Document):
            if found is not None:
                break
            found = each
    if found is None or found.source != file.source:
        raise Unreadable("a file of files, each of which is a document")
    return found


def from_text(name: str, data: bytes, place: SourceSpec | None = None) -> Document:
    """A document from bytes that lie in no file, such as standard input; the end of `name` says what they are.

    Raises:
        Unreadable: as `read`.
    """
    return read(File(Path(name), name, place or SourceSpec(path=Path()), data))


def _is_rows(file: File) -> bool:
    return file.place.columns is not None and file.suffix in ROWS


_Box = queue.Queue["Reading | BaseException"]


def _taken(box: _Box) -> Iterator[Reading]:
    """The readings of one file."""
    while True:
        reading = box.get()
        if isinstance(reading, BaseException):
            raise reading
        yield reading
        if reading.last:
            return


class _Work:
    """Threads, each with a child process of its own, that put each file's readings into its box."""

    def __init__(self, workers: int) -> None:
        self.files: queue.Queue[tuple[File, _Box] | None] = queue.Queue()
        self.ended = threading.Event()
        self.children = [Child() for _ in range(workers)]
        self.threads = [threading.Thread(target=self.run, args=(child,), daemon=True) for child in self.children]
        for thread in self.threads:
            thread.start()

    def add(self, file: File) -> _Box:
        """Has a file read, sooner or later."""
        box: _Box = queue.Queue(maxsize=2)
        self.files.put((file, box))
        return box

    def run(self, child: Child) -> None:
        """Works until told to stop."""
        try:
            while (task := self.files.get()) is not None and not self.ended.is_set():
                file, box = task
                try:
                    for reading in _readings(file, child):
                        if not self.give(box, reading):
                            return
                except Exception as error:  # a fault of ours, not of a file: it is the caller's to see
                    self.give(box, error)
        finally:
            child.close()

    def give(self, box: _Box, reading: Reading | BaseException) -> bool:
        """Puts it into the box when there is room; False when nobody waits for it any more."""
        while not self.ended.is_set():
            try:
                box.put(reading, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def stop(self) -> None:
        """Ends threads and processes, whatever they are at."""
        self.ended.set()
        for child in self.children:
            child.kill()
        for _ in self.threads:
            self.files.put(None)
        for thread in self.threads:
            thread.join()


def _readings(file: File, child: Child) -> Iterator[Reading]:
    """What one file gives: one reading, or for a file of rows a reading for each batch, and one that ends it."""
    if _is_rows(file):
        yield from _rows(file, child)
        return
    waiting: Document | None = None
    left: list[Skipped] = []
    failure, momentary = "", False
    try:
        for found in _documents(file, child):
            if not isinstance(found, Document):
                left.append(found)
                continue
            if waiting is not None:
                yield Reading(file, (waiting,), last=False)
            waiting = found
    except Unreadable as error:
        failure, momentary = str(error), isinstance(error, Momentary)
    why = "; ".join(filter(None, [_unread(waiting), failure, _left(left)]))
    if failure and waiting is not None:
        yield Reading(file, (waiting,), last=False)
        waiting = None
    yield Reading(file, () if waiting is None else (waiting,), why or None, momentary=momentary)


def _unread(document: Document | None) -> str:
    pages = document.metadata.get("unread_pages") if document is not None else None
    return f"pages that could not be read: {pages}" if pages else ""


def _left(left: Sequence[Skipped]) -> str:
    """The report on files within a file that gave nothing: how many, and the first of them."""
    if not left:
        return ""
    told = "; ".join(f"{name.lstrip('#')}: {why}" for name, why in left[:5])
    return f"{counted(len(left), 'file')} in it left out: {told}" + ("; ..." if len(left) > 5 else "")


def _documents(file: File, child: Child) -> Iterator[Document | Skipped]:
    """The documents of one file, which is decoded in this process where its bytes need but that."""
    kind, language = file.kind
    try:
        if file.data is None:
            size = file.path.stat().st_size
            if size > LARGEST_FILE:
                raise Unreadable(f"larger than {LARGEST_FILE // 2**20} MiB; split it into several files")
            with file.path.open("rb") as stream:
                head = stream.read(1024)
                data = head + stream.read() if kind in (*_PLAIN, "") and not seen(head) else None
        else:
            head = file.data[:1024]
            data = file.data if kind in (*_PLAIN, "") and not seen(head) else None
    except OSError as error:
        raise not_read(error) from error
    if not head:
        raise Unreadable("empty")
    if not kind and (kind := kind_of_bytes(file.path.name, head)) not in (*_PLAIN, ""):
        data = None
    if data is not None:
        document = plain.document(data, hashlib.sha256(data).hexdigest(), file.source, kind or "text", language, file.suffix)
        yield _placed(document, file)
        return
    with _lying(file) as path:
        for found in _parsed(file, path, kind, child):
            yield _placed(found, file) if isinstance(found, Document) else found


@contextmanager
def _lying(file: File) -> Iterator[Path]:
    """Where a child process finds the bytes of a file."""
    if file.data is None:
        yield file.path.absolute()
        return
    with tempfile.NamedTemporaryFile(suffix=file.path.suffix) as spooled:
        spooled.write(file.data)
        spooled.flush()
        yield Path(spooled.name)


def _parsed(file: File, path: Path, kind: str, child: Child) -> Iterator[Document | Skipped]:
    """One file as the child process reads it."""
    request = {"path": str(path), "kind": kind, "suffix": file.suffix, "password": password_of(file.place)}
    for frame in child.ask(request):
        if "left" in frame:
            yield (*frame["left"],)
            continue
        found: dict[str, Any] = frame["document"]
        metadata, name = found["metadata"], found["name"]
        if found["unread"]:
            metadata["unread_pages"] = ", ".join(map(str, found["unread"]))
        yield Document(
            id=found["id"],
            source=f"{file.source}{name}",
            title=found["title"] or PurePath(name.rpartition("#")[2] or file.source).stem,
            text=found["text"],
            kind=found["kind"],
            metadata=metadata,
            pages=tuple(found["pages"]),
            headings=tuple(Heading(*heading) for heading in found["headings"]),
            lines=tuple(found["lines"]),
            boxes=tuple(Box(*box) for box in found["boxes"]),
            warnings=tuple(found["warnings"]),
        )


def _placed(document: Document, file: File) -> Document:
    """The document with what the pipeline says of its place, which wins over what the file says of itself."""
    from dataclasses import replace

    fixed = file.place.metadata
    return replace(document, metadata={**document.metadata, **fixed}) if fixed else document


def _rows(file: File, child: Child) -> Iterator[Reading]:
    """The rows of one file; those that are broken are told at its end."""
    assert file.place.columns is not None
    broken: list[tuple[int, str]] = []
    left = 0
    try:
        with _lying(file) as path:
            request = {"path": str(path), "suffix": file.suffix, "columns": file.place.columns.model_dump()}
            for frame in child.ask(request):
                documents = []
                for row in frame["rows"]:
                    if "broken" in row:
                        left += 1
                        broken += [(row["line"], row["broken"])] if len(broken) < 6 else []
                    else:
                        documents.append(_row(row, file))
                if documents:
                    yield Reading(file, tuple(documents), last=False)
    except Unreadable as error:
        why = "; ".join([*([unreadable_rows(broken, left)] if left else []), str(error)])
        yield Reading(file, (), why, momentary=isinstance(error, Momentary))
        return
    yield Reading(file, (), unreadable_rows(broken, left) if left else None)


def _row(row: dict[str, Any], file: File) -> Document:
    return Document(
        id=row["id"],
        source=f"{file.source}{row['name']}",
        title=row["title"],
        text=row["text"],
        kind="row",
        metadata={**row["metadata"], **file.place.metadata},
        lines=(0,),
        warnings=tuple(row["warnings"]),
        first_line=row["line"],
    )
