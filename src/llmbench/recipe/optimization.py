"""How a training goes about it: batches, optimizer, schedule, checkpoints. Fields keep the names of TrainingArguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from llmbench.recipe.fields import Fraction, Positive, Section, Seed

__all__ = ["TrainingSpec"]

Scheduler = Literal[
    "linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt",
    "warmup_stable_decay",
]  # fmt: skip
Optimizer = Literal[
    "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "muon", "adafactor", "sgd"
]  # fmt: skip


def _steps(value: int) -> int:
    if value < 1 and value != -1:
        raise PydanticCustomError("out_of_range", "Input should be 1 or more, or -1 to go by num_train_epochs")
    return value


class TrainingSpec(Section):
    """The optimisation, as transformers' TrainingArguments names it."""

    num_train_epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Annotated[int, AfterValidator(_steps), Field(json_schema_extra={"minimum": -1, "not": {"const": 0}})] = -1
    """Stop after this many steps; -1 goes by epochs."""
    per_device_train_batch_size: Positive = 8
    """Rows in a batch, unless `max_tokens_per_batch` says how many fit."""
    max_tokens_per_batch: Positive | None = None
    """A batch takes as many rows as fit into this many tokens, padding counted: short rows many, long rows few."""
    per_device_eval_batch_size: Positive = 8
    gradient_accumulation_steps: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    lr_scheduler_type: Scheduler = "cosine"
    lr_scheduler_kwargs: dict[str, Any] = {}
    """What the scheduler takes besides. `num_decay_steps` of warmup_stable_decay may be a share of all steps."""
    warmup_steps: Annotated[float, Field(ge=0)] = 0.03
    """Below 1 a share of all steps, else a number of steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optim: Optimizer = "adamw_torch_fused"
    """muon orthogonalises the updates of hidden matrices; embeddings and vectors go to AdamW at the same rate."""
    adam_beta2: Fraction = 0.999
    performance: Literal["auto", "plain"] = "auto"
    """auto chooses what is left null below for this model and machine and prints why; plain leaves all of it off."""
    padding_free: bool | None = None
    """Rows of a batch stand end to end, attention stays within each: the same losses without computing padding."""
    fused_lora: bool | None = None
    """LoRA's products are added to the base's in place: the same adapter in fewer passes over memory."""
    packing: bool = False
    """A batch takes `per_device_train_batch_size` bins of `data.max_length` tokens, filled best-fit-decreasing with whole
    rows, so that each step sees about as many tokens. More rows a step than without: fewer steps an epoch."""
    gradient_checkpointing: bool | None = None
    """Compute activations again on the way back: less memory, about a third more time."""
    activation_offloading: bool = False
    """Hold activations in the machine's memory while the GPU goes on. CUDA only."""
    torch_compile: bool | None = None
    """Layers are compiled at the first step, once for all lengths: half a minute on a CPU, steps about 6 % faster after it."""
    use_liger_kernel: bool = False
    """Liger's layers in Triton. CUDA only; needs liger-kernel."""
    pad_to_multiple_of: Positive | None = None
    logging_steps: Positive = 10
    eval_steps: Positive | None = None
    """Evaluate every N steps and at the end; without it at the end only."""
    eval_on_start: bool = False
    """Evaluate before the first step too, which shows what the base can do. It is no candidate for the best one."""
    metric_for_best_model: str | None = None
    """What an evaluation is judged by: loss, perplexity, or a metric of the evaluation section; None is loss."""
    greater_is_better: bool | None = None
    """None: less is better of a loss and of perplexity, more of everything else."""
    load_best_model_at_end: bool = False
    """Keep the model of the best evaluation, not that of the last step. Its checkpoint is saved when it is found."""
    early_stopping_patience: Positive | None = None
    """Stop when so many evaluations in a row are no better than the best one before them."""
    early_stopping_threshold: Annotated[float, Field(ge=0)] = 0.0
    """What counts as better: more than this."""
    save_steps: Positive = 200
    save_total_limit: Positive = 2
    """How many checkpoints stay: the newest, and the best one beside them."""
    seed: Seed = 42

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.packing and self.padding_free is False:
            raise ValueError("packing implies padding_free: leave padding_free out, or set it to true")
        if self.packing and self.max_tokens_per_batch is not None:
            raise ValueError("packing and max_tokens_per_batch both say how much a batch holds: choose one")
        return self
