"""Everybody's words in a request, kept apart from the chat template's: proven with the served tokenizer at the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import assets, control_tokens, engine
from llmbench.control_tokens import JOINERS, ControlTokens
from llmbench.errors import EngineError
from llmbench.gateway.refusal import Refusal
from llmbench.message import Message, text_of
from llmbench.recipe import ServeRecipe, vllm_option

__all__ = ["Words", "proven", "too_long"]

_ASKED_SINGLY = 64
"""Tokens whose numbers no file names are asked for one by one, up to this many."""


@dataclass(frozen=True)
class Words:
    """How what clients and documents say goes into the prompt."""

    tokens: ControlTokens
    longest: int | None = None
    """Characters of the vocabulary's longest token, where its file is on this machine."""

    def refuse_endless(self, messages: list[Message], context: int) -> None:
        """Refuses, before any work is done for it, a conversation that cannot fit whatever its tokens are.

        Raises:
            Refusal: status 400, with OpenAI's code for a context that is exceeded.
        """
        length = sum(len(text_of(message)) for message in messages)
        if self.longest is not None and length > context * self.longest:
            raise too_long(context, f"{length:,} characters")

    def apart(self, messages: list[Message]) -> list[Message]:
        """Messages in which no control token can be read as one; what an assistant thought stays readable as that."""
        return [
            {"role": message["role"]}
            | self.tokens.split_all(
                {key: value for key, value in message.items() if key != "role"}, thinking=message["role"] == "assistant"
            )
            for message in messages
        ]

    def apart_in(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same for what else the template writes: tools, and the client's variables of the template."""
        written = {key: self.tokens.split_all(fields[key]) for key in ("tools", "chat_template_kwargs") if key in fields}
        return fields | written


def too_long(context: int, what: str) -> Refusal:
    """The refusal of a conversation that is longer than the model's context."""
    message = f"This model's maximum context length is {context} tokens, but the messages have {what}. Shorten them."
    return Refusal(400, message, param="messages", code="context_length_exceeded")


def proven(recipe: ServeRecipe, read: Callable[[str], list[int]], log: Callable[[str], None] | None) -> Words:
    """How words are kept apart for the served model, tried out on its own tokenizer.

    Args:
        recipe: the serving document.
        read: a text -> the tokens that the served tokenizer makes of it.
        log: told when it cannot be proven.
    """
    folder = _folder(recipe)
    tokens, longest = (_named(recipe, folder), _longest(folder)) if folder else (control_tokens.of_unknown(), None)
    try:
        for joiner in JOINERS:
            tried = tokens.joined_by(joiner)
            if _holds(tried, read):
                return Words(tried, longest)
        problem = "its tokenizer recognises control tokens in text even when they are split"
    except EngineError as error:
        problem = str(error)
    if log is not None:
        log(f"Cannot verify that documents are unable to inject control tokens of {recipe.model.model_name_or_path}: {problem}")
    return Words(tokens, longest)


def _folder(recipe: ServeRecipe) -> Path | None:
    """Where the served tokenizer's files are."""
    model = recipe.model
    if model.tokenizer is not None and Path(model.tokenizer).is_dir():
        return Path(model.tokenizer)
    return engine.base_folder(assets.model_folder(model.model_name_or_path), model.revision)


def _named(recipe: ServeRecipe, folder: Path) -> ControlTokens:
    given = vllm_option(recipe.engine.extra_args, "--chat-template")
    return control_tokens.of_folder(folder, template=Path(given) if given else None)


def _longest(folder: Path) -> int | None:
    try:
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        # Byte-level tokens are written with a character for each byte, so this is never less than what they stand for.
        return max(len(token if isinstance(token, str) else token[0]) for token in vocabulary)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _holds(tokens: ControlTokens, read: Callable[[str], list[int]]) -> bool:
    """Whether the served tokenizer finds none of the control tokens in their split spellings."""
    if not tokens.names:
        return True
    names = sorted(tokens.names)
    ids = set(tokens.ids)
    if not ids:
        for name in names[:_ASKED_SINGLY]:
            single = read(name)
            ids |= set(single) if len(single) == 1 else set()
    return ids.isdisjoint(read("\n".join(tokens.split(name) for name in names)))
