"""The child's side of a confined process: what it takes from itself before it touches what is not trusted."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

__all__ = ["allow", "confine"]


def confine(limits: Mapping[str, Any]) -> BinaryIO:
    """Limits this process, and returns where its answers go; nothing else that is printed reaches the parent.

    From here on it ends with the thread that started it, writes no file and no core, ignores Ctrl-C, which is for the parent,
    and logs nothing.

    Args:
        limits: `memory`, the bytes of address space that it may have, and `parent`, the process that started it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != limits["parent"]:
            os._exit(1)  # it ended before that was asked for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not look like an answer
    return answers


def allow(seconds: int) -> None:
    """Grants so much processor time from now on; what takes longer is ended by the kernel."""
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds + 1, hard))
