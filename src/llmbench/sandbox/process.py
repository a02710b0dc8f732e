"""The parent's side: requests in blocks, one answer a request, and a new process for one that died."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmbench.confined.process import ConfinedProcess, ProcessDied

__all__ = ["SandboxAnswer", "SandboxFailed", "SandboxProcess"]

MEMORY = 1024 * 2**20
"""Bytes of address space."""
PATIENCE = 4.0
"""How many times its processor time a request may take by the clock, on a machine that is busy with other things."""
_STARTING = 20.0
"""Seconds by the clock for the process to start and import what a request needs."""
_BLOCK = 64
_BYTES = 2**20
"""Requests that go over together, and characters of them: the process reads a block whole, then answers one by one."""


class SandboxFailed(Exception):
    """No request of this kind can be answered here. Its text is why."""


@dataclass(frozen=True)
class SandboxAnswer:
    """What came of one request: `value`, or `limit`, which bound it went beyond, or `fault`, what is wrong with it."""

    value: Any = None
    limit: str | None = None
    fault: str | None = None


class SandboxProcess:
    """One confined process, started when first needed. Use it in a `with` block, from one thread."""

    def __init__(self) -> None:
        self._process: ConfinedProcess | None = None
        self._left = b""

    def __enter__(self) -> SandboxProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        if self._process is not None:
            self._process.close()
        self._process, self._left = None, b""

    def each(self, job: str, requests: Iterable[dict[str, Any]], seconds: float) -> Iterator[SandboxAnswer]:
        """The outcome of each request, in their order.

        Args:
            job: `search`, `schema`, `query` or `program`.
            requests: what the job takes.
            seconds: processor time of one.

        Raises:
            SandboxFailed: this machine cannot do such a job.
        """
        for block in _blocks({"job": job, "seconds": seconds, **request} for request in requests):
            yield from self._block(block, seconds)

    def one(self, job: str, request: dict[str, Any], seconds: float) -> SandboxAnswer:
        """The outcome of one request; as `each`."""
        return next(self.each(job, [request], seconds))

    def _block(self, block: Sequence[dict[str, Any]], seconds: float) -> Iterator[SandboxAnswer]:
        left = list(block)
        while left:
            patience = _STARTING + PATIENCE * seconds
            try:
                process = self._process = self._process or ConfinedProcess(["-m", "llmbench.sandbox"], {"memory": MEMORY})
                process.send(json.dumps(left).encode() + b"\n")
                while left:
                    answer = json.loads(self._line(process, time.monotonic() + patience))
                    left.pop(0)
                    if "impossible" in answer:
                        raise SandboxFailed(answer["impossible"])
                    yield SandboxAnswer(answer.get("value"), answer.get("limit"), answer.get("fault"))
            except TimeoutError:
                outcome = SandboxAnswer(limit=f"takes over {patience:.0f} seconds")
            except ProcessDied as died:
                outcome = SandboxAnswer(
                    limit=f"takes over {seconds:g} seconds" if died.out_of_time else f"ends the process ({died})"
                )
            else:
                return
            self.close()
            left.pop(0)
            yield outcome

    def _line(self, process: ConfinedProcess, deadline: float) -> bytes:
        """The next line of the process."""
        data = bytearray(self._left)
        start = 0
        while (end := data.find(b"\n", start)) < 0:
            start = len(data)
            data += process.receive(2**20, deadline)
        self._left = bytes(data[end + 1 :])
        return bytes(data[:end])


def _blocks(requests: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Runs of requests that are not too much at once."""
    block: list[dict[str, Any]] = []
    size = 0
    for request in requests:
        block.append(request)
        size += sum(len(value) for value in request.values() if isinstance(value, str))
        if len(block) == _BLOCK or size > _BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
