"""Stands between llmbench and vLLM, so that no process of vLLM outlives llmbench, however llmbench ends.

    python supervisor.py FOLDER GRACE COMMAND...

vLLM is a tree of processes, and killing its first one leaves the others running with all their memory. This one adopts
every orphan of the tree (PR_SET_CHILD_SUBREAPER), waits until standard input closes, which happens when llmbench closes it
or dies in whatever way, and then ends all of them: politely, and after GRACE seconds for good. When vLLM ends by itself,
what is left of it is ended too. Then it removes FOLDER. Exit code: vLLM's (128 + signal), or 0 when it was told to stop.

A file of its own with nothing but the standard library: it starts in 20 ms and takes 10 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.1


def main(folder: str, grace: str, command: list[str]) -> int:
    """Runs the command until it ends or standard input closes; returns the exit code."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    stop = False

    def told(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code: int | None = None
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while code is None and not stop:
            readable, _, _ = select.select([0], [], [], _TICK)
            stop = stop or bool(readable and not os.read(0, 1024))
            code = _reap(child.pid)
        if code is None:
            os.kill(child.pid, signal.SIGTERM)
            end = time.monotonic() + float(grace)
            while _reap(child.pid) is None and time.monotonic() < end:
                time.sleep(_TICK)
            code = 0
    finally:
        _end_all()
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _reap(pid: int) -> int | None:
    """Buries every child that has ended; the exit code of `pid` if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
    return code if code is None or code >= 0 else 128 - code


def _wait(seconds: float) -> bool:
    """Waits until no descendant is left; False when the time is over first."""
    end = time.monotonic() + seconds
    while _descendants():
        if time.monotonic() > end:
            return False
        _reap(0)
        time.sleep(_TICK)
    return True


def _end_all() -> None:
    """Kills every descendant. Trackers of shared memory go last: they clean up behind the others once those are gone."""
    for spare_trackers, seconds in ((True, 1.0), (False, 5.0)):
        for pid, line in _descendants().items():
            if not (spare_trackers and b"resource_tracker" in line):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if _wait(seconds):
            return


def _descendants() -> dict[int, bytes]:
    """Process id -> command line of everything below this process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_bytes().rsplit(b") ", 1)[1].split()[:2]
                if state != b"Z":
                    parents[int(entry.name)] = int(parent)
    found: dict[int, bytes] = {}
    edge = {os.getpid()}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge and pid not in found}
        for pid in edge:
            found[pid] = b""
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
