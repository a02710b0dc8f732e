"""The guard-rails of a rollout: what each compares, and what it is called where people read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["RAILS", "Rail"]


@dataclass(frozen=True)
class Rail:
    """One guard-rail.

    `kind` is what is compared: a share of answers, of which more is worse; a mean of values from 0 to 1, of which less is
    worse; or a quantile as a ratio to the control's, of which more is worse, and of a median less is too. `later`: it is said
    about an answer after it, about some answers only.
    """

    kind: Literal["share", "mean", "p95", "median"]
    unit: Literal["percent", "score", "seconds", "characters"]
    label: str
    later: bool = False


RAILS: Mapping[str, Rail] = {
    "errors": Rail("share", "percent", "errors"),
    "first_token": Rail("p95", "seconds", "first token, p95"),
    "seconds": Rail("p95", "seconds", "whole answer, p95"),
    "length": Rail("median", "characters", "length, median"),
    "abstention": Rail("share", "percent", "abstention"),
    "citations": Rail("share", "percent", "citations that fail"),
    "votes": Rail("mean", "percent", "up-votes", later=True),
    "judge": Rail("mean", "score", "judge's score, mean", later=True),
}
"""By the name of its margin in a route's `guardrails`, in the order in which they are shown."""
