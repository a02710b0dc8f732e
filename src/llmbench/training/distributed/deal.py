"""How a recipe's batch is dealt among processes: the batch stays what the recipe says."""

from __future__ import annotations

from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe

__all__ = ["check", "words"]

_DEALT = ("sft", "pretrain")
"""Methods whose rows have a loader of our own."""
_JUDGED = ("dpo", "kto", "orpo", "reward")
"""Methods whose batches are drawn by TRL's trainers, and dealt."""
_BY_BATCH = ("kto", "orpo")
"""Of these, those whose loss is not a mean over rows: KTO's KL is of a batch, and so are ORPO's tokens."""


def check(recipe: TrainRecipe, world: int) -> None:
    """Makes sure that so many processes can train a recipe as one would.

    Raises:
        RecipeError: its batches do not go round, or its method trains with one process.
    """
    if world == 1:
        if recipe.distributed.strategy != "ddp":
            raise RecipeError(
                f"distributed.strategy: {recipe.distributed.strategy} divides a model among processes: start several with "
                "--processes, or leave it out."
            )
        return
    if recipe.method not in (*_DEALT, *_JUDGED):
        raise RecipeError(
            f"method: {recipe.method} trains with one process: that several train what one trains is not proven for it. "
            f"--processes is for {', '.join((*_DEALT, *_JUDGED))}."
        )
    if recipe.method in _JUDGED and recipe.distributed.strategy != "ddp":
        raise RecipeError(
            f"distributed.strategy: {recipe.distributed.strategy} is for {' and '.join(_DEALT)}: with method: {recipe.method} "
            "a model in parts is not proven to learn what a whole one learns. Use ddp."
        )
    spec = recipe.training
    if spec.gradient_accumulation_steps % world == 0:
        return
    whole = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    fits = f"training.gradient_accumulation_steps={world * -(-spec.gradient_accumulation_steps // world)}"
    whole_rows = spec.max_tokens_per_batch is None and not spec.packing and recipe.method not in _BY_BATCH
    if whole_rows and whole % world == 0:
        fits = f"training.per_device_train_batch_size={whole // world} training.gradient_accumulation_steps={world}"
        fits += f" (the same {whole} rows a step)"
    raise RecipeError(
        f"training.gradient_accumulation_steps: {spec.gradient_accumulation_steps} batches a step cannot be dealt to {world} "
        f"processes. Use {fits}"
    )


def words(recipe: TrainRecipe, world: int) -> str:
    """The batch of a step over all processes: `16 rows a step (4 x 4 batches, 2 for each of 2 processes by ddp)`."""
    spec = recipe.training
    rows, batches = spec.per_device_train_batch_size, spec.gradient_accumulation_steps
    each = "" if world == 1 else f", {batches // world} for each of {world} processes by {recipe.distributed.called}"
    many = f"{batches} batch{'es' * (batches != 1)}"
    if recipe.method in _DEALT and spec.max_tokens_per_batch is not None:
        return f"up to {spec.max_tokens_per_batch * batches:,} tokens a step ({many} of {spec.max_tokens_per_batch:,}{each})"
    if recipe.method in _DEALT and spec.packing:
        size = recipe.data.max_length
        return f"up to {rows * batches * size:,} tokens a step ({many} of {rows} x {size:,}{each})"
    return f"{rows * batches:,} rows a step ({many} of {rows}{each})"
