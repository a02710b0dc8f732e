"""The training recipe: `llmbench train`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from llmbench.recipe.adapter import LoraSpec, QuantizationSpec
from llmbench.recipe.data import DataSpec
from llmbench.recipe.fields import Document, Name
from llmbench.recipe.method_rules import refusal
from llmbench.recipe.methods import DistillationSpec, DpoSpec, GrpoSpec, KtoSpec, Method, OrpoSpec, RewardSpec, section
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.optimization import TrainingSpec

__all__ = ["TrainRecipe"]


class TrainRecipe(Document):
    """One fine-tuning or pre-training run."""

    name: Name
    """The run's name; its folder is outputs/runs/NAME."""
    method: Method = "sft"
    """sft trains the assistant's tokens of a chat model; pretrain does so from random weights with all parameters.

    dpo and orpo train on pairs of answers, kto on single answers marked good or bad, reward makes a judge of pairs, grpo has
    its own answers judged by functions, distillation takes over a teacher's distribution.
    """
    model: ModelSpec = ModelSpec()
    data: DataSpec
    lora: LoraSpec | None = LoraSpec()
    """null trains all parameters."""
    quantization: QuantizationSpec | None = None
    training: TrainingSpec = TrainingSpec()
    dpo: DpoSpec | None = None
    """The section of the chosen method is there with its defaults; those of others are null."""
    orpo: OrpoSpec | None = None
    kto: KtoSpec | None = None
    reward: RewardSpec | None = None
    grpo: GrpoSpec | None = None
    distillation: DistillationSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _method_brings_its_section(cls, values: Any) -> Any:
        return section(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        fault = refusal(self)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is None:
            raise ValueError("method: pretrain starts from nothing and needs model.config; to continue a model use method: sft")
        if self.method == "pretrain" and self.lora is not None:
            raise ValueError("method: pretrain trains all parameters; write `lora: null`")
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization freezes the base, so something must be trained beside it; add a lora section")
        return self
