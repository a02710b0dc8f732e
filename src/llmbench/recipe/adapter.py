"""What is trained beside the base, or of it, and in what precision the base is held.

Fields keep the names of PEFT, bitsandbytes and transformers. Which of them go together is in `combination`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmbench.recipe.fields import Fraction, Positive, Section

__all__ = [
    "AdapterSpec",
    "EvaSpec",
    "FreezeSpec",
    "IA3Spec",
    "LoftQSpec",
    "LoraSpec",
    "OFTSpec",
    "PromptTuningSpec",
    "QuantizationSpec",
    "TokenizerSpec",
    "VeraSpec",
    "written_as_weights",
]

_PISSA = re.compile(r"pissa_niter_\d+")
_STARTS = ("gaussian", "pissa", "loftq", "eva", "olora", "orthogonal", "mica")


def _start(value: bool | str) -> bool | str:
    """One of PEFT's ways to start LoRA's matrices, of those that need nothing but the model and the training rows."""
    if value is True or value in _STARTS or (isinstance(value, str) and _PISSA.fullmatch(value)):
        return value
    if value is False:
        raise ValueError("false starts from random noise on top of the base, which is for debugging; use true")
    if value in ("corda", "lora_ga"):
        raise ValueError(f"{value} needs a separate preparation step; the closest start that uses the training rows is eva")
    raise ValueError(f"{value} is not one of true, {', '.join(_STARTS)} and pissa_niter_N")


def _pattern(value: str | list[str] | None) -> str | list[str] | None:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"text is read as a regular expression, and this is not a valid one: {error}") from error
    return value


Targets = Annotated[str | list[str], AfterValidator(_pattern)]
"""Names of modules, a regular expression over their whole names, or `all-linear`."""
SaveDtype = Literal["float32", "bfloat16", "float16"]


_RENAMED = {"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "gate"}


def written_as_weights(parameters: list[str]) -> list[str]:
    """Of an adapter's target_parameters those that are linear layers, `mlp.down_proj.weight`, as names of modules.

    They are written so because PEFT takes the plain names for experts' parameters (see training/loading/targets.py).
    """
    return [
        name.removesuffix(".weight") for name in parameters if re.fullmatch(rf"(.*\.)?({'|'.join(_RENAMED)})\.weight", name)
    ]


class LoftQSpec(Section):
    """How LoftQ imitates the rounding of the base (PEFT's LoftQConfig)."""

    loftq_bits: Literal[4, 8] = 4
    loftq_iter: Positive = 1


class EvaSpec(Section):
    """How EVA reads the activations of training batches (PEFT's EvaConfig)."""

    rho: Annotated[float, Field(ge=1)] = 2.0
    """How many times `r` a layer may have at most, when ranks are shared out by explained variance; 1 keeps them equal."""
    tau: Fraction = 0.99
    """Cosine similarity at which a layer's directions count as settled."""
    whiten: bool = False
    adjust_scaling_factors: bool = True


class LoraSpec(Section):
    """LoRA and its kin, as PEFT's LoraConfig names it."""

    r: Positive = 16
    lora_alpha: Annotated[int | float, Field(gt=0)] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Targets = "all-linear"
    """`all-linear` is every linear layer but the head and the routers of a mixture of experts."""
    target_parameters: list[str] = []
    """Parameters that are no linear layer, by the end of their names: the fused experts of a mixture of experts."""
    exclude_modules: Annotated[str | list[str] | None, AfterValidator(_pattern)] = None
    layers_to_transform: int | list[int] | None = None
    """Only these layers, counted from 0; needs `target_modules` as a list."""
    rank_pattern: dict[str, Positive] = {}
    """Module name or regular expression -> another rank than `r`."""
    alpha_pattern: dict[str, Annotated[int | float, Field(gt=0)]] = {}
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] = []
    """Modules that are trained whole and saved whole, such as `embed_tokens`."""
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    """Rows of the embedding that are trained; what `tokenizer.add_tokens` adds is trained anyway."""
    ensure_weight_tying: bool = False
    """Keeps embedding and head one matrix when `modules_to_save` names one of them; otherwise they part."""
    use_rslora: bool = False
    """Scales by lora_alpha / sqrt(r), so that high ranks learn as fast as low ones."""
    use_dora: bool = False
    """Trains the length of each weight vector apart from its direction: takes more time, and must be merged to be served."""
    init_lora_weights: Annotated[
        bool | str,
        AfterValidator(_start),
        Field(json_schema_extra={"not": {"const": False}, "pattern": rf"^({'|'.join(_STARTS)}|pissa_niter_\d+)$"}),
    ] = True
    """true, gaussian, pissa, pissa_niter_N, olora, orthogonal, mica, eva (reads training batches), loftq."""
    loftq_config: LoftQSpec | None = None
    eva_config: EvaSpec | None = None
    loraplus_lr_ratio: Annotated[float, Field(ge=1)] | None = None
    """LoRA+: B learns this many times as fast as A; the paper has 16, with a smaller learning_rate."""
    save_dtype: SaveDtype = "float32"
    """What the adapter is saved in. It is trained in float32 whatever the base is."""

    @model_validator(mode="after")
    def _configs_belong_to_their_start(self) -> Self:
        if self.loftq_config is not None and self.init_lora_weights != "loftq":
            raise ValueError("loftq_config is for init_lora_weights: loftq")
        if self.eva_config is not None and self.init_lora_weights != "eva":
            raise ValueError("eva_config is for init_lora_weights: eva")
        return self

    @model_validator(mode="after")
    def _parameters_take_plain_lora(self) -> Self:
        if self.target_parameters and (self.use_dora or self.lora_dropout or self.start not in ("true", "gaussian")):
            raise ValueError(
                "target_parameters: PEFT adapts parameters with plain LoRA only; "
                "write use_dora: false, lora_dropout: 0 and init_lora_weights: true, or leave target_parameters out"
            )
        return self

    @property
    def start(self) -> str:
        """The way of starting, `true` or its name without a count: pissa_niter_4 -> pissa."""
        return str(self.init_lora_weights).lower().split("_niter_")[0]


