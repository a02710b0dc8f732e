"""What an answer takes, always measured. Each docstring is the definition that the report prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmbench.compare.answers import Answer
from llmbench.compare.metrics.values import Judge, Pair, Tools, each
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

__all__ = ["completion_tokens", "cost", "first_token", "latency", "prompt_tokens"]


@each
def latency(question: Question, answer: Answer, spec: Any) -> float | None:
    """Seconds from the request to the end of the answer, seen by the client, with other requests in flight."""
    return answer.latency


@each
def first_token(question: Question, answer: Answer, spec: Any) -> float | None:
    """Seconds from the request to the first text of the answer, retrieval included."""
    return answer.first_token


@each
def prompt_tokens(question: Question, answer: Answer, spec: Any) -> float | None:
    """Tokens that the model read, retrieved passages included, as the server counted them."""
    return float(answer.prompt_tokens) if answer.prompt_tokens else None


@each
def completion_tokens(question: Question, answer: Answer, spec: Any) -> float | None:
    """Tokens that the model wrote, as the server counted them."""
    return float(answer.completion_tokens) if answer.prompt_tokens else None


def cost(recipe: CompareRecipe) -> Judge:
    """What gives the cost of answers by a recipe's prices."""
    prices = recipe.prices.variants if recipe.prices is not None else {}

    def judge(pairs: Sequence[Pair], spec: Any, tools: Tools) -> list[float | None]:
        """The price of 1,000 such answers: of the tokens read and written, or of the hardware's time, which is an answer's
        latency divided by the requests in flight. Variants without a price are not measured."""
        return [one(answer) for _, answer in pairs]

    def one(answer: Answer) -> float | None:
        price = prices.get(answer.variant, prices.get("*"))
        if price is None:
            return None
        if price.hour is not None:
            return 1000 * price.hour * answer.latency / 3600 / recipe.concurrency
        if not answer.prompt_tokens:
            return None
        return (answer.prompt_tokens * (price.prompt or 0) + answer.completion_tokens * (price.completion or 0)) / 1000

    return judge
