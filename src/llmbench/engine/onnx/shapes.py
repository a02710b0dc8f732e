"""Answers in OpenAI's form, with vLLM's additions: `prompt_logprobs`, `prompt_token_ids`, `token_ids`, `stop_reason`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmbench.engine.onnx.answering import AnswerStep, Told

__all__ = ["chat_logprobs", "completion_logprobs", "prompt_logprobs", "usage"]

Spell = Callable[[int], str]
"""The text of one token."""


def usage(prompt: int, written: int) -> dict[str, int]:
    """Tokens of a request and its answers."""
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def chat_logprobs(steps: Sequence[AnswerStep], spell: Spell) -> dict[str, Any] | None:
    """`logprobs` of a chat's choice; None where none were asked for."""
    told = [step.told for step in steps if step.told is not None]
    if not told:
        return None

    def one(token: int, logprob: float) -> dict[str, Any]:
        text = spell(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {"content": [one(it.token, it.logprob) | {"top_logprobs": [one(*pair) for pair in it.likeliest]} for it in told]}


def completion_logprobs(told: Sequence[Told | None], first: int | None, spell: Spell, offset: int = 0) -> dict[str, Any] | None:
    """`logprobs` of a completion's choice.

    Args:
        told: of each token; None is the first of the prompt, of which nothing is known.
        first: the id of that token, where the prompt is echoed.
        spell: the text of a token.
        offset: characters before the first of them.
    """
    if not told:
        return None
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for it in told:
        assert it is not None or first is not None
        text = spell(it.token if it is not None else first or 0)
        found["text_offset"].append(offset)
        offset += len(text)
        found["tokens"].append(text)
        found["token_logprobs"].append(None if it is None else it.logprob)
        pairs = [] if it is None else [*it.likeliest, (it.token, it.logprob)]
        found["top_logprobs"].append(None if it is None else {spell(token): value for token, value in pairs})
    return found


def prompt_logprobs(told: Sequence[Told | None], spell: Spell) -> list[dict[str, Any] | None] | None:
    """`prompt_logprobs`: of each token of the prompt but the first, its own log-probability and the likeliest ones' by id."""
    if not told:
        return None
    found: list[dict[str, Any] | None] = []
    for it in told:
        if it is None:
            found.append(None)
            continue
        pairs = dict(it.likeliest) | {it.token: it.logprob}
        found.append({str(token): {"logprob": value, "decoded_token": spell(token)} for token, value in pairs.items()})
    return found
