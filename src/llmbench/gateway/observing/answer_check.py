"""What an answer from documents says about itself: whether it abstains, and whether the passages that it cites exist."""

from __future__ import annotations

from dataclasses import dataclass

from llmbench import scoring
from llmbench.gateway.exchange import Exchange
from llmbench.recipe import ABSTENTION

__all__ = ["AnswerCheck", "check_answer"]


@dataclass(frozen=True)
class AnswerCheck:
    """Whether an answer says that it has no answer, and how many passages it cites: those that it was given, and others."""

    abstains: bool
    valid: int
    invalid: int


def check_answer(exchange: Exchange) -> AnswerCheck | None:
    """What a whole answer with passages says; None for any other, and for one that only calls tools."""
    if exchange.sources is None or exchange.broken or (said := exchange.said()) is None or not said.text:
        return None
    from llmbench.retrieval import check_citations

    citations = check_citations(said.text, exchange.sources)
    return AnswerCheck(scoring.abstains(said.text, ABSTENTION), len(citations.valid), len(citations.invalid))
