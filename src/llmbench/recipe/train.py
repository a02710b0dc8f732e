"""The training recipe: `llmbench train`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from llmbench.recipe.adapter import LoraSpec, QuantizationSpec
from llmbench.recipe.data import DataSpec
from llmbench.recipe.evaluation import EvaluationSpec
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
    evaluation: EvaluationSpec | None = None
    """Questions that the model answers at each evaluation; null measures the held-out loss alone."""

    @property
    def end_to_end(self) -> bool:
        """Whether rows stand end to end without padding, unless the model turns out not to read them so."""
        spec = self.training
        left_open = spec.padding_free is None and spec.performance == "auto" and not spec.torch_compile
        return self.method in ("sft", "pretrain") and (bool(spec.padding_free) or spec.packing or left_open)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is not None and self.lora is not None:
            raise ValueError("method: pretrain with model.config trains all parameters of a new model; write `lora: null`")
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization freezes the base, so something must be trained beside it; add a lora section")
        return self

    @model_validator(mode="after")
    def _evaluation_has_what_it_needs(self) -> Self:
        spec, asked = self.training, self.evaluation
        held_out = bool(self.data.eval) or self.data.eval_fraction > 0
        rows_are_chats = self.method in ("sft", "pretrain")
        if asked is not None and asked.questions is None and not (held_out and rows_are_chats):
            what = "data.eval or data.eval_fraction" if rows_are_chats else f"rows that method {self.method} does not have"
            raise ValueError(f"evaluation asks the held-out rows, which needs {what}; or name evaluation.questions")
        if not held_out and asked is None and (spec.eval_steps is not None or spec.eval_on_start):
            raise ValueError("training.eval_steps has nothing to evaluate: set data.eval, data.eval_fraction or evaluation")
        judged = [
            name
            for name, given in (
                ("metric_for_best_model", spec.metric_for_best_model is not None),
                ("load_best_model_at_end", spec.load_best_model_at_end),
                ("early_stopping_patience", spec.early_stopping_patience is not None),
            )
            if given
        ]
        if judged and spec.eval_steps is None:
            raise ValueError(f"training.{judged[0]} needs training.eval_steps: how often the training is evaluated")
        metric = (spec.metric_for_best_model or "loss").removeprefix("eval_")
        known = (["loss", "perplexity"] if held_out else []) + (list(asked.metrics) if asked is not None else [])
        if judged and rows_are_chats and metric not in known:
            raise ValueError(f"training.metric_for_best_model: {metric} is not measured (there are: {', '.join(known)})")
        return self
