"""Programs that a model wrote, each in a process of its own that can neither write, nor reach a network, nor start another."""

from __future__ import annotations

import os
import resource
import secrets
import select
import signal
import sys
import time
from typing import Any, NoReturn

from llmbench.confined import syscalls
from llmbench.sandbox.refusal import Impossible

__all__ = ["passes"]

PATIENCE = 3.0
"""How many times its processor time a program may take by the clock."""
_SAID = 4096


def passes(request: dict[str, Any]) -> str | None:
    """Runs a program to its end: None where it comes there, else what went wrong, in a line.

    The end is known by a word that is drawn for each program and said behind its last statement, so that leaving early does
    not pass.

    Args:
        request: `program` (Python), `seconds` of processor time, `memory`, bytes of address space.

    Raises:
        Impossible: the system does not let processes be confined so.
    """
    word = secrets.token_hex(16)
    there, back = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(there)
        _run(request, word, back)
    os.close(back)
    signal.setitimer(signal.ITIMER_PROF, 0)  # what is waited for is not this process's own work
    try:
        said = _said(there, time.monotonic() + PATIENCE * request["seconds"])
    finally:
        os.close(there)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if said is None:
        return f"takes over {PATIENCE * request['seconds']:g} seconds"
    if said == f"end {word}":
        return None
    if said.startswith(f"impossible {word} "):
        raise Impossible(said.split(" ", 2)[2])
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return f"takes over {request['seconds']:g} seconds of processor time"
    return said or "ends before its last line"


def _said(there: int, deadline: float) -> str | None:
    """All that the program's process says before it ends; None where it does not end in time."""
    data = b""
    while True:
        ready, _, _ = select.select([there], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        piece = os.read(there, _SAID)
        if not piece:
            return data.decode("utf-8", "replace")
        data = (data + piece)[:_SAID]


def _run(request: dict[str, Any], word: str, back: int) -> NoReturn:
    """The program's process."""
    said = "ends before its last line"
    try:
        _alone(back, request)
        try:
            syscalls.forbid()
        except OSError as error:
            said = f"impossible {word} programs cannot be confined on this system ({error})"
        else:
            said = _outcome(request["program"], word)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        os.write(back, said.encode("utf-8", "replace")[:_SAID])
        os._exit(0)


def _alone(back: int, request: dict[str, Any]) -> None:
    """Nothing open but the way back, nothing of the environment, and limits of its own."""
    syscalls.end_with_parent()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, back)
    os.closerange(back + 1, 4096)
    os.environ.clear()
    os.chdir("/")
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    seconds = int(request["seconds"] + 0.999)
    spent = int(sum(os.times()[:2]))
    for limit, value in (
        (resource.RLIMIT_AS, request["memory"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_STACK, 64 * 2**20),
    ):
        resource.setrlimit(limit, (value, value))
    # SIGXCPU at the first, which tells why; SIGKILL at the second, which nothing can catch.
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, spent + seconds + 1))


def _outcome(program: str, word: str) -> str:
    sys.setrecursionlimit(2000)
    try:
        code = compile(program, "answer.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    try:
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102  # what this process is for
    except SystemExit:
        return "leaves before its last line"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}".removesuffix(": ")
    return f"end {word}"
