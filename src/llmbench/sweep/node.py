"""What runs on a node of a cluster: a look at what it sees, and the one that holds a training's place there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmbench import borrowed

__all__ = ["Holder", "unlike"]

_PATIENCE = 10.0
"""Seconds in which a node's view of a shared folder is brought up to date."""


def unlike(given: dict[str, Any]) -> str:
    """On a node: what it does not see, or has otherwise than the sweep's own machine; empty where all is alike."""
    end = time.monotonic() + _PATIENCE
    while True:
        with suppress(OSError):
            if Path(given["probe"]).read_text(encoding="utf-8") == given["token"]:
                break
        if time.monotonic() > end:
            place = Path(given["probe"]).parent
            return f"it does not see {place} as the sweep wrote it. Set LLMBENCH_HOME to a folder that all nodes share"
        time.sleep(0.2)
    for what, there in (("the recipe", Path(given["recipe"])), ("the working directory", Path(given["cwd"]))):
        if not there.exists():
            return f"it has not {what} {there}. Keep it in a folder that all nodes share"
    if (own := borrowed.version("llmbench")) != given["version"]:
        return f"it has llmbench {own} and the sweep {given['version']}. Install the same one"
    return ""


class Holder:
    """On a node: holds a training's place, and hands the sweep's orders on to its guard."""

    def __init__(self) -> None:
        self._guard: subprocess.Popen[bytes] | None = None
        self._orders: list[str] = []
        self._lock = threading.Lock()

    def host(self) -> str:
        """Which node this is."""
        return socket.gethostname()

    def order(self, word: str) -> None:
        """`stop` or `end`, for the training."""
        with self._lock:
            self._orders.append(word)
            if self._guard is not None:
                self._tell(word)

    def keep(self, work: dict[str, Any]) -> dict[str, Any]:
        """Runs the training to its end.

        Returns:
            killed: the signal that ended it, or None; or where it was not begun
            refused: why, and host: where.
        """
        if fault := unlike(work):
            return {"refused": fault, "host": self.host()}
        environment = {**os.environ, **work["environment"]}
        guard = [sys.executable, "-m", "llmbench.sweep.guard", work["folder"], work["name"], work["run"]]
        with (Path(work["folder"]) / f"{work['name']}.log").open("ab") as log:
            log.write(f"on {self.host()}, CUDA_VISIBLE_DEVICES={environment.get('CUDA_VISIBLE_DEVICES', '')}\n".encode())
            log.flush()
            with self._lock:
                self._guard = subprocess.Popen(
                    [*guard, json.dumps(work["program"]), *work["command"]],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=work["cwd"],
                    env=environment,
                    start_new_session=True,
                )
                for word in self._orders:
                    self._tell(word)
        with self._guard as held:  # closes its pipes
            assert held.stdout is not None
            said = held.stdout.read()
        try:
            return {"killed": json.loads(said)["killed"]}
        except (ValueError, KeyError):
            return {"killed": int(signal.SIGKILL)}  # the guard's, and the training's with it

    def _tell(self, word: str) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        with suppress(OSError, ValueError):  # it has ended
            self._guard.stdin.write(f"{word}\n".encode())
            self._guard.stdin.flush()
