"""What is particular to a method beside supervised fine-tuning: one section each. Fields keep the names of TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmbench.recipe.fields import Fraction, Positive, Reference, Section
from llmbench.recipe.rewards import RewardFunction

__all__ = [
    "LEARNING_RATES",
    "SECTIONS",
    "DistillationSpec",
    "DpoSpec",
    "GrpoSpec",
    "KtoSpec",
    "Method",
    "OrpoSpec",
    "RewardSpec",
    "TeacherSpec",
]

Method = Literal["sft", "pretrain", "dpo", "orpo", "kto", "reward", "grpo", "distillation"]
SECTIONS = ("dpo", "orpo", "kto", "reward", "grpo", "distillation")
"""The methods with a section of their own, which is called as the method."""
LEARNING_RATES = {
    "dpo": (5e-6, 5e-5),
    "orpo": (8e-6, 8e-5),
    "kto": (5e-6, 5e-5),
    "reward": (1e-5, 1e-4),
    "grpo": (1e-6, 1e-5),
    "distillation": (2e-5, 2e-4),
}
"""training.learning_rate where the recipe gives none: for all parameters, and for an adapter. Others: TrainingSpec's own."""

Beta = Annotated[float, Field(gt=0)]
DpoLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
_SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}
_DIVERGING = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}


class DpoSpec(Section):
    """Direct preference optimisation, as DPOConfig names it."""

    beta: Beta = 0.1
    """How strongly the model is held to the reference; for ipo its tau."""
    loss_type: Annotated[
        list[DpoLoss],
        Field(min_length=1),
        BeforeValidator(lambda v: [v] if isinstance(v, str) else v, json_schema_input_type=list[DpoLoss] | DpoLoss),
    ] = ["sigmoid"]
    """One loss, or several that are added up by `loss_weights`. sigmoid_norm is per token, as SimPO's is."""
    loss_weights: list[float] | None = None
    """The weight of each loss; null weighs all 1."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The share of pairs believed to be the wrong way round: for robust, exo_pair (which needs it), aot and aot_unpaired."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    ld_alpha: Fraction | None = None
    """LD-DPO: the weight of a longer answer's tokens past the shorter one's length; null weighs them 1."""
    use_weighting: bool = False
    """WPO: weighs each pair by how likely the model itself would write it."""
    discopop_tau: Annotated[float, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        losses = set(self.loss_type)
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} values for {len(self.loss_type)} loss_type")
        if self.label_smoothing and not losses & _SMOOTHED:
            raise ValueError(
                f"label_smoothing does nothing for {', '.join(self.loss_type)}; use loss_type: robust, or set it to 0"
            )
        if "exo_pair" in losses and not self.label_smoothing:
            raise ValueError("loss_type: exo_pair needs a label_smoothing above 0; its paper uses 1e-3")
        if self.f_divergence_type != "reverse_kl" and not losses <= _DIVERGING:
            raise ValueError(f"f_divergence_type: {self.f_divergence_type} works with {', '.join(sorted(_DIVERGING))} only")
        if self.use_weighting and losses & {"aot", "aot_unpaired"}:
            raise ValueError("use_weighting does not work with aot and aot_unpaired, which sort the pairs; set it to false")
        return self


class OrpoSpec(Section):
    """Odds-ratio preference optimisation, as ORPOConfig names it."""

    beta: Beta = 0.1
    """The weight of the odds ratio beside the loss of the chosen answer (lambda in the paper)."""


class KtoSpec(Section):
    """Kahneman-Tversky optimisation, as KTOConfig names it."""

    beta: Beta = 0.1
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weigh the rarer kind up until (weight x rows) of both are within 1 to 1.33 of each other."""
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0


class RewardSpec(Section):
    """A reward model, as RewardConfig names it."""

    center_rewards_coefficient: Annotated[float, Field(ge=0)] | None = None
    """Pulls the mean reward to 0; 0.01 is usual, null leaves it free."""


class GrpoSpec(Section):
    """Group relative policy optimisation, as GRPOConfig names it."""

    reward_functions: list[RewardFunction] = Field(min_length=1)
    num_generations: Annotated[int, Field(ge=2)] = 8
    """Answers drawn for each prompt; they are judged against each other."""
    num_generations_eval: Annotated[int, Field(ge=1)] | None = None
    """null draws as many as in training."""
    max_completion_length: Positive = 256
    """Tokens of an answer at most."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 draws from all tokens."""
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the distance to the model that was started from; 0 keeps no reference."""
    num_iterations: Positive = 1
    """Updates made from the same answers."""
    steps_per_generation: Positive | None = None
    """Batches that share one round of generation; null takes gradient_accumulation_steps."""
    epsilon: Annotated[float, Field(gt=0)] = 0.2
    epsilon_high: Annotated[float, Field(gt=0)] | None = None
    """null takes epsilon; DAPO's paper takes 0.28."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    mask_truncated_completions: bool = False
    """Leave answers that did not end out of the loss."""
    generator: Literal["transformers", "vllm"] = "transformers"
    """Who draws the answers: the trained model here, or a vLLM that is started for it and gets the adapter of each step."""
    vllm_python: Path | None = None
    """The interpreter that has the generator's vLLM, when it is not this one."""
    use_vllm: bool = False
    """Draw answers with vLLM in the same process (colocate), which needs CUDA."""
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.3
    vllm_max_model_length: Positive | None = None


class TeacherSpec(Section):
    """The model that is learned from: a folder or a hub name, with the student's own tokenizer."""

    model_name_or_path: Reference
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code runs the model's own code: pin a revision (a commit hash) with it")
        return self


class DistillationSpec(Section):
    """Learning a teacher's distribution over every token (generalised knowledge distillation), as GKDConfig names it."""

    teacher: TeacherSpec
    beta: Fraction = 0.0
    """0 is the forward KL (cover all the teacher says), 1 the reverse (say only what it would), between them Jensen-Shannon."""
    lmbda: Fraction = 0.0
    """The share of batches whose answers the student writes itself; 0 learns on the answers of the data, and is the fastest."""
    seq_kd: bool = False
    """Let the teacher write the answers of the other batches."""
    temperature: Annotated[float, Field(gt=0)] = 0.9
    """For the answers that are drawn."""
    max_new_tokens: Positive = 128


def section(values: dict[str, Any]) -> dict[str, Any]:
    """A train document with what its method brings along filled in: its section, and the learning rate that suits it.

    Raises:
        ValueError: a section of another method, or a method without the section that it cannot do without.
    """
    method = values.get("method", "sft")
    for other in SECTIONS:
        if other != method and values.get(other) is not None:
            raise ValueError(f"the section {other} belongs to method: {other}, and this is method: {method}. Remove one.")
    if method not in SECTIONS:
        return values
    if values.get(method) is None:
        match method:
            case "grpo":
                raise ValueError("method: grpo needs a section grpo with reward_functions, such as `- length: {target: 40}`")
            case "distillation":
                raise ValueError("method: distillation needs a section distillation with teacher.model_name_or_path")
        values = values | {method: {}}
    training = values.get("training", {})
    if isinstance(training, dict) and training.get("learning_rate") is None:
        full, adapter = LEARNING_RATES[method]
        beside = "lora" not in values or any(values.get(key) is not None for key in ("lora", "adapter", "adapter_name_or_path"))
        rate = adapter if beside else full
        values = values | {"training": training | {"learning_rate": rate}}
    return values
