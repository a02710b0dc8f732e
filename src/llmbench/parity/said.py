"""What a model says to one probe: the prompt's tokens with their log-probabilities, and what it would write after it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Said"]


@dataclass(frozen=True)
class Said:
    """One model, one probe.

    `ids` are the prompt's token ids, (n,); `logprobs` the natural logarithm of the probability of each after the first,
    (n - 1,); `greedy` the ids of a greedy continuation, (m,), where the end of a turn does not end it; `gaps` how much more
    likely each of these was than the second best, in nats, (m,).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: tuple[int, ...] = ()
    gaps: tuple[float, ...] = ()
