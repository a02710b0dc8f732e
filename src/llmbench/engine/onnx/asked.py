"""What a request asks for, checked. Only what changes nothing is passed over; what this server cannot do is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["ModelLimits", "RefusedRequest", "WantedAnswer", "chat", "completion"]

_MOST_LOGPROBS = 20
_CANNOT = ("response_format", "structured_outputs", "tools", "tool_choice", "parallel_tool_calls")
_ASKS_NOTHING = {"tool_choice": "none", "response_format": {"type": "text"}}
"""Values of these that are what is done anyway."""
_PASSED_OVER = {"model", "stream", "stream_options", "user", "priority", "return_token_ids", "reasoning_effort"}
_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (1e-9, 1), "min_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2),
    "repetition_penalty": (1e-9, float("inf")),
}  # fmt: skip
_WHOLE: dict[str, tuple[int, int]] = {
    "top_k": (-1, 2**31), "n": (1, 64), "min_tokens": (0, 2**31), "max_tokens": (0, 2**31), "max_completion_tokens": (1, 2**31),
    "prompt_logprobs": (0, _MOST_LOGPROBS), "seed": (-(2**63), 2**63),
}  # fmt: skip
_OTHERS = {"stop", "stop_token_ids", "ignore_eos", "logit_bias"}
_FLAGS = ("stream", "ignore_eos", "return_token_ids", "echo", "logprobs")
_OBJECTS = ("stream_options", "chat_template_kwargs")
_MOST_BIAS = 100.0
"""OpenAI's; a larger one counts as this one, as it does for vLLM."""
_NAMED = 100
"""Characters of a field's name that an error repeats."""


class RefusedRequest(Exception):
    """A request that is not answered, with the status, and the field that is wrong."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class ModelLimits:
    """What a model can take."""

    context: int
    """Tokens of prompt and answer together."""
    vocabulary: int
    """Tokens that it knows; ids are below it."""


@dataclass(frozen=True)
class WantedAnswer:
    """One prompt and how it is to be answered; a chat's and a completion's fields under one name each."""

    ids: tuple[int, ...]
    """The prompt, at least one token."""
    most: int
    """Tokens to write."""
    count: int = 1
    """Answers."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    """Beside the model's own."""
    ignore_eos: bool = False
    least: int = 0
    """Tokens before which no token ends the answer."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told with each written one; None tells nothing."""
    prompt_logprobs: int | None = None
    echo: bool = False


def chat(
    body: dict[str, Any], ids: Callable[[list[dict[str, Any]], dict[str, Any]], list[int]], limits: ModelLimits
) -> WantedAnswer:
    """A chat's request.

    Args:
        body: as it was sent.
        ids: the tokens of messages, by the model's chat template with variables of it.
        limits: of the model.

    Raises:
        RefusedRequest: a field is wrong, or cannot be honoured.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise RefusedRequest("messages must be a list of messages", "messages")
    shown = _count(body, "top_logprobs") or 0
    known = {"messages", "logprobs", "top_logprobs", "chat_template_kwargs"}
    fields = _fields(body, known, limits)
    most = fields.pop("max_completion_tokens", None) or fields.pop("max_tokens", None)
    fields.pop("max_tokens", None)
    told = shown if body.get("logprobs") else None
    return _wanted(fields, tuple(ids(messages, body.get("chat_template_kwargs") or {})), most, limits, logprobs=told)


def completion(body: dict[str, Any], ids: Callable[[str], list[int]], limits: ModelLimits) -> list[WantedAnswer]:
    """A completion's request: one for each prompt.

    Args:
        body: as it was sent.
        ids: the tokens of a text that begins a prompt.
        limits: of the model.

    Raises:
        RefusedRequest: as of `chat`.
    """
    given = body.get("prompt")
    several = isinstance(given, list) and given and not all(_is_whole(one) for one in given)
    prompts = cast("list[Any]", given if several else [given])
    told = _count(body, "logprobs")
    fields = _fields({key: value for key, value in body.items() if key != "logprobs"}, {"prompt", "echo"}, limits)
    most = fields.pop("max_tokens", 16)
    fields.pop("max_completion_tokens", None)
    echo = body.get("echo") is True
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            tokens = tuple(ids(prompt))
        elif isinstance(prompt, list) and prompt and all(map(_is_whole, prompt)):
            tokens = tuple(prompt)
            _check_known(tokens, "prompt", limits)
        else:
            raise RefusedRequest("prompt must be a text, token ids, or a list of either", "prompt")
        found.append(_wanted(fields, tokens, most, limits, logprobs=told, echo=echo))
    return found


def _wanted(fields: dict[str, Any], ids: tuple[int, ...], most: int | None, limits: ModelLimits, **more: Any) -> WantedAnswer:
    if not ids:
        raise RefusedRequest("the prompt is empty", "prompt")
    context, least = limits.context, fields.get("least", 0)
    room = context - len(ids)
    if room < (0 if most == 0 else 1) or (most is not None and most > room):
        raise RefusedRequest(
            f"This model's maximum context length is {context} tokens. However, you requested {most or 1} output tokens and "
            f"your prompt contains {len(ids)} input tokens. Please reduce the length of the input prompt or the number of "
            "requested output tokens", "max_tokens",
        )  # fmt: skip
    most = room if most is None else most
    if least > most:
        raise RefusedRequest(f"min_tokens must be at most max_tokens, which is {most}", "min_tokens")
    return WantedAnswer(ids, most, **fields, **more)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_known(ids: Sequence[int], field: str, limits: ModelLimits) -> None:
    """Raises RefusedRequest where an id is none of the vocabulary's."""
    wrong = next((one for one in ids if not 0 <= one < limits.vocabulary), None)
    if wrong is not None:
        message = (
            f"{field}: token id {str(wrong)[:_NAMED]} is out of the vocabulary, whose ids are 0 to {limits.vocabulary - 1}"
        )
        raise RefusedRequest(message, field)


