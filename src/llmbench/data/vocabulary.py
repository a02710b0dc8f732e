"""What training adds to a model's tokenizer, and the tokens at which its model stops: known to `check` and `train` alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import TokenizerSpec

__all__ = ["add_tokens", "extended", "refuse_empty", "stops", "stops_with"]


def add_tokens(tokenizer: Any, spec: TokenizerSpec) -> list[int]:
    """Adds the recipe's tokens to a tokenizer of transformers and returns their ids.

    Raises:
        RecipeError: one of them is a token already.
    """
    vocabulary = tokenizer.get_vocab()
    there = next((token for token in spec.add_tokens if token in vocabulary), None)
    if there is not None:
        raise RecipeError(
            f"tokenizer.add_tokens: {there!r} already is token {vocabulary[there]}; leave it out, or train its row with "
            f"lora.trainable_token_indices: [{vocabulary[there]}]"
        )
    tokenizer.add_tokens(spec.add_tokens, special_tokens=spec.special)
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in spec.add_tokens]


def refuse_empty(tokenizer: Any, folder: Path | None) -> None:
    """Refuses a tokenizer of special tokens alone, which transformers makes for a folder that has none.

    Raises:
        LlmbenchError: it is one.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise LlmbenchError(f"{folder}: has no tokenizer (tokenizer.json). Download it again, or set model.tokenizer.")


def extended(tokenizer: Any, spec: TokenizerSpec | None) -> Any:
    """A `tokenizers.Tokenizer` with the recipe's tokens, under the ids that `add_tokens` gives them."""
    if spec is not None:
        (tokenizer.add_special_tokens if spec.special else tokenizer.add_tokens)(spec.add_tokens)
    return tokenizer


def stops(folder: Path | None) -> tuple[int, ...]:
    """The tokens at which the model of a folder stops: eos_token_id of generation_config.json, or else of config.json."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name if folder is not None else None
        if path is None or not path.exists():
            continue
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values.get("eos_token_id", values.get("text_config", {}).get("eos_token_id"))
        if found is not None:
            return tuple(found) if isinstance(found, list) else (int(found),)
    return ()


def stops_with(known: int | Sequence[int] | None, ends: Sequence[int]) -> int | list[int] | None:
    """An `eos_token_id` together with the tokens that end the turns a model learned; as it was where it has them all."""
    before = [known] if isinstance(known, int) else list(known or ())
    missing = [end for end in ends if end not in before]
    return [*before, *missing] if missing else known  # type: ignore[return-value]
