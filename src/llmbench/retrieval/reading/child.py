"""The process that reads files for another: requests come in as lines of JSON, answers go out as frames of JSON.

Started by its path, with the packages around it registered but not run: it starts in 0.15 s of processor time instead of
1.1, and nothing of the parent is within its reach. A frame is 8 bytes of length, then `{"document": ...}`, `{"left": ...}`,
`{"rows": ...}`, `{"picture": ...}` or `{"end": ...}`.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    _here = Path(__file__).resolve().parent
    sys.path.insert(0, str(_here.parents[2]))
    for _name, _folder in (("llmbench.retrieval", _here.parent), ("llmbench.retrieval.reading", _here)):
        _package = types.ModuleType(_name)
        _package.__path__ = [str(_folder)]
        sys.modules[_name] = _package

from llmbench.confined import inside
from llmbench.retrieval.documents import CHANGED, Momentary, Unreadable, not_read
from llmbench.retrieval.reading import parsing

TOTAL = 10
"""How many times the processor time of one file a file may take that holds files, in all."""
RESIDENT = 400 * 2**20
"""Bytes of memory in use after a file above which the process ends, for a new one to begin."""


def serve(limits: dict[str, int], answers: BinaryIO) -> None:
    """Answers requests until there are no more, or it has read enough."""
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
        except OSError as error:
            found = not_read(error)
            failure, momentary = str(found), isinstance(found, Momentary)
        except Exception as error:  # whatever a hostile file makes of a parser is the file's fault, and is reported
            failure = parsing.failure_of(error)
        leaving = served >= limits["files"] or "MiB to read" in failure or _resident() > RESIDENT
        _send(answers, {"end": failure, "momentary": momentary, "leaving": leaving})
        if leaving:
            return


def _frames(request: dict[str, Any], limits: dict[str, int]) -> Iterator[dict[str, Any]]:
    """What one file gives."""
    inside.allow(request["seconds"])
    path = Path(request["path"])
    if request.get("columns") is not None:
        from llmbench.retrieval.reading.rows import batches

        for batch in batches(path, request["columns"], limits["text"], request["suffix"]):
            yield {"rows": batch}
            inside.allow(request["seconds"])
        return
    data = path.read_bytes()
    if request.get("pages") is not None:
        from llmbench.retrieval.reading.picture import pictures

        if hashlib.sha256(data).hexdigest() != request["sha256"]:  # of the very bytes that are drawn
            raise Unreadable(CHANGED)
        for picture in pictures(data, request["pages"], painted=request["painted"], password=request.get("password", "")):
            yield {"picture": picture}
            inside.allow(request["seconds"])
        return
    spent = sum(os.times()[:2])
    for frame in parsing.documents(data, request["kind"], request["suffix"], limits["text"], request.get("password", "")):
        yield frame
        left = spent + TOTAL * request["seconds"] - sum(os.times()[:2])
        inside.allow(max(0, min(request["seconds"], int(left))))


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _send(answers: BinaryIO, frame: dict[str, Any]) -> None:
    data = json.dumps(frame, separators=(",", ":")).encode()
    answers.write(len(data).to_bytes(8, "big") + data)
    answers.flush()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    serve(given, inside.confine(given))
    os._exit(0)
