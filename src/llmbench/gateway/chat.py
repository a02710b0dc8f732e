"""What a chat request may say. Only the fields listed here reach vLLM; any other is refused by name.

So nobody sends the server a chat template, a path or a URL to fetch, and a mistyped field is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmbench.gateway import body as body_of
from llmbench.gateway import schema
from llmbench.gateway.body import check_range, check_type, check_types
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.turns import Tier
from llmbench.message import Message, text_of, with_text
from llmbench.recipe import MAX_STOPS, Sampling

__all__ = [
    "EFFORTS", "FIELDS", "MAX_BODY", "MAX_LOGPROBS", "MAX_MESSAGES", "NO_VARIABLE", "ROLES", "SHARED", "TIERS",
    "WITHOUT_EFFECT", "ChatRequest", "bounds", "check_sampling", "checked", "known", "narrow_stream", "parse", "tier_of",
    "user_of", "with_defaults", "with_system",
]  # fmt: skip

MAX_BODY = 1_000_000
"""Bytes of a request."""

MAX_MESSAGES = 1000
_MAX_N = 8
MAX_LOGPROBS = 20
_STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")
_GREEDY = 1e-5  # vLLM takes a temperature below this for 0

_SAMPLING = ("temperature", "top_p", "seed", "stop")
SHARED = {
    "stream_options": "an object", "max_tokens": "a whole number", "n": "a whole number",
    "stop": "a text or a list of texts", "seed": "a whole number", "temperature": "a number", "top_p": "a number",
    "top_k": "a whole number", "min_p": "a number", "presence_penalty": "a number", "frequency_penalty": "a number",
    "repetition_penalty": "a number", "logit_bias": "an object", "response_format": "an object",
    "ignore_eos": "true or false", "min_tokens": "a whole number",
}  # fmt: skip
"""Fields of chats and of completions alike, each with what it must be."""
FIELDS = SHARED | {
    "max_completion_tokens": "a whole number", "logprobs": "true or false", "top_logprobs": "a whole number",
    "tools": "a list", "tool_choice": "a text or an object", "parallel_tool_calls": "true or false",
    "reasoning_effort": "a text", "chat_template_kwargs": "an object",
}  # fmt: skip
_OWN = {"model", "messages", "stream"}
WITHOUT_EFFECT = {"user", "store", "metadata", "safety_identifier", "prompt_cache_key", "prediction"}
"""OpenAI's own bookkeeping, which clients send unasked, and a hint that changes no answer; they stay here."""
_DEFAULTS: dict[str, Any] = {"verbosity": "medium", "modalities": ["text"]}
"""Fields that do nothing here, with the one value that asks for nothing."""
_ELSEWHERE = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "structured_outputs": "use response_format with a json_schema",
    "guided_json": "use response_format with a json_schema",
    "web_search_options": "this server does not search the web; a RAG variant searches its own documents",
    "audio": "this server generates text only",
    "chat_template": "the model's own template is used; set its variables with chat_template_kwargs",
}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_MESSAGE_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning"}
_MAX_USER = 256
TIERS = ("auto", "default", "flex", "priority", "scale")
ROLES = ("system", "developer", "user", "assistant", "tool")
NO_VARIABLE = {
    "messages", "tools", "documents", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
    "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length",
    "bos_token", "eos_token", "pad_token", "unk_token", "strftime_now", "raise_exception",
}  # fmt: skip
"""What a chat template is given by the server itself, so that no client may set it."""


@dataclass(frozen=True)
class ChatRequest:
    """A checked request: `messages` hold plain text, `fields` is the rest of what vLLM gets."""

    model: str
    messages: list[Message]
    stream: bool
    fields: dict[str, Any]
    user: str | None = None
    """Whom the client asks for: kept for whoever divides requests among variants, and never sent on."""
    tier: Tier = "default"
    """Whether others go first."""


