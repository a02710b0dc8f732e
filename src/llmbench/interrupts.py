"""Ctrl-C and SIGTERM, handed to a function for as long as a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["handed_to"]


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
