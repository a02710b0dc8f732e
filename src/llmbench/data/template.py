"""The chat template at work in a process of its own: conversations in, samples out, within limits of time and memory."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import orjson

from llmbench.data.formats import Chat
from llmbench.errors import DataError

__all__ = ["Renderer", "Template"]

SECONDS = 5.0
"""Processor time for one row; a conversation of a hundred turns takes a hundredth of a second."""
PATIENCE = 60.0
"""Seconds by the clock without an answer, on a machine that is busy with other things, before the process is killed."""
MEMORY = 2 * 2**30
"""Bytes of address space."""
CHARACTERS = 4 * 2**20
"""Characters that a template may write beyond eight times its input."""


@dataclass(frozen=True)
class Template:
    """What renders: the templates by name, and the variables they see."""

    templates: dict[str, str]
    variables: dict[str, Any]
    specials: tuple[str, ...]
    """Control tokens, which are plain text where the words of a row spell them out."""
    tokens: tuple[str, ...]
    """Every token that the tokenizer has as such: what closes a turn is one of them."""
    stops: tuple[str, ...]
    """The tokens at which the model stops by itself."""
    train_on: str = "assistant"


class Renderer:
    """One process that renders; conversations are handed to it a batch ahead, so that it works while the caller does.

    Use it in a `with` block; the process ends with the block, and with this process.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: deque[int] = deque()
        self._lines: deque[bytes] = deque()
        self._begun: list[bytes] = []

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
            self._process = None

    def send(self, chats: Sequence[Chat]) -> None:
        """Hands over a batch. Receive the one before first: the process reads a batch whole, then answers row by row."""
        if self._process is None:
            self._start()
        rows = [{"messages": chat.messages, "tools": chat.tools} for chat in chats]
        self._waiting.append(len(rows))
        self._write(json.dumps(rows))

    def receive(self) -> Iterator[dict[str, Any]]:
        """The answers to the oldest batch, one a row: `samples`, or `reason` and `detail`.

        Raises:
            DataError: the template goes beyond its limits, or died of a row.
        """
        for _ in range(self._waiting.popleft()):
            answer = self._answer()
            if "limit" in answer:
                raise DataError(f"The chat template {answer['limit']}. Set data.chat_template to another one.")
            yield answer

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llmbench.turns"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        template = self.template
        self._write(
            json.dumps(
                {
                    "templates": template.templates,
                    "variables": template.variables,
                    "specials": template.specials,
                    "tokens": template.tokens,
                    "stops": template.stops,
                    "train_on": template.train_on,
                    "seconds": SECONDS,
                    "memory": MEMORY,
                    "characters": CHARACTERS,
                }
            )
        )
        ready = self._answer()
        if "limit" in ready:
            raise DataError(f"The chat template {ready['limit']}. Set data.chat_template to another one.")

    def _write(self, line: str) -> None:
        stream = self._stream("stdin")
        try:
            stream.write(line.encode() + b"\n")
            stream.flush()
        except BrokenPipeError:
            raise DataError(self._died()) from None

    def _answer(self) -> dict[str, Any]:
        """The next line of the process."""
        while not self._lines:
            with selectors.DefaultSelector() as selector:
                selector.register(self._stream("stdout"), selectors.EVENT_READ)
                if not selector.select(PATIENCE):
                    raise DataError(f"The chat template gives no answer for {PATIENCE:g} seconds. Use another one.")
            data = os.read(self._stream("stdout").fileno(), 2**20)
            if not data:
                raise DataError(self._died())
            *whole, rest = data.split(b"\n")
            if whole:
                whole[0] = b"".join(self._begun) + whole[0]
                self._begun.clear()
                self._lines.extend(whole)
            self._begun.append(rest)
        line = self._lines.popleft()
        try:
            value: dict[str, Any] = orjson.loads(line)
        except orjson.JSONDecodeError:  # half characters and whole numbers beyond 64 bits
            value = json.loads(line.decode("utf-8", "surrogatepass"))
        return value

    def _stream(self, name: str) -> IO[bytes]:
        stream: IO[bytes] = getattr(self._process, name)
        return stream

    def _died(self) -> str:
        assert self._process is not None
        return (
            f"The process that renders the chat template died (code {self._process.wait()}). Set data.chat_template to another."
        )