def _count(body: dict[str, Any], key: str) -> int | None:
    """How many log-probabilities are asked for."""
    value = body.get(key)
    if value is not None and not (_is_whole(value) and 0 <= value <= _MOST_LOGPROBS):
        raise RefusedRequest(f"{key} must be a whole number from 0 to {_MOST_LOGPROBS}", key)
    return cast("int | None", value)


def _fields(body: dict[str, Any], known: set[str], limits: ModelLimits) -> dict[str, Any]:
    """The fields of chats and completions alike, under one name; max_tokens and max_completion_tokens as they are."""
    given = {key: value for key, value in body.items() if value is not None}
    for key in given:
        if key in _CANNOT and given[key] != _ASKS_NOTHING.get(key):
            raise RefusedRequest(f"{key} is not supported by the ONNX server: serve the merged model with vLLM", key)
        if key not in known | _PASSED_OVER | _OTHERS | set(_NUMBERS) | set(_WHOLE) | set(_CANNOT):
            raise RefusedRequest(f"{key[:_NAMED]} is not supported by the ONNX server", key[:_NAMED])
    _check_kinds(given)
    found: dict[str, Any] = {}
    for table, kind, name in ((_NUMBERS, (int, float), "a number"), (_WHOLE, int, "a whole number")):
        for key, (low, high) in cast("dict[str, tuple[float, float]]", table).items():
            if key in given:
                value = given[key]
                if isinstance(value, bool) or not isinstance(value, cast("Any", kind)) or not low <= value <= high:
                    raise RefusedRequest(f"{key} must be {name} {_range(low, high)}", key)
                found[key] = value
    for key, ours in (("n", "count"), ("min_tokens", "least")):
        if key in found:
            found[ours] = found.pop(key)
    found["top_k"] = max(found.get("top_k", 0), 0)
    return found | _rest(given, limits)


def _range(low: float, high: float) -> str:
    if isinstance(low, int):
        return f"from {low:,} to {high:,}"
    return "above 0" + (f" and at most {high:g}" if math.isfinite(high) else "")


def _check_kinds(given: dict[str, Any]) -> None:
    for key in _FLAGS:
        if not isinstance(given.get(key, False), bool):
            raise RefusedRequest(f"{key} must be true or false", key)
    for key in _OBJECTS:
        if not isinstance(given.get(key, {}), dict):
            raise RefusedRequest(f"{key} must be an object", key)
    if given.get("stream") and "prompt_logprobs" in given:
        raise RefusedRequest("prompt_logprobs is not available with stream: leave one of them out", "prompt_logprobs")


def _rest(given: dict[str, Any], limits: ModelLimits) -> dict[str, Any]:
    stop = given.get("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(one, str) and one for one in stop):
        raise RefusedRequest("stop must be a text or a list of texts", "stop")
    ids = given.get("stop_token_ids", [])
    if not isinstance(ids, list) or not all(map(_is_whole, ids)):
        raise RefusedRequest("stop_token_ids must be a list of whole numbers", "stop_token_ids")
    _check_known(ids, "stop_token_ids", limits)
    bias = given.get("logit_bias", {})
    try:
        pairs = tuple((int(token), float(value)) for token, value in bias.items())
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise RefusedRequest("logit_bias must hold numbers by token id", "logit_bias") from error
    if not all(math.isfinite(value) for _, value in pairs):
        raise RefusedRequest("logit_bias must hold finite numbers by token id", "logit_bias")
    _check_known([token for token, _ in pairs], "logit_bias", limits)
    pairs = tuple((token, max(-_MOST_BIAS, min(_MOST_BIAS, value))) for token, value in pairs)
    return {
        "stop": tuple(stop), "stop_ids": frozenset(ids), "logit_bias": pairs, "ignore_eos": given.get("ignore_eos") is True,
    }  # fmt: skip
