"""Ctrl-C waits where raising would leave a lock taken or be lost, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from functools import partial

import pytest

from llmbench.interrupts import between_locks

_INTERRUPT = partial(os.kill, os.getpid(), signal.SIGINT)


def _condition() -> threading.Condition:
    """One whose lock is taken by sending this process SIGINT."""

    class Interrupted:
        __enter__ = staticmethod(_INTERRUPT)
        acquire = release = staticmethod(lambda *_: None)

        def __exit__(self, *_: object) -> None:
            pass

    return threading.Condition(Interrupted())  # type: ignore[arg-type]


def test_python_itself_leaves_the_lock_taken() -> None:
    inside = False
    with pytest.raises(KeyboardInterrupt), _condition():
        inside = True
    assert not inside


def test_the_lock_is_taken_and_let_go_before_it_raises() -> None:
    inside = False
    with pytest.raises(KeyboardInterrupt), between_locks(), _condition():
        inside = True
        time.sleep(5)
    assert inside


def test_a_weak_reference_that_is_cleared_does_not_swallow_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Key:
        pass

    class Pending(list):  # type: ignore[type-arg]
        append = staticmethod(lambda key: _INTERRUPT())

    key = Key()
    held = weakref.WeakKeyDictionary({key: 1})
    held._iterating.add(None)  # type: ignore[attr-defined]  # so that the callback appends to what is pending
    held._pending_removals = Pending()  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt), between_locks():
        del key
        time.sleep(5)


def test_it_raises_at_once_elsewhere_and_in_a_wait() -> None:
    with pytest.raises(KeyboardInterrupt), between_locks():
        _INTERRUPT()
        time.sleep(5)
    with pytest.raises(KeyboardInterrupt), between_locks():
        threading.Timer(0.1, _INTERRUPT).start()
        threading.Event().wait(5)


def test_the_handler_of_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with between_locks():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == before


def test_another_handler_and_another_thread_are_left_alone() -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGINT, mine)
    try:
        with between_locks():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def work() -> None:
        with between_locks():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