class OFTSpec(Section):
    """Orthogonal fine-tuning: rotates the inputs of each layer in blocks (PEFT's OFTConfig)."""

    type: Literal["oft"]
    oft_block_size: Positive = 32
    """Divides the width of every target; larger learns more."""
    module_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Targets = "all-linear"
    layers_to_transform: int | list[int] | None = None
    bias: Literal["none", "all", "oft_only"] = "none"
    modules_to_save: list[str] = []
    coft: bool = False
    eps: Annotated[float, Field(gt=0)] = 6e-5
    block_share: bool = False
    save_dtype: SaveDtype = "float32"


class VeraSpec(Section):
    """VeRA: two vectors a layer beside random matrices that all layers share (PEFT's VeraConfig)."""

    type: Literal["vera"]
    r: Positive = 256
    vera_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    d_initial: float = 0.1
    target_modules: Targets = "all-linear"
    layers_to_transform: int | list[int] | None = None
    bias: Literal["none", "all", "vera_only"] = "none"
    modules_to_save: list[str] = []
    projection_prng_key: int = 0
    save_dtype: SaveDtype = "float32"


class IA3Spec(Section):
    """(IA)3: one factor for each output of keys, values and feed-forward (PEFT's IA3Config)."""

    type: Literal["ia3"]
    target_modules: Annotated[list[str] | None, Field(min_length=1)] = None
    """Names of modules; without it those that PEFT knows for the architecture."""
    feedforward_modules: list[str] | None = None
    """Those of the targets that are scaled at their input."""
    modules_to_save: list[str] = []
    save_dtype: SaveDtype = "float32"


class PromptTuningSpec(Section):
    """Prompt tuning: vectors before every prompt, nothing else (PEFT's PromptTuningConfig)."""

    type: Literal["prompt_tuning"]
    num_virtual_tokens: Positive = 20
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    prompt_tuning_init_text: str | None = None
    save_dtype: SaveDtype = "float32"

    @model_validator(mode="after")
    def _text_where_it_starts_from_text(self) -> Self:
        if (self.prompt_tuning_init == "TEXT") != (self.prompt_tuning_init_text is not None):
            raise ValueError("prompt_tuning_init: TEXT and prompt_tuning_init_text go together")
        return self


AdapterSpec = Annotated[OFTSpec | VeraSpec | IA3Spec | PromptTuningSpec, Field(discriminator="type")]
"""An adapter that is no LoRA; `type` says which."""


class FreezeSpec(Section):
    """With all parameters trained (`lora: null`): those that stay as they are."""

    layers: int | str | None = None
    """The first N layers, or those parameters whose names a regular expression finds."""
    embeddings: bool = False

    @model_validator(mode="after")
    def _freezes_something(self) -> Self:
        if isinstance(self.layers, str):
            _pattern(self.layers)
        elif isinstance(self.layers, int) and self.layers < 1:
            raise ValueError("layers must be at least 1 (the first N layers) or a regular expression")
        if self.layers is None and not self.embeddings:
            raise ValueError("give layers (a number or a regular expression), embeddings: true, or both")
        return self


class TokenizerSpec(Section):
    """What is added to the tokenizer; the model's vocabulary grows with it and the new rows are trained."""

    add_tokens: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    special: bool = False
    """Whether they are control tokens, left out when text is decoded without them."""

    @model_validator(mode="after")
    def _all_different(self) -> Self:
        twice = next((token for token in self.add_tokens if self.add_tokens.count(token) > 1), None)
        if twice is not None:
            raise ValueError(f"add_tokens lists {twice!r} twice")
        return self


class QuantizationSpec(Section):
    """The frozen base in four or eight bits, by bitsandbytes, on CPU and CUDA."""

    load_in_4bit: bool = False
    """QLoRA's; what is taken when neither is set."""
    load_in_8bit: bool = False
    """LLM.int8(): twice the memory of four bits, closer to the original."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True
    """Quantises the scales too: saves 0.4 bits a weight."""
    llm_int8_threshold: Annotated[float, Field(ge=0)] = 6.0
    """In eight bits: activations above it are multiplied unrounded."""

    @model_validator(mode="before")
    @classmethod
    def _four_bits_unless_eight(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("load_in_4bit") and not values.get("load_in_8bit"):
            if values.get("load_in_4bit") is False:
                raise ValueError("neither load_in_4bit nor load_in_8bit; for an unquantised base write `quantization: null`")
            return {**values, "load_in_4bit": True}
        return values

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit: choose one")
        return self

    @property
    def bits(self) -> int:
        """4 or 8."""
        return 4 if self.load_in_4bit else 8

    @property
    def words(self) -> str:
        """`4-bit base (nf4)`."""
        return f"4-bit base ({self.bnb_4bit_quant_type})" if self.load_in_4bit else "8-bit base (int8)"
