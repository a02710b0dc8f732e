"""What a training process tells the `llmbench train` that started it, in files of a folder that both know.

`pid-RANK` is there from its first moment, `error-RANK.json` when it failed, `log-RANK` holds what all but the first print, and
`stopped` says that all of them ended in order after Ctrl-C. Without such a folder nothing is written.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["FOLDER", "STOPPED", "die_with_parent", "processes", "reporting"]

FOLDER = "LLMBENCH_RANKS"
"""The folder's place in the environment."""
STOPPED = "stopped after a step, with a checkpoint"
"""What the KeyboardInterrupt says that ends every process alike."""
_PR_SET_PDEATHSIG = 1


def folder() -> Path | None:
    """Where this process reports to; None where nobody asked."""
    return Path(os.environ[FOLDER]) if FOLDER in os.environ and "RANK" in os.environ else None


def die_with_parent() -> None:
    """Has the kernel tell this process to end (SIGTERM) when the one that started it is gone. Linux; elsewhere nothing."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def reporting() -> Iterator[None]:
    """Runs one process of a training: whatever ends it is written down for the one that started it, who says it once.

    Raises:
        SystemExit: 2, 1 or 130, where the block raised LlmbenchError, something else, or KeyboardInterrupt.
    """
    place = folder()
    if place is None:
        yield
        return
    rank = os.environ["RANK"]
    die_with_parent()
    (place / f"pid-{rank}").write_text(str(os.getpid()), encoding="utf-8")
    if rank != "0":
        log = os.open(place / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    try:
        yield
    except LlmbenchError as error:
        _write(place, rank, "told", str(error))
        raise SystemExit(2) from error
    except KeyboardInterrupt as stop:
        if stop.args == (STOPPED,):
            (place / "stopped").touch()
            return
        raise SystemExit(130) from stop
    except Exception as error:
        _write(place, rank, "crash", f"{type(error).__name__}: {error}", trace=traceback.format_exc())
        raise SystemExit(1) from error


def _write(place: Path, rank: str, kind: str, message: str, **more: str) -> None:
    text = json.dumps({"rank": int(rank), "kind": kind, "message": message, "time": time.time(), **more})
    part = place / f".error-{rank}"
    part.write_text(text, encoding="utf-8")
    part.replace(place / f"error-{rank}.json")


def processes(place: Path) -> dict[int, int]:
    """The process of each rank that has begun here, as far as they have."""
    found = {}
    for path in place.glob("pid-*"):
        text = path.read_text(encoding="utf-8")
        if text:
            found[int(path.name.removeprefix("pid-"))] = int(text)
    return found


def errors(place: Path) -> list[dict[str, Any]]:
    """What the processes said when they failed, the earliest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in place.glob("error-*.json")]
    return sorted(found, key=lambda error: float(error["time"]))
