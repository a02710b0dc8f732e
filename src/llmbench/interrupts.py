"""Ctrl-C and SIGTERM: handed to a function, or at a moment that leaves the program whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from types import FrameType
from typing import Any

__all__ = ["between_locks", "handed_to"]

_AGAIN = 0.002
"""Seconds until the next try."""
_MODULES = ("threading", "queue", "concurrent.futures._base", "concurrent.futures.thread")
_CALLED_BACK = ("weakref", "_weakrefset")
"""Modules that Python calls as objects end. What they raise it prints and forgets."""
_INTERRUPTIBLE = {"wait", "join", "result", "_wait_for_tstate_lock", "get", "put"}
"""Functions of `_MODULES` that wait for other threads and may be left at any time."""


@contextmanager
def handed_to(take: Callable[[], None]) -> Iterator[None]:
    """Calls a function for each Ctrl-C or SIGTERM, which then do nothing else.

    Python gives signals to its main thread alone: in another one the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: take()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def between_locks() -> Iterator[None]:
    """While the block runs in the main thread, Ctrl-C raises KeyboardInterrupt only where no lock is half taken.

    Python raises it between any two instructions. In `Condition.__enter__` that leaves a lock taken for ever, on which threads
    that are to be joined then wait (one in some 250 interrupted `llmbench index`); in a weak reference's callback it is printed
    and forgotten, and the program goes on to its end. There this handler tries again a moment later. A second Ctrl-C raises
    wherever it is. Does nothing in other threads, or where somebody else handles the signal.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += number == signal.SIGINT
        if asked < 2 and _delicate(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    before: Any = signal.signal(signal.SIGALRM, handle)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, before)


def _delicate(frame: FrameType | None) -> bool:
    """Whether an exception here would leave a lock taken, or be lost."""
    every = list(_up(frame))
    if any(one.f_code.co_name == "__del__" or one.f_globals.get("__name__") in _CALLED_BACK for one in every):
        return True
    inner = list(takewhile(lambda one: one.f_globals.get("__name__") in _MODULES, every))
    if not inner:
        return not every
    names = [one.f_code.co_name for one in inner]
    half_let_go = names[0] == "wait" and "waiter" in inner[0].f_locals and "saved_state" not in inner[0].f_locals
    return half_let_go or names[0] not in _INTERRUPTIBLE or "start" in names


def _up(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame, its caller, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back
