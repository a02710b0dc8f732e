"""The chat template at work in a process of its own: conversations in, samples out, within limits of time and memory."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from llmbench.confined.process import ConfinedProcess, ProcessDied
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
        self._process: ConfinedProcess | None = None
        self._waiting: deque[int] = deque()
        self._lines: deque[bytes] = deque()
        self._begun: list[bytes] = []

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def send(self, chats: Sequence[Chat]) -> None:
        """Hands over a batch. Receive the one before first: the process reads a batch whole, then answers row by row."""
        process = self._process or self._start()
        rows = [{"messages": chat.messages, "tools": chat.tools} for chat in chats]
        self._waiting.append(len(rows))
        _write(process, json.dumps(rows))

    def receive(self) -> Iterator[dict[str, Any]]:
        """The answers to the oldest batch, one a row: `samples`, or `reason` and `detail`.

        Raises:
            DataError: the template goes beyond its limits, or died of a row.
        """
        assert self._process is not None
        for _ in range(self._waiting.popleft()):
            answer = self._answer(self._process)
            if "limit" in answer:
                raise DataError(f"The chat template {answer['limit']}. Set data.chat_template to another one.")
            yield answer

    def _start(self) -> ConfinedProcess:
        process = self._process = ConfinedProcess(["-m", "llmbench.turns"], {"memory": MEMORY})
        template = self.template
        _write(
            process,
            json.dumps(
                {
                    "templates": template.templates,
                    "variables": template.variables,
                    "specials": template.specials,
                    "tokens": template.tokens,
                    "stops": template.stops,
                    "train_on": template.train_on,
                    "seconds": SECONDS,
                    "characters": CHARACTERS,
                }
            ),
        )
        ready = self._answer(process)
        if "limit" in ready:
            raise DataError(f"The chat template {ready['limit']}. Set data.chat_template to another one.")
        return process

    def _answer(self, process: ConfinedProcess) -> dict[str, Any]:
        """The next line of the process."""
        while not self._lines:
            try:
                data = process.receive(2**20, time.monotonic() + PATIENCE)
            except TimeoutError:
                raise DataError(f"The chat template gives no answer for {PATIENCE:g} seconds. Use another one.") from None
            except ProcessDied as died:
                raise _died(died) from None
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


def _write(process: ConfinedProcess, line: str) -> None:
    try:
        process.send(line.encode() + b"\n")
    except ProcessDied as died:
        raise _died(died) from None


def _died(died: ProcessDied) -> DataError:
    return DataError(f"The process that renders the chat template died ({died}). Set data.chat_template to another.")
