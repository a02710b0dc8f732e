"""Queries of several threads, embedded as batches: those that come while one is computed are the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Together"]

_MOST = 64
"""Texts of a batch."""


class _Asked:
    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.turn = threading.Event()
        """Set when it is answered, or when it is its thread's turn to compute."""
        self.vectors: NDArray[np.float32] | None = None
        self.error: Exception | None = None


class Together:
    """Embeds what threads ask for at the same time in one go. Whoever comes alone waits for nobody.

    There is no thread for it: the first that finds nobody computing computes, for itself and for all who wait by then,
    and hands on to one of those that have come meanwhile.

    Args:
        embed: texts -> vectors of shape (n, dim), of which each depends on its text alone.
    """

    def __init__(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._embed = embed
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []
        self._computing = False

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some texts, in their order.

        Raises:
            LlmbenchError: as `embed`, about these texts and nobody else's.
        """
        mine = _Asked(texts)
        with self._lock:
            self._waiting.append(mine)
            leads, self._computing = not self._computing, True
        if not leads:
            mine.turn.wait()
        if mine.vectors is None and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.vectors is not None
        return mine.vectors

    def _lead(self) -> None:
        """Computes those that wait, of which the caller is the first, and lets the next begin."""
        with self._lock:
            count, size = 0, 0
            while count < len(self._waiting) and (count == 0 or size + len(self._waiting[count].texts) <= _MOST):
                size += len(self._waiting[count].texts)
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
        try:
            self._compute(batch)
        except BaseException as error:
            for asked in batch:  # an interrupted thread leaves nobody waiting
                asked.error = asked.error or LlmbenchError(f"embedding was interrupted ({type(error).__name__})")
            raise
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._computing = following is not None
            for asked in [*batch, *([following] if following is not None else [])]:
                asked.turn.set()

    def _compute(self, batch: Sequence[_Asked]) -> None:
        try:
            vectors = self._embed([text for asked in batch for text in asked.texts])
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for asked in batch:  # one of them is the reason: the others have their answers
                self._compute([asked])
            return
        start = 0
        for asked in batch:
            asked.vectors = vectors[start : start + len(asked.texts)]
            start += len(asked.texts)
