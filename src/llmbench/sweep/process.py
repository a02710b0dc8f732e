"""A training as a process of its own, which outlives the sweep that started it and is found again by its lock.

The lock is taken before the process starts and handed to it, so that there is no moment at which a training that runs looks
as if it did not. The kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llmbench.errors import RunError
from llmbench.runs import Run

__all__ = ["PROGRAM", "TrainingProcess"]

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "llmbench")
"""What trains."""
_LAST = 4000
"""Characters of a log in which the last line is looked for."""


class TrainingProcess:
    """One training: started here, or found running.

    `folder` holds its log and its lock, named by `name`; `run` is the run that it trains.
    """

    def __init__(self, folder: Path, name: str, run: Run) -> None:
        self.log, self._lock, self.run = folder / f"{name}.log", folder / f"{name}.lock", run
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], *, gpu: str | None, threads: int | None, tied: bool = False) -> None:
        """Starts `llmbench` with these arguments, apart from this terminal's Ctrl-C.

        Args:
            command: the arguments behind `llmbench`.
            gpu: what CUDA_VISIBLE_DEVICES is set to.
            threads: what OMP_NUM_THREADS is set to, where the environment does not say it.
            tied: whether the kernel kills it when this process is gone (Linux). For a process of one thread.
        """
        environment = dict(os.environ)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with self._lock.open("w", encoding="utf-8") as lock, self.log.open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._child = subprocess.Popen(
                [*PROGRAM, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                preexec_fn=_tie(os.getpid()) if tied and sys.platform == "linux" else None,
            )
            lock.write(str(self._child.pid))

    @property
    def alive(self) -> bool:
        """Whether it runs, whoever started it."""
        if self._child is not None:
            self._child.poll()  # so that it does not stay as a zombie
        try:
            with self._lock.open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def lost(self) -> str:
        """Nothing: this machine answers."""
        return ""

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it; None where it ended otherwise, or another process started it."""
        code = self._child.poll() if self._child is not None else None
        return -code if code is not None and code < 0 else None

    def stop(self) -> bool:
        """Asks it to stop as Ctrl-C does: after its step, with a checkpoint. False where it cannot be asked yet, or was."""
        try:
            self.run.stop()
        except RunError:
            return False
        return True

    def end(self) -> None:
        """Ends it at once, with nothing saved beyond its last checkpoint."""
        with suppress(OSError, ValueError):
            if self.alive:
                os.kill(int(self._lock.read_text(encoding="utf-8")), signal.SIGKILL)

    def last_line(self) -> str:
        """The last line that it printed."""
        try:
            text = self.log.read_bytes()[-_LAST:].decode("utf-8", errors="replace")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _tie(parent: int) -> Callable[[], None]:
    """What a child does before it becomes another program, so that the kernel kills it when its parent is gone."""
    library = ctypes.CDLL(None)

    def tie() -> None:
        library.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return tie
