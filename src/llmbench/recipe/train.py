"""The training recipe: `llmbench train`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from llmbench.recipe.adapter import LoraSpec, QuantizationSpec
from llmbench.recipe.data import DataSpec
from llmbench.recipe.fields import Document, Name
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.optimization import TrainingSpec

__all__ = ["TrainRecipe"]


class TrainRecipe(Document):
    """One fine-tuning or pre-training run."""

    name: Name
    """The run's name; its folder is outputs/runs/NAME."""
    method: Literal["sft", "pretrain"] = "sft"
    """sft trains a chat model; pretrain starts from random weights where `model.config` is given, and otherwise continues a
    model, on raw text or on conversations."""
    model: ModelSpec = ModelSpec()
    data: DataSpec
    lora: LoraSpec | None = LoraSpec()
    """null trains all parameters."""
    quantization: QuantizationSpec | None = None
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is not None and self.lora is not None:
            raise ValueError("method: pretrain with model.config trains all parameters of a new model; write `lora: null`")
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization freezes the base, so something must be trained beside it; add a lora section")
        return self
