"""The training recipe: `llmbench train`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import ValidationInfo, model_validator

from llmbench.recipe import distributed_rules, method_rules
from llmbench.recipe.combination import base_config, refusals
from llmbench.recipe.continuation import continued
from llmbench.recipe.fields import start_of
from llmbench.recipe.methods import section
from llmbench.recipe.sections import TrainSections, Unfit

__all__ = ["TrainRecipe"]


class TrainRecipe(TrainSections):
    """One fine-tuning or pre-training run."""

    @model_validator(mode="before")
    @classmethod
    def _one_thing_is_trained(cls, values: Any, info: ValidationInfo) -> Any:
        """`adapter` or `freeze` alone mean that there is no LoRA; an adapter that is gone on from says what it is."""
        if not isinstance(values, dict):
            return values
        if values.get("adapter_name_or_path") is not None:
            return continued(values, start_of(values["adapter_name_or_path"], info))
        if values.get("adapter") is not None and values.get("lora") is not None:
            raise ValueError("lora and adapter: choose one, and write `lora: null` for the other kinds (or lora=null)")
        if "lora" not in values and (values.get("adapter") is not None or values.get("freeze") is not None):
            return {**values, "lora": None}
        return values

    @model_validator(mode="before")
    @classmethod
    def _method_brings_its_section(cls, values: Any) -> Any:
        return section(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        faults = [
            *method_rules.refusals(self),
            *distributed_rules.refusals(self),
            *self._untrainable(),
            *refusals(self, base_config(self.model)),
            *self._unmeasured(),
        ]
        if faults:
            raise Unfit(faults)
        return self

    def _untrainable(self) -> Iterator[str]:
        if self.method == "pretrain" and self.model.config is not None and self.adapts:
            yield "method: pretrain with model.config trains all parameters of a new model; write `lora: null`"

    def _unmeasured(self) -> Iterator[str]:
        """What evaluations are asked for and cannot be made."""
        spec, asked = self.training, self.evaluation
        held_out = bool(self.data.eval) or self.data.eval_fraction > 0
        rows_are_chats = self.method in ("sft", "pretrain")
        if asked is not None and asked.questions is None and not (held_out and rows_are_chats):
            what = "data.eval or data.eval_fraction" if rows_are_chats else f"rows that method {self.method} does not have"
            yield f"evaluation: uses the held-out rows, which needs {what}; or set evaluation.questions"
        if not held_out and asked is None and (spec.eval_steps is not None or spec.eval_on_start):
            yield "training.eval_steps: has nothing to evaluate: set data.eval, data.eval_fraction or evaluation"
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
            yield f"training.{judged[0]}: needs training.eval_steps (how often to evaluate)"
        metric = (spec.metric_for_best_model or "loss").removeprefix("eval_")
        known = (["loss", "perplexity"] if held_out else []) + (list(asked.metrics) if asked is not None else [])
        if judged and rows_are_chats and metric not in known:
            yield f"training.metric_for_best_model: {metric} is not measured (available: {', '.join(known)})"
