"""The training recipe: `llmbench train`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ValidationInfo, model_validator

from llmbench.recipe.adapter import AdapterSpec, FreezeSpec, LoraSpec, QuantizationSpec, TokenizerSpec
from llmbench.recipe.combination import base_config, refusals
from llmbench.recipe.continuation import continued
from llmbench.recipe.data import DataSpec
from llmbench.recipe.evaluation import EvaluationSpec
from llmbench.recipe.fields import Document, Name, start_of
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
    """sft trains the assistant's tokens of a chat model; pretrain starts from random weights where `model.config` is given, and
    otherwise continues a model, on raw text or on conversations.

    dpo and orpo train on pairs of answers, kto on single answers marked good or bad, reward makes a judge of pairs, grpo has
    its own answers judged by functions, distillation takes over a teacher's distribution.
    """
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
    evaluation: EvaluationSpec | None = None
    """Questions that the model answers at each evaluation; null measures the held-out loss alone."""
    dpo: DpoSpec | None = None
    """The section of the chosen method is there with its defaults; those of others are null."""
    orpo: OrpoSpec | None = None
    kto: KtoSpec | None = None
    reward: RewardSpec | None = None
    grpo: GrpoSpec | None = None
    distillation: DistillationSpec | None = None

    @property
    def end_to_end(self) -> bool:
        """Whether rows are packed end to end without padding, unless the model turns out not to read them so."""
        spec = self.training
        left_open = spec.padding_free is None and spec.performance == "auto"
        return self.method in ("sft", "pretrain") and (bool(spec.padding_free) or spec.packing or left_open)

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
    def _method_fits(self) -> Self:
        fault = refusal(self)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is not None and self.adapts:
            raise ValueError("method: pretrain with model.config trains all parameters of a new model; write `lora: null`")
        refused = refusals(self, base_config(self.model))
        if refused:
            raise ValueError(refused[0])
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
