"""A text to the tokens of a variant's model, and tokens to their text."""

from __future__ import annotations

from typing import Any

from llmbench.gateway.api.fields import model_of, of_body
from llmbench.gateway.refusal import Refusal

__all__ = ["LARGEST", "detokenize", "tokenize"]

LARGEST = 2**31
_TOKENIZE = {
    "model": "a text", "prompt": "a text", "add_special_tokens": "true or false", "return_token_strs": "true or false",
}  # fmt: skip


def tokenize(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The variant that `/tokenize` asks for, and what the engine is asked.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, _TOKENIZE, {"messages": "send prompt"})
    name = model_of(fields)
    if "prompt" not in fields:
        raise Refusal(400, "prompt is missing: the text to be tokenized.", param="prompt")
    return name, fields


def detokenize(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The variant that `/detokenize` asks for, and what the engine is asked.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, {"model": "a text", "tokens": "a list"}, {"prompt": "send tokens; /tokenize takes a prompt"})
    name, tokens = model_of(fields), fields.get("tokens")
    if not isinstance(tokens, list) or not all(_is_id(one) for one in tokens):
        raise Refusal(400, "tokens must be a list of token ids, whole numbers from 0 on.", param="tokens")
    return name, {"tokens": [int(one) for one in tokens]}


def _is_id(value: Any) -> bool:
    """As JSON has whole numbers: 5.0 is one."""
    return (type(value) is int or (type(value) is float and value.is_integer())) and 0 <= value < LARGEST
