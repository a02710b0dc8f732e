"""The training recipe: `llmbench train`. Fields keep the names of transformers, TRL, PEFT and bitsandbytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import Document, ExistingPath, Name, Section

__all__ = ["DataSource", "DataSpec", "LessonsSpec", "LoraSpec", "ModelSpec", "QuantizationSpec", "TrainRecipe", "TrainingSpec"]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Scheduler = Literal[
    "linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt",
    "warmup_stable_decay",
]  # fmt: skip
Optimizer = Literal["adamw_torch_fused", "adamw_torch", "muon", "adafactor", "sgd"]


class ModelSpec(Section):
    """The base model: a hub name, a folder, or `llmbench/tiny`; or a `config` to start from nothing."""

    model_name_or_path: str = "llmbench/tiny"
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Needs a pinned `revision`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the computation; auto takes bfloat16 where the hardware has it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attn_implementation: str = "sdpa"
    config: dict[str, Any] | None = None
    """For pre-training: the architecture to start from with random weights, as transformers names its fields."""
    tokenizer: ExistingPath | None = None
    """Another tokenizer than the model's own: a folder."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code runs the model's own code: pin a revision (a commit hash) with it")
        return self


class LessonsSpec(Section):
    """Conversations that llmbench writes itself, as its bundled model was taught with (`llmbench.tiny.lessons`)."""

    stage: Literal["words", "short", "long", "cite", "absence"]
    conversations: Positive
    characters: Positive
    """A conversation takes turns until it is this long."""
    seed: int = 0


class DataSource(Section):
    """One file of training rows: JSONL, JSON, CSV or Parquet with `messages`, or with `prompt` and `completion`."""

    path: ExistingPath | None = None
    lessons: LessonsSpec | None = None
    """Instead of a file: generated conversations."""
    columns: dict[str, str] = {}
    """Standard name -> name in the file, such as `{prompt: question, completion: answer}`."""
    limit: Positive | None = None
    """Use the first N rows only."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.lessons is None):
            raise ValueError("give either a path or lessons")
        return self


class DataSpec(Section):
    """What is trained on, and how long a row may be."""

    train: list[DataSource] = Field(min_length=1)
    eval: list[DataSource] = []
    eval_fraction: Fraction = 0.0
    """Hold out this share of the training rows when `eval` is empty."""
    max_length: Positive = 1024
    """Tokens a row may have."""
    over_length: Literal["error", "drop", "truncate"] = "error"
    """What happens to a longer row. The default asks you to choose."""
    shuffle: bool = True
    """false keeps the file's order, as a curriculum needs."""


class LoraSpec(Section):
    """LoRA, as PEFT's LoraConfig names it."""

    r: Positive = 16
    lora_alpha: Positive = 32
    lora_dropout: Fraction = 0.0
    target_modules: str | list[str] = "all-linear"
    use_rslora: bool = False


class QuantizationSpec(Section):
    """QLoRA: the frozen base in four bits, by bitsandbytes, on CPU and CUDA."""

    load_in_4bit: Literal[True] = True
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True


class TrainingSpec(Section):
    """The optimisation, as transformers' TrainingArguments names it."""

    num_train_epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: int = -1
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
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    """Faster steps after a minute of compiling: worth it for runs of many minutes with few padded shapes."""
    pad_to_multiple_of: Positive | None = None
    logging_steps: Positive = 10
    eval_steps: Positive | None = None
    """Evaluate every N steps; without it once at the end."""
    save_steps: Positive = 200
    save_total_limit: Positive = 2
    seed: int = 42


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
    quantization: QuantizationSpec | None = None
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.method == "pretrain" and self.model.config is None:
            raise ValueError("method: pretrain starts from nothing and needs model.config; to continue a model use method: sft")
        if self.method == "pretrain" and self.lora is not None:
            raise ValueError("method: pretrain trains all parameters; write `lora: null`")
        if self.quantization is not None and self.lora is None:
            raise ValueError("quantization freezes the base, so something must be trained beside it; add a lora section")
        return self
