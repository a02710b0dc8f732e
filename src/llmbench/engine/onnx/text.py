"""The text of an answer while it grows: pieces that will not change any more, up to a text that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["AnswerText"]

_UNFINISHED = "\ufffd"


class AnswerText:
    """What has been written.

    Args:
        decode: token ids -> text, without special tokens.
        stop: texts that end the answer and are no part of it.
        before: the last tokens of the prompt. SentencePiece's first word has its blank only where another stands before it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str], before: Sequence[int] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids = list(before)
        self._before = len(decode(self._ids).rstrip(_UNFINISHED)) if before else 0
        self._sent = 0
        self.stopped: str | None = None
        """The one of `stop` that was written."""

    def add(self, token: int) -> str:
        """Takes a token; gives the piece of text that is certain now, which may be empty."""
        self._ids.append(token)
        return self._piece(last=False)

    def finish(self) -> str:
        """What is left when no token comes any more."""
        return "" if self.stopped else self._piece(last=True)

    def _piece(self, *, last: bool) -> str:
        whole = self._decode(self._ids)[self._before :]
        found = [(at, one) for one in self._stop if (at := whole.find(one, max(0, self._sent - len(one)))) >= 0]
        if found:
            at, self.stopped = min(found)
            certain = max(at, self._sent)
        elif last:
            certain = len(whole)
        elif whole.endswith(_UNFINISHED):
            certain = self._sent  # bytes of a character that is not whole yet
        else:
            certain = len(whole) - self._held(whole)
        piece, self._sent = whole[self._sent : certain], max(self._sent, certain)
        return piece

    def _held(self, whole: str) -> int:
        """How many characters at the end may be the beginning of a text that ends the answer."""
        longest = 0
        for one in self._stop:
            for count in range(min(len(one) - 1, len(whole)), longest, -1):
                if whole.endswith(one[:count]):
                    longest = count
                    break
        return longest
