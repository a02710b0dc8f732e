"""Short trials of a loaded model, before its data is read: what its kind does not tell is seen in two rows of 24 tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.training.kernels import fused_head
from llmbench.training.loading.model import Loaded

__all__ = ["tried"]

_TOKENS, _CHANGED = 24, 4
_SPREAD = 0.05
"""Share of the logits' spread that a mixture of experts in 16 bits may differ by, where other tokens share its products."""
_APART = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
"""How far the mean log-probability may be from that of the model's own logits, in nats."""


def tried(recipe: TrainRecipe, loaded: Loaded) -> Loaded:
    """The same, with what a trial has shown of the head.

    Raises:
        RecipeError: a token's logits depend on later tokens, or the recipe's method computes with a head that is not there.
    """
    if recipe.method == "reward":
        return loaded
    model: Any = loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model
    training = model.training
    model.eval()
    with torch.no_grad():
        fault = _looks_ahead(model)
        if fault is None:
            known = _known_head(model, loaded.dtype)
    model.train(training)
    name = recipe.model.model_name_or_path
    if fault is not None:
        raise RecipeError(f"{name}: {fault}")
    if known:
        return loaded
    if recipe.method not in ("sft", "pretrain"):
        raise RecipeError(
            f"{name}: {type(model).__name__} does more than one matrix product between its layers and its logits, but "
            f"method: {recipe.method} needs exactly one; use method: sft"
        )
    return replace(loaded, plain_head=True)


def _rows(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of ids (1, 24) that differ in the last tokens alone."""
    weight = model.get_input_embeddings().weight
    row = torch.arange(1, _TOKENS + 1, device=weight.device)[None] * 7 % weight.shape[0]
    other = row.clone()
    other[:, -_CHANGED:] = (row[:, -_CHANGED:] + 11) % weight.shape[0]
    return row, other


def _looks_ahead(model: Any) -> str | None:
    """Why this is no decoder, or None."""
    one, two = (model(input_ids=row, use_cache=False).logits[0, :-_CHANGED].float() for row in _rows(model))
    change = float((one - two).abs().max())
    if change <= _SPREAD * float(one.std()):
        return None
    return (
        f"in a test later tokens changed the logits of earlier ones (by {change:.2g}), so this is an encoder; llmbench "
        f"trains decoders, which generate text from left to right"
    )


def _known_head(model: Any, dtype: torch.dtype) -> bool:
    """Whether log-probabilities from the head's own weights are those of the model's logits."""
    row, _ = _rows(model)
    own = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    own = own.gather(1, row[0, 1:, None])[:, 0]
    before = vars(model).get("forward")
    fused_head.install(model)
    try:
        with fused_head.scoring(model):
            ours = model(input_ids=row, labels=row, use_cache=False, fused_lm_head=True).log_probs.flatten()
    except (AttributeError, TypeError, RuntimeError):
        return False
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before
    return bool((own - ours.float()).abs().mean() <= _APART[dtype])
