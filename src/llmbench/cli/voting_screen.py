"""Voting with single keys on a terminal: both answers side by side, however long, on a screen of its own."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmbench.shown import counted, legible

if TYPE_CHECKING:
    from llmbench.votes import Booth
    from llmbench.votes.values import Choice, Round

__all__ = ["possible", "screen"]

_VOTES: dict[str, Choice] = {
    "1": "left", "left": "left", "2": "right", "right": "right", "3": "tie", "=": "tie", "t": "tie", "4": "both_bad",
    "b": "both_bad", "5": "skip", "s": "skip",
}  # fmt: skip
_SAID = {"left": "left is better", "right": "right is better", "tie": "tie", "both_bad": "both bad", "skip": "skipped"}
_ESCAPES = {
    "[D": "left", "OD": "left", "[C": "right", "OC": "right", "[A": "up", "OA": "up", "[B": "down", "OB": "down",
    "[5~": "page up", "[6~": "page down", "[H": "home", "[F": "end",
}  # fmt: skip
_KEYS = "1/← left  2/→ right  3 tie  4 both bad  5 skip  u undo  r reasons  n note  ↑↓ scroll  ? help  q quit"
_HELP = [
    "Two answers to one question, from variants that are not named, on random sides. Which is better?",
    "",
    "1 or ←      the left answer is better",
    "2 or →      the right answer is better",
    "3, t or =   a tie: both are as good",
    "4 or b      both are bad",
    "5 or s      skip: you cannot say",
    "u           take the last vote back, and see its answers again",
    "r           say why, in words from a list (before the vote)",
    "n           write a note (before the vote)",
    "↑ ↓ space PgUp PgDn   read on in long answers",
    "q           stop; every vote is saved, and the same command continues",
    "",
    "Some rounds check attention: the same answer twice, or one whose words are shuffled.",
    "",
    "Press any key to go back.",
]
_LETTERS = "abcdefghijkl"
_NARROW = 100
"""Columns of a terminal below which answers stand under each other."""


def possible() -> bool:
    """Whether keys can be read and a screen drawn here."""
    return (
        sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and os.name == "posix"
    )


def screen(booth: Booth, limit: int | None) -> int:
    """Shows and asks until all is voted on, `limit` votes are cast, or q is pressed; how many were cast."""
    with _raw() as keys:
        return _Screen(booth, limit, keys).run()


class _Screen:
    """What is on the screen, and what is being said of it."""

    def __init__(self, booth: Booth, limit: int | None, keys: Callable[[float], str]) -> None:
        self.booth, self.limit, self._keys = booth, limit, keys
        self.cast, self.top = 0, 0
        self.head = self.message = self.note = ""
        self.reasons: list[str] = []

    def run(self) -> int:
        """Round after round."""
        while self.limit is None or self.cast < self.limit:
            round = self.booth.next()
            if round is None:
                break
            self.top, self.reasons, self.note = 0, [], ""
            progress = self.booth.progress()
            self.head = f"{counted(progress.cast, 'vote')} cast, {progress.left:,} left"
            if not self._one(round):
                break
        return self.cast

    def _one(self, round: Round) -> bool:
        """One round, until it is voted on or the last vote is taken back; False to stop."""
        if round.wait:
            self._draw([*_wrapped(_asked(round), self._width()), "", "The answers are being written ..."])
            time.sleep(round.wait)
        began = time.monotonic()
        while True:
            self._draw(_laid_out(round, self._width()))
            key = self._key()
            if choice := _VOTES.get(key):
                looked = time.monotonic() - began
                self.booth.cast(round, choice, reasons=self.reasons, note=self.note, seconds=looked)
                self.cast += 1
                self.message = f"Saved: {_SAID[choice]}. u takes it back."
                return True
            match key:
                case "q" | "\x03" | "\x04" | "end of input":
                    return False
                case "u" | "\x7f":
                    taken = self.booth.undo()
                    self.cast -= taken is not None
                    self.message = "The last vote is taken back." if taken else "There is no vote to take back."
                    return True
                case _:
                    self._other(key)

    def _other(self, key: str) -> None:
        """Keys that say nothing yet."""
        page = max(1, self._height() - 1)
        moves = {
            "up": -1,
            "k": -1,
            "down": 1,
            "j": 1,
            "page up": -page,
            "page down": page,
            " ": page,
            "home": -(10**6),
            "end": 10**6,
        }
        if key in moves:
            self.top += moves[key]
        elif key == "r":
            self._ask_reasons()
        elif key == "n":
            self._ask_note()
        elif key == "?":
            self.top = 0
            self._draw(_HELP)
            while not self._key():
                pass
        elif key:
            self.message = "That key does nothing. ? shows the keys."

    def _ask_reasons(self) -> None:
        from llmbench.votes.values import REASONS

        while True:
            named = "  ".join(
                f"{letter} {'[x]' if reason in self.reasons else '[ ]'} {reason}"
                for letter, reason in zip(_LETTERS, REASONS, strict=False)
            )
            self._draw(None, below=[*_wrapped(named, self._width()), "Letters switch; Enter when done."])
            key = self._key()
            if key in ("\r", "\n", "\x1b", "end of input"):
                self.message = f"Reasons: {', '.join(self.reasons) or 'none'}."
                return
            if len(key) == 1 and key in _LETTERS[: len(REASONS)]:
                reason = REASONS[_LETTERS.index(key)]
                if reason in self.reasons:
                    self.reasons.remove(reason)
                else:
                    self.reasons.append(reason)

    def _ask_note(self) -> None:
        text = self.note
        while True:
            self._draw(None, below=[*_wrapped(f"Note: {text}_", self._width()), "Enter keeps it, Esc drops it."])
            key = self._key()
            if key in ("\r", "\n", "end of input"):
                self.note = text
                self.message = "Note kept." if text else ""
                return
            if key in ("\x1b", "\x03"):
                return
            text = text[:-1] if key in ("\x7f", "\b") else text + key if len(key) == 1 and key.isprintable() else text

    def _width(self) -> int:
        return max(20, shutil.get_terminal_size().columns)

    def _height(self) -> int:
        """Lines between head and foot."""
        return max(3, shutil.get_terminal_size().lines - 4 - len(_wrapped(_KEYS, self._width())))

    def _key(self) -> str:
        """The next key; empty where the terminal has another size, so that all is drawn again."""
        size = shutil.get_terminal_size()
        while not (key := self._keys(0.5)):
            if shutil.get_terminal_size() != size:
                return ""
        return key

    def _draw(self, body: list[str] | None, below: list[str] | None = None) -> None:
        """The whole screen; without a body only its foot."""
        width, height = self._width(), self._height()
        foot = below or [self.message, *_wrapped(_KEYS, width)]
        out = []
        if body is not None:
            self.top = max(0, min(self.top, len(body) - height))
            more = len(body) - self.top - height
            place = f"   {counted(more, 'more line')}: ↓" if more > 0 else "   end" if self.top else ""
            out = ["\x1b[H\x1b[J", _fit(self.head + place, width), "\r\n", "─" * width, "\r\n"]
            out += [line + "\r\n" for line in body[self.top : self.top + height]]
        first = max(1, shutil.get_terminal_size().lines - len(foot))
        out += [f"\x1b[{first};1H\x1b[J", "─" * width]
        out += [f"\x1b[{first + 1 + i};1H{_fit(line, width)}" for i, line in enumerate(foot)]
        sys.stdout.write("".join(out))
        sys.stdout.flush()


def _asked(round: Round) -> str:
    return "\n".join(text if role == "user" else f"({role}) {text}" for role, text in round.conversation)


def _laid_out(round: Round, width: int) -> list[str]:
    """The question, then both answers: side by side, or under each other where the terminal is narrow."""
    times = round.latencies or (None, None)
    heads = [
        name if seconds is None else f"{name} ({seconds:.2f} s)" for name, seconds in zip(("LEFT", "RIGHT"), times, strict=True)
    ]
    texts = [text or "(an empty answer)" for text in (round.left, round.right)]
    lines = [*_wrapped(_asked(round), width), ""]
    if width < _NARROW:
        for head, text in zip(heads, texts, strict=True):
            lines += [head, *_wrapped(text, width), ""]
        return lines
    half = (width - 3) // 2
    left, right = ([head, "", *_wrapped(text, half)] for head, text in zip(heads, texts, strict=True))
    length = max(len(left), len(right))
    left, right = (side + [""] * (length - len(side)) for side in (left, right))
    return lines + [f"{_padded(one, half)} │ {other}" for one, other in zip(left, right, strict=True)]


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most so many cells, with nothing that a terminal would obey."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, height=25)
    whole = Text(legible(text).expandtabs(4))
    return [line.plain.rstrip() for line in whole.wrap(console, width)] or [""]


def _padded(line: str, width: int) -> str:
    from rich.cells import cell_len

    return line + " " * max(0, width - cell_len(line))


def _fit(line: str, width: int) -> str:
    from rich.cells import cell_len, chop_cells

    return line if cell_len(line) <= width else chop_cells(line, width - 1)[0] + "…"


@contextmanager
def _raw() -> Iterator[Callable[[float], str]]:
    """Keys as they are pressed, on a screen of their own; both are put back however the block ends.

    Gives a function that waits so many seconds for a key: a character, or a name such as `left`; empty where none came.
    """
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    sys.stdout.flush()
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _key(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _key(descriptor: int, seconds: float) -> str:
    if not select.select([descriptor], [], [], seconds)[0]:
        return ""
    first = os.read(descriptor, 1)
    if not first:
        return "end of input"
    if first == b"\x1b":
        rest = b""
        while len(rest) < 8 and select.select([descriptor], [], [], 0.03)[0]:
            rest += os.read(descriptor, 1)
            if (rest[-1:].isalpha() and rest not in (b"O",)) or rest.endswith(b"~"):
                break
        return _ESCAPES.get(rest.decode("ascii", "replace"), "\x1b" if not rest else "unknown")
    # The further bytes of a character of several.
    length = 2 if first[0] >> 5 == 0b110 else 3 if first[0] >> 4 == 0b1110 else 4 if first[0] >> 3 == 0b11110 else 1
    while len(first) < length and select.select([descriptor], [], [], 0.03)[0]:
        first += os.read(descriptor, 1)
    return first.decode("utf-8", "replace")
