"""The training recipe: `llmbench train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationInfo, model_validator

from llmbench.recipe.adapter import AdapterSpec, FreezeSpec, LoraSpec, QuantizationSpec, TokenizerSpec
from llmbench.recipe.combination import base_config, refusals
from llmbench.recipe.continuation import continued
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
    """sft trains the assistant's tokens of a chat model; pretrain does so from random weights with all parameters."""
    model: ModelSpec = ModelSpec()
    data: DataSpec
    lora: LoraSpec | None = LoraSpec()
    """null trains all parameters."""
    adapter: AdapterSpec | None = None
    """Instead of `lora`: oft, vera, ia3 or prompt_tuning, as `type` says."""
    adapter_name_or_path: str | None = None
    """Go on from a trained adapter: a run's name, or a folder. Its own settings hold."""
    freeze: FreezeSpec | None = None
    """With `lora: null`: parameters that are not trained."""
    tokenizer: TokenizerSpec | None = None
    """Tokens to add; their rows are trained."""
    quantization: QuantizationSpec | None = None
    training: TrainingSpec = TrainingSpec()

    @property
    def adapts(self) -> bool:
        """Whether something is trained beside a frozen base, so that the run leaves an adapter and not a model."""
        return self.lora is not None or self.adapter is not None

    @model_validator(mode="before")
    @classmethod
    def _one_thing_is_trained(cls, values: Any, info: ValidationInfo) -> Any:
        """`adapter` or `freeze` alone mean that there is no LoRA; an adapter that is gone on from says what it is."""
        if not isinstance(values, dict):
            return values
        if values.get("adapter_name_or_path") is not None:
            return continued(values, Path(info.context["folder"]) if info.context else Path.cwd())
        if values.get("adapter") is not None and values.get("lora") is not None:
            raise ValueError("lora and adapter: choose one, and write `lora: null` for the other kinds (or lora=null)")
        if "lora" not in values and (values.get("adapter") is not None or values.get("freeze") is not None):
            return {**values, "lora": None}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is None:
            raise ValueError("method: pretrain starts from nothing and needs model.config; to continue a model use method: sft")
        if self.method == "pretrain" and self.adapts:
            raise ValueError("method: pretrain trains all parameters; write `lora: null`")
        refused = refusals(self, base_config(self.model))
        if refused:
            raise ValueError(refused[0])
        return self
