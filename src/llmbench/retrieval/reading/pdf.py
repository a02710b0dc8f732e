"""PDF: read in a process of its own with limits on time and memory, so that no file can hang or kill the indexing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmbench.retrieval.documents import Document, Heading, Unreadable

__all__ = ["document"]

SECONDS = 120
"""Processor time for one file; a report of 80 pages takes about 5 seconds."""
PATIENCE = 10
"""How many times as long it may take by the clock, on a machine that is busy with other things."""
MEMORY = 2 * 2**30
"""Bytes of address space for one file."""

_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
_ODD = str.maketrans(_LIGATURES | {"\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u00ad": None, "\r": None, "\ufeff": None})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def document(path: Path, identity: str, source: str) -> Document:
    """The text of the pages, one after another. Pages that failed are named in `metadata["unread_pages"]`.

    Raises:
        Unreadable: encrypted, broken, or beyond the limits.
    """
    found = _extract(path)
    pages, parts, length = [], [], 0
    for page in found["pages"]:
        pages.append(length)
        parts.append(clean(page) + "\n\n")
        length += len(parts[-1])
    text = "".join(parts)
    title = " ".join(clean(found["title"]).split())
    metadata = {"unread_pages": ", ".join(map(str, found["unread"]))} if found["unread"] else {}
    return Document(identity, source, title or path.stem, text, "pdf", metadata, tuple(pages), _title_line(text, title))


def clean(text: str) -> str:
    """Repairs what PDF fonts do to text: ligatures, odd spaces, soft hyphens, control characters, half surrogates.

    Not the whole of NFKC, which would turn 10² into 102.
    """
    return _CONTROL.sub(" ", text.translate(_ODD)).strip()


def _title_line(text: str, title: str) -> tuple[Heading, ...]:
    """The title where it opens the first page: a heading, not part of a passage."""
    words = title.split()
    if not words:
        return ()
    opening = re.match(r"\s*(" + r"\s+".join(map(re.escape, words)) + r")\s*(?:\n|$)", text)
    return (Heading(opening.start(1), opening.end(1), 1, title),) if opening else ()


def _extract(path: Path) -> dict[str, Any]:
    """Runs the child."""
    child = Path(__file__).with_name("pdf_child.py")
    command = [sys.executable, "-P", str(child), str(path.absolute()), str(SECONDS), str(MEMORY)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS * PATIENCE, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Unreadable(f"not read within {SECONDS * PATIENCE} seconds") from None
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise Unreadable(f"not read within {SECONDS} seconds of processor time")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise Unreadable(f"the PDF reader died of it ({reason})") from None
    if "error" in answer:
        raise Unreadable(answer["error"])
    return answer
