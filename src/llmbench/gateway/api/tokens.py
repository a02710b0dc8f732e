"""A text to the tokens of a variant's model, and tokens to their text."""

from __future__ import annotations

from typing import Any

from llmbench.gateway.api.fields import model_of, of_body
from llmbench.gateway.body import check_type, read
from llmbench.gateway.refusal import Refusal

__all__ = ["LARGEST", "detokenize", "tokenize"]

LARGEST = 2**31


def tokenize(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The variant that `/tokenize` asks for, and what the engine is asked.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    body = read(raw)
    name, text = body.get("model"), body.get("prompt")
    if not isinstance(name, str) or not isinstance(text, str):
        raise Refusal(400, "/tokenize takes a model and a prompt, both texts.", param="prompt")
    asked: dict[str, Any] = {"prompt": text}
    for key in ("add_special_tokens", "return_token_strs"):
        if body.get(key) is not None:
            check_type(key, body[key], "true or false")
            asked[key] = body[key]
    return name, asked


def detokenize(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The same for `/detokenize`.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, {"model": "a text", "tokens": "a list"}, {"prompt": "send tokens; /tokenize takes a prompt"})
    name, tokens = model_of(fields), fields.get("tokens")
    if not isinstance(tokens, list) or not all(type(one) is int and 0 <= one < LARGEST for one in tokens):
        raise Refusal(400, "tokens must be a list of token ids, whole numbers from 0 on.", param="tokens")
    return name, {"tokens": tokens}
