"""Logits -> the next token, in vLLM's order: bias, penalties, temperature, min_p, top_k, top_p."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llmbench.engine.onnx.asked import WantedAnswer

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TokenSampler", "log_softmax"]

_GREEDY = 1e-5
"""A temperature below this is 0."""


class TokenSampler:
    """Draws the tokens of one answer."""

    def __init__(self, wanted: WantedAnswer, stops: frozenset[int], number: int) -> None:
        """Takes the request, the tokens that may end the answer, and which of the request's answers it is."""
        import numpy as np

        self._wanted, self._stops = wanted, stops
        seed = None if wanted.seed is None else [abs(wanted.seed), int(wanted.seed < 0), number]
        self._random = np.random.default_rng(seed)
        self._written: Counter[int] = Counter()
        self._seen = sorted(set(wanted.ids))

    def draw(self, logits: np.ndarray) -> int:
        """The next token. `logits` has one row, (vocabulary,); it is not changed."""
        wanted, scores = self._wanted, self._penalised(logits.astype("float64"))
        if self._written.total() < wanted.least:
            scores[[token for token in self._stops if token < len(scores)]] = float("-inf")
        token = int(scores.argmax()) if wanted.temperature < _GREEDY else self._drawn(scores / wanted.temperature)
        self._written[token] += 1
        return token

    def _penalised(self, scores: np.ndarray) -> np.ndarray:
        import numpy as np

        wanted = self._wanted
        for token, bias in wanted.logit_bias:
            scores[token] += bias
        if wanted.repetition_penalty != 1:
            seen = np.asarray(sorted({*self._seen, *self._written}))
            held = scores[seen]
            scores[seen] = np.where(held > 0, held / wanted.repetition_penalty, held * wanted.repetition_penalty)
        if self._written and (wanted.frequency_penalty or wanted.presence_penalty):
            tokens, counts = np.asarray(list(self._written)), np.asarray(list(self._written.values()))
            scores[tokens] -= wanted.frequency_penalty * counts + wanted.presence_penalty
        return scores

    def _drawn(self, scores: np.ndarray) -> int:
        import numpy as np

        wanted = self._wanted
        if wanted.min_p > 0:
            scores[scores < scores.max() + np.log(wanted.min_p)] = -np.inf
        if 0 < wanted.top_k < len(scores):
            scores[scores < np.partition(scores, -wanted.top_k)[-wanted.top_k]] = -np.inf
        chances = np.exp(log_softmax(scores))
        if wanted.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            before = np.cumsum(chances[order]) - chances[order]
            chances[order[before >= wanted.top_p]] = 0
        return int(self._random.choice(len(chances), p=chances / chances.sum()))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis."""
    import numpy as np

    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
