"""What is trained beside the base, and in what precision the base is held. Fields keep the names of PEFT and bitsandbytes."""

from __future__ import annotations

from typing import Literal

from llmbench.recipe.fields import Fraction, Positive, Section

__all__ = ["LoraSpec", "QuantizationSpec"]


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
