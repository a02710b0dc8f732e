"""The queue between requests and what is written about them."""

from __future__ import annotations

import threading

from llmbench.gateway.observing.backlog import Backlog


def test_everything_that_was_put_is_written_in_order_when_it_closes() -> None:
    written: list[int] = []
    with Backlog[int]("log", written.extend, print) as backlog:
        for number in range(1200):
            backlog.put(number)
    assert written == list(range(1200)) and backlog.dropped == 0


def test_what_does_not_fit_is_dropped_and_counted_and_putting_never_waits() -> None:
    release, written = threading.Event(), list[int]()

    def write(entries: list[int]) -> None:
        release.wait(20)
        written.extend(entries)

    backlog = Backlog[int]("log", write, print, most=3, most_bytes=100)
    for number in range(10):
        backlog.put(number)
    assert backlog.dropped == 7
    release.set()
    backlog.close()
    assert written == [0, 1, 2]


def test_entries_are_bounded_by_their_bytes_too() -> None:
    release, written = threading.Event(), list[str]()

    def write(entries: list[str]) -> None:
        release.wait(20)
        written.extend(entries)

    backlog = Backlog[str]("log", write, print, most_bytes=100)
    for text in ("a" * 60, "b" * 60, "c" * 40):
        backlog.put(text, len(text))
    release.set()
    backlog.close()
    assert [text[0] for text in written] == ["a", "c"] and backlog.dropped == 1


def test_a_failure_is_said_once_counted_and_the_next_entries_are_tried() -> None:
    said: list[str] = []
    broken, tried = True, threading.Event()
    written: list[int] = []

    def write(entries: list[int]) -> None:
        tried.set()
        if broken:
            raise OSError("disk full")
        written.extend(entries)

    backlog = Backlog[int]("access log", write, said.append)
    for number in (1, 2):
        tried.clear()
        backlog.put(number)
        assert tried.wait(20)
    while backlog.dropped < 2:
        tried.wait(0.01)
    broken = False
    backlog.put(3)
    backlog.close()
    assert written == [3] and backlog.dropped == 2
    assert said == ["Cannot write the access log (OSError: disk full). Requests are not affected."]
