"""What an answer takes, always measured. Each docstring is the definition that the report prints."""

from __future__ import annotations

from typing import Any

from llmbench.compare.answers import Answer
from llmbench.compare.metrics.values import each
from llmbench.questions import Question

__all__ = ["completion_tokens", "first_token", "latency", "prompt_tokens"]


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