def parse(raw: bytes, *, context: int) -> ChatRequest:
    """Checks the body of a chat request.

    Args:
        raw: the body, at most MAX_BODY bytes.
        context: tokens that the model takes.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    return checked(body_of.read(raw), context=context)


def checked(body: dict[str, Any], *, context: int) -> ChatRequest:
    """The same for a body that was read already."""
    tier = tier_of(body)
    fields = known(body, FIELDS.keys() | _OWN)
    model, stream = fields.pop("model", None), fields.pop("stream", False)
    messages = fields.pop("messages", None)
    if not isinstance(model, str):
        raise Refusal(400, "model is missing: name one from /v1/models.", param="model")
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise Refusal(400, f"messages must be a list of 1 to {MAX_MESSAGES} messages.", param="messages")
    check_type("stream", stream, "true or false")
    check_types(fields, FIELDS)
    _check_chat(fields, context)
    narrow_stream(fields, stream)
    asked = [_message(message, i) for i, message in enumerate(messages)]
    return ChatRequest(model, asked, stream, fields, user_of(body), tier)


def tier_of(body: dict[str, Any]) -> Tier:
    """Takes OpenAI's `service_tier` out of a body: `flex` lets others go first, and its other tiers are the usual one here.

    Raises:
        Refusal: status 400: it is none of OpenAI's.
    """
    tier = body.pop("service_tier", None)
    if tier not in (None, *TIERS):
        raise Refusal(400, f"service_tier must be one of {', '.join(TIERS)}.", param="service_tier")
    return "flex" if tier == "flex" else "default"


def user_of(body: dict[str, Any]) -> str | None:
    """Whom a request is for, as OpenAI's `user` or its newer name says."""
    given = body.get("user") or body.get("safety_identifier")
    return given[:_MAX_USER] if isinstance(given, str) and given else None


