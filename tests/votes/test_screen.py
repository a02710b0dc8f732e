"""`llmbench vote` on a real terminal: single keys, long answers, undo, and a screen that is left as it was found."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest

from llmbench.cli import voting_screen
from llmbench.compare import Comparison
from llmbench.votes.store import VoteStore, path
from llmbench.votes.values import AnswerPair, Round

CTRL_C = b"\x03"


def typed(keys: list[tuple[bytes, str]], size: tuple[int, int] = (24, 120)) -> tuple[str, int]:
    """Runs the verb on a terminal, presses each key once its words are shown; gives what was written, and the exit code."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    command = [sys.executable, "-m", "llmbench", "vote", "kettles", "--rater", "ada", "--checks", "0"]
    written, seen, waiting = "", 0, list(keys)
    end = time.monotonic() + 60
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=os.environ | {"TERM": "xterm-256color"}
    ) as process:
        os.close(inside)
        while time.monotonic() < end:
            if waiting and (at := written.find(waiting[0][1], seen)) >= 0:
                seen, key = at + 1, waiting.pop(0)[0]
                # The kernel makes a signal of it only for who owns the terminal.
                process.send_signal(signal.SIGINT) if key == CTRL_C else os.write(terminal, key)
            if not select.select([terminal], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(terminal, 65_536)
            except OSError:  # the other side is closed
                break
            written += data.decode("utf-8", "replace")
        os.close(terminal)
        return written, process.wait(20)


def test_keys_vote_undo_and_stop(compared: Callable[..., Comparison]) -> None:
    compared()
    keys = [
        (b"r", "0 votes cast"), (b"a", "[ ] correct"), (b"\r", "[x] correct"), (b"\x1b[C", "Reasons: correct."),
        (b"3", "1 vote cast"), (b"u", "2 votes cast"), (b"x", "taken back"), (b"?", "That key does nothing"),
        (b"z", "Press any key"), (b"q", "1 vote cast"),
    ]  # fmt: skip
    written, code = typed(keys)
    assert code == 0 and "1 vote by ada saved, 71 left; the same command continues." in written
    assert written.index("\x1b[?1049h") < written.index("\x1b[?1049l")  # a screen of its own, left at the end
    assert "\x1b[31m" not in written and r"\x1b[31mred" in written
    with VoteStore(path("kettles")) as store:
        ballots = store.ballots()
    first = ballots[0]
    assert first.winner == ("model_b" if first.shown_left == "a" else "model_a") and first.reasons == ("correct",)
    assert [one.undone is None for one in ballots] == [True, False]


def test_ctrl_c_leaves_the_terminal_as_it_was_and_what_was_voted(compared: Callable[..., Comparison]) -> None:
    compared()
    written, code = typed([(b"1", "0 votes cast"), (CTRL_C, "1 vote cast")], size=(20, 60))
    assert code == 130 and "\x1b[?25h\x1b[?1049l" in written and "1 vote by ada saved" in written


@pytest.mark.parametrize("width", [40, 99, 100, 200])
def test_every_line_fits_the_terminal(width: int) -> None:
    from rich.cells import cell_len

    item = AnswerPair("q", "q", "a", "b", "x", "y")
    left = "word " * 80 + "\n\n" + "x" * 300 + "\n日本語の長い文章です。" * 20
    round = Round(item, "vote", "a", (("user", "Why?\n" * 3),), left, "", latencies=(0.5, 2.25))
    lines = voting_screen._laid_out(round, width)
    assert max(map(cell_len, lines)) <= width
    assert any("LEFT (0.50 s)" in line for line in lines) and any("(an empty answer)" in line for line in lines)
    assert (lines.index(next(line for line in lines if "RIGHT" in line)) > 20) is (width < 100)
