"""EVA: LoRA's matrices started from what the layers see of the training rows (arXiv 2410.07170)."""

from __future__ import annotations

from typing import Any

from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.training.loading.model import Loaded
from llmbench.training.loop.batches import Batches, Collator, lengths

__all__ = ["initialise"]

_EVA_BATCHES = 64


def initialise(recipe: TrainRecipe, loaded: Loaded, train: Any) -> None:
    """Starts EVA's matrices from what the layers see of the training rows; nothing to do for other starts.

    Raises:
        RecipeError: no batch has as many tokens as EVA looks for directions.
    """
    if recipe.lora is None or recipe.lora.start != "eva" or recipe.adapter_name_or_path is not None:
        return
    from peft import initialize_lora_eva_weights

    model, rows = loaded.model, train.with_format("numpy")
    collate = Collator(recipe, loaded.tokenizer.pad_token_id)
    config = model.peft_config["default"]
    wanted = round(max([recipe.lora.r, *recipe.lora.rank_pattern.values()]) * config.eva_config.rho)
    batches = []
    for numbers in Batches(lengths(train), recipe):
        batch = collate([rows[number] for number in numbers])
        if int(batch["attention_mask"].sum()) > wanted:
            batches.append({"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})
        if len(batches) == _EVA_BATCHES:
            break
    if not batches:
        raise RecipeError(
            f"lora.init_lora_weights: eva needs {wanted} directions, but no batch has that many tokens; raise "
            f"training.per_device_train_batch_size, or lower lora.r"
        )
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
