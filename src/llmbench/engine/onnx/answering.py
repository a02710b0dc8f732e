"""One answer, computed token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench.engine.onnx.asked import WantedAnswer
from llmbench.engine.onnx.sampler import TokenSampler, log_softmax
from llmbench.engine.onnx.text import AnswerText
from llmbench.onnx_model import OnnxModel

if TYPE_CHECKING:
    import numpy as np

__all__ = ["AnswerStep", "TokenWriter", "Told"]


_AT_ONCE = 256
"""Tokens of a prompt read at once: the logits of each are there then, 150 MB of them where the vocabulary has 150,000."""
_BEFORE = 8
"""Tokens of the prompt that the text of an answer is decoded with."""


@dataclass(frozen=True)
class Told:
    """A token with its log-probability and the likeliest ones with theirs, the likeliest first."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class AnswerStep:
    """What one token brought. The last step of an answer has a reason, and its token may be none of the text."""

    text: str
    token: int | None
    told: Told | None
    reason: str | None = None
    """`stop` or `length`."""
    stop: int | str | None = None
    """The token or text that ended it; None where the model's own end did."""


class TokenWriter:
    """A model and the threads that compute.

    Args:
        model: the graph.
        tokenizer: transformers' own, of the same folder.
        threads: answers computed at the same moment; others wait for a token's time.
    """

    def __init__(self, model: OnnxModel, tokenizer: Any, threads: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._pool = ThreadPoolExecutor(threads)

    async def prompt(self, wanted: WantedAnswer) -> tuple[list[Told | None], np.ndarray, list[np.ndarray]]:
        """Reads a prompt: what is told of each of its tokens (empty unless asked for), its last logits, and the cache."""
        read: tuple[list[Told | None], np.ndarray, list[np.ndarray]] = await self._run(self._read, wanted)
        return read

    async def answer(
        self, wanted: WantedAnswer, logits: np.ndarray, cache: list[np.ndarray], number: int = 0
    ) -> AsyncIterator[AnswerStep]:
        """The steps of one answer after a prompt that was read."""
        stops = wanted.stop_ids if wanted.ignore_eos else wanted.stop_ids | self._model.stops
        sampler = TokenSampler(wanted, stops, number)
        text = AnswerText(self._decoded, wanted.stop, wanted.ids[-_BEFORE:])
        for count in range(1, wanted.most + 1):
            token = sampler.draw(logits)
            told = None if wanted.logprobs is None else _told(logits, token, wanted.logprobs)
            if token in stops:
                ended = None if token in self._model.stops and token not in wanted.stop_ids else token
                yield AnswerStep(text.finish(), token, told, "stop", ended)
                return
            piece = text.add(token)
            if text.stopped:
                yield AnswerStep(piece, token, told, "stop", text.stopped)
                return
            if count == wanted.most:
                yield AnswerStep(piece + text.finish(), token, told, "length")
                return
            yield AnswerStep(piece, token, told)
            logits, cache = await self._run(self._next, token, cache)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def _read(self, wanted: WantedAnswer) -> tuple[list[Told | None], np.ndarray, list[np.ndarray]]:
        ids, cache, last = wanted.ids, self._model.start(), None
        shown = wanted.prompt_logprobs if wanted.prompt_logprobs is not None else wanted.logprobs if wanted.echo else None
        told: list[Told | None] = [] if shown is None else [None]
        for start in range(0, len(ids), _AT_ONCE):
            end = start + _AT_ONCE
            logits, cache = self._model.read(ids[start:end], cache)
            if shown is not None:
                after = ids[start + 1 : end + 1]
                told += [_told(row, token, shown) for row, token in zip(logits, after, strict=False)]
            last = logits[-1].copy()  # a view would keep those of all positions
        assert last is not None
        return told, last, cache

    def _next(self, token: int, cache: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        logits, cache = self._model.read([token], cache)
        return logits[-1], cache

    def _decoded(self, ids: list[int]) -> str:
        found: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return found


def _told(logits: np.ndarray, token: int, count: int) -> Told:
    import numpy as np

    scores = log_softmax(logits.astype("float64"))
    best = np.argsort(-scores, kind="stable")[:count]
    return Told(token, float(scores[token]), tuple((int(one), float(scores[one])) for one in best))