def known(body: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The fields of a body that say something.

    Raises:
        Refusal: one of them is not among the names.
    """
    fields = {key: value for key, value in body.items() if value is not None and key not in WITHOUT_EFFECT}
    for key in list(fields):
        if key not in names:
            if key in _DEFAULTS and fields[key] == _DEFAULTS[key]:
                del fields[key]
                continue
            why = _ELSEWHERE.get(key) or (f"leave it out, or send {_DEFAULTS[key]!r}" if key in _DEFAULTS else "")
            message = f"{key[:100]} is not accepted here{': ' + why if why else ''}."
            raise Refusal(400, message, param=key[:100], code="unknown_parameter")
    return fields


def with_defaults(fields: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
    """Fills in the variant's sampling where the client said nothing.

    Raises:
        Refusal: several answers are asked for, and all of them would be the same.
    """
    defaults = {key: value for key in _SAMPLING if (value := getattr(sampling, key)) not in (None, [])}
    if "max_tokens" not in fields and "max_completion_tokens" not in fields:
        defaults["max_tokens"] = sampling.max_tokens
    filled = defaults | fields
    if filled.get("n", 1) > 1 and filled.get("temperature", 1.0) < _GREEDY:
        whose = "that you sent" if "temperature" in fields else "of this model's own settings"
        message = f"n is {filled['n']}, but at the temperature 0 {whose} all answers are the same. Send a temperature above 0."
        raise Refusal(400, message, param="n")
    return filled


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """Puts the variant's system text first, joined with the client's own where there is one."""
    if not system:
        return messages
    if messages and messages[0]["role"] in ("system", "developer"):
        return [with_text(messages[0], f"{system}\n\n{text_of(messages[0])}"), *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def bounds(context: int) -> dict[str, tuple[int, int]]:
    """The lowest and the highest that a whole number of a chat may be, by field."""
    return {
        "max_tokens": (1, context), "max_completion_tokens": (1, context), "n": (1, _MAX_N), "top_logprobs": (0, MAX_LOGPROBS),
    }  # fmt: skip


def narrow_stream(fields: dict[str, Any], stream: bool) -> None:
    """Leaves of `stream_options` what the engine knows; newer ones of OpenAI's change no answer here."""
    given = fields.pop("stream_options", None)
    if stream and given is not None:
        fields["stream_options"] = {name: given[name] for name in _STREAM_OPTIONS if name in given}


def check_sampling(fields: dict[str, Any], ranges: Mapping[str, tuple[int, int]]) -> None:
    """Refuses numbers out of bounds, and what else is wrong in the fields that chats and completions share."""
    for key, (lowest, highest) in ranges.items():
        if (value := fields.get(key)) is not None:
            check_range(key, value, lowest, highest)
    for name in _STREAM_OPTIONS:
        if (wanted := fields.get("stream_options", {}).get(name)) is not None:
            check_type(f"stream_options.{name}", wanted, "true or false")
    stop = fields.get("stop", [])
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise Refusal(400, f"stop takes at most {MAX_STOPS} texts.", param="stop")
    if "response_format" in fields:
        schema.check_format(fields["response_format"])
    for token, bias in fields.get("logit_bias", {}).items():
        if not (token.isascii() and token.isdigit()) or isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise Refusal(400, "logit_bias must hold numbers by token id.", param="logit_bias")


def _check_chat(fields: dict[str, Any], context: int) -> None:
    check_sampling(fields, bounds(context))
    if "tools" in fields:
        schema.check_tools(fields["tools"], fields.get("tool_choice"))
    if fields.get("reasoning_effort", "low") not in EFFORTS:
        raise Refusal(400, f"reasoning_effort must be one of {', '.join(EFFORTS)}.", param="reasoning_effort")
    for key, value in fields.get("chat_template_kwargs", {}).items():
        if key in NO_VARIABLE or not key.isidentifier() or not isinstance(value, (bool, int, float, str, type(None))):
            message = f"chat_template_kwargs.{key[:100]} is not accepted here. Give true, false, a number or a text for a "
            raise Refusal(400, message + "variable of the model's chat template.", param="chat_template_kwargs")


def _message(message: Any, i: int) -> Message:
    """One message with its parts of text joined; images, sounds and files are refused.

    Fields that are none of OpenAI's are a client's own notes and stay here: a reply is sent back as the client got it, and
    some clients keep an `id` in every message. `reasoning` of an earlier answer goes on to the chat template, which knows
    whether this model is shown it again.
    """
    where = f"messages[{i}]"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise Refusal(400, f"{where}.role must be one of {', '.join(ROLES)}.", param=where)
    result = {key: value for key, value in message.items() if value is not None and key in _MESSAGE_FIELDS}
    if message["role"] == "assistant" and isinstance(thought := message.get("reasoning_content"), str):
        result.setdefault("reasoning", thought)
    if message["role"] != "assistant" or not isinstance(result.get("reasoning"), str):
        result.pop("reasoning", None)
    for key in ("name", "tool_call_id"):
        if key in result:
            check_type(f"{where}.{key}", result[key], "a text")
    _check_calls(result, where)
    if message.get("function_call") is not None:
        raise Refusal(400, f"{where}.function_call is not accepted here: use tool_calls.", param=f"{where}.function_call")
    # An answer may have no text: it was all thoughts, a refusal, or calls.
    content = result.get("content", "" if message["role"] == "assistant" else None)
    if isinstance(content, list):
        texts = [_text_of(part) for part in content]
        if None in texts:
            raise Refusal(400, f"{where}.content: only parts of type text are accepted.", param=f"{where}.content")
        content = "\n".join(text for text in texts if text is not None)
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.content must be text.", param=f"{where}.content")
    return cast(Message, result | {"content": content})


def _text_of(part: Any) -> str | None:
    """The text of a part of a message; None where it is something else."""
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if kind in ("text", "refusal") else None
    return text if isinstance(text, str) else None


def _check_calls(message: dict[str, Any], where: str) -> None:
    """Tool calls of an earlier answer: a function's name and its arguments as a text of JSON."""
    calls = message.get("tool_calls")
    if calls == []:
        del message["tool_calls"]
    elif calls is not None:
        check_type(f"{where}.tool_calls", calls, "a list")
        message["tool_calls"] = []
        for n, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                place = f"{where}.tool_calls[{n}]"
                raise Refusal(400, f"{place} must have a function with a name and arguments.", param=place)
            text = function.get("arguments") or ""
            check_type(f"{where}.tool_calls[{n}].function.arguments", text, "a text")
            # Escapes in the arguments could spell control tokens. A client's own notes stay here, as those of a message do.
            known = {"name": function["name"], "arguments": body_of.arguments_of(text)}
            message["tool_calls"].append({key: call[key] for key in ("id", "type") if key in call} | {"function": known})
