"""The process that reads one PDF: `pdf_child.py PATH SECONDS BYTES` prints `{"title", "pages", "unread"}` or `{"error"}`.

Started by its path and free of llmbench's imports: it takes 0.3 s, and nothing of the parent is within its reach.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys
from typing import Any


def main(path: str, seconds: int, memory: int) -> dict[str, Any]:
    """Limits itself, then reads."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the parent, however that ends
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    try:
        return _read(path)
    except MemoryError:
        return {"error": f"needs more than {memory // 2**20} MiB to read"}
    except RecursionError:
        return {"error": "broken PDF (nested without end)"}
    except Exception as error:  # whatever a hostile file makes of pypdf is the file's fault, and is reported
        return {"error": f"broken PDF ({_words(error)})"}


def _read(path: str) -> dict[str, Any]:
    try:
        from pypdf import PdfReader, overwrite_configuration
        from pypdf.errors import DependencyError
    except ImportError:
        return {"error": "pypdf is not installed (pip install 'llmbench[rag]')"}
    # Real reports of 80 pages have arrays of over 100,000 elements, pypdf's bound; this process has limits of its own.
    overwrite_configuration(array_maximum_element_count=5_000_000, dictionary_maximum_element_count=5_000_000)
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "encrypted: it wants a password"}
    except DependencyError as error:
        return {"error": f"encrypted: {_words(error)}"}
    try:
        title = str((reader.metadata and reader.metadata.get("/Title")) or "")
    except Exception:  # a broken title is no reason to lose the pages
        title = ""
    pages, unread = [], []
    for number in range(1, len(reader.pages) + 1):
        try:
            pages.append(reader.pages[number - 1].extract_text())
        except MemoryError:
            raise
        except Exception:  # one bad page costs that page; it is reported by number
            pages.append("")
            unread.append(number)
    if unread and len(unread) == len(pages):
        return {"error": "broken PDF (no page could be read)"}
    return {"title": title, "pages": pages, "unread": unread}


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


if __name__ == "__main__":
    answer = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
