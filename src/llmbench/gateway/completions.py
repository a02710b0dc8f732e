"""What a request for a bare completion may say: the text goes to the model as it is, without a chat template.

Programs that score texts (every loglikelihood task of lm-eval) ask this way, with `echo` and `logprobs`. A variant that puts
a system text or passages into conversations has no place for them here and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmbench.gateway import body as body_of
from llmbench.gateway import chat
from llmbench.gateway.body import check_type, check_types
from llmbench.gateway.chat import MAX_LOGPROBS, SHARED, check_sampling, known, narrow_stream, tier_of, user_of
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.turns import Tier
from llmbench.recipe import Variant

__all__ = ["FIELDS", "MAX_PROMPTS", "CompletionRequest", "bounds", "parse", "refuse_conversational"]

MAX_PROMPTS = 256
FIELDS = SHARED | {"echo": "true or false", "logprobs": "a whole number"}
_OWN = {"model", "prompt", "stream"}


@dataclass(frozen=True)
class CompletionRequest:
    """A checked request. `prompt` is a text, token ids, or a list of either."""

    model: str
    prompt: Any
    stream: bool
    fields: dict[str, Any]
    user: str | None = None
    """Whom the client asks for, as in a chat."""
    tier: Tier = "default"


def parse(raw: bytes, *, context: int) -> CompletionRequest:
    """Checks the body of a request for a completion.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    body = body_of.read(raw)
    tier = tier_of(body)
    fields = known(body, FIELDS.keys() | _OWN | {"best_of", "suffix"})
    best_of, suffix = fields.pop("best_of", 1), fields.pop("suffix", "")
    if best_of != 1 or best_of is True:
        raise Refusal(400, "best_of is not accepted here: ask for n answers.", param="best_of")
    if suffix != "":
        raise Refusal(400, "suffix is not accepted here.", param="suffix")
    model, prompt, stream = fields.pop("model", None), fields.pop("prompt", None), fields.pop("stream", False)
    if not isinstance(model, str):
        raise Refusal(400, "model is missing: name one from /v1/models.", param="model")
    _check_prompt(prompt)
    check_type("stream", stream, "true or false")
    check_types(fields, FIELDS)
    check_sampling(fields, bounds(context, echo=fields.get("echo", False)))
    narrow_stream(fields, stream)
    return CompletionRequest(model, prompt, stream, fields, user_of(body), tier)


def bounds(context: int, *, echo: bool) -> dict[str, tuple[int, int]]:
    """The lowest and the highest that a whole number may be, by field; with `echo` a text may be scored and not continued."""
    most = {key: ends for key, ends in chat.bounds(context).items() if key in FIELDS}
    return most | {"max_tokens": (0 if echo else 1, context), "logprobs": (0, MAX_LOGPROBS)}


def refuse_conversational(variant: Variant, *, grounded: bool) -> None:
    """Refuses a variant that does more than its model does.

    Raises:
        Refusal: it puts a system text or passages into conversations.
    """
    what = "searches documents for each question" if grounded else "has a system prompt" if variant.system else ""
    if what:
        message = f"{variant.name} {what}, which a plain completion cannot use. Ask /v1/chat/completions, or another model."
        raise Refusal(400, message, param="model")


def _check_prompt(prompt: Any) -> None:
    """A text, token ids, or a list of either."""
    prompts = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
    if not prompts or not all(isinstance(one, str) or _is_ids(one) for one in prompts):
        raise Refusal(400, "prompt must be a text, a list of token ids, or a list of either.", param="prompt")
    if len(prompts) > MAX_PROMPTS:
        raise Refusal(400, f"prompt may hold at most {MAX_PROMPTS} texts.", param="prompt")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)
