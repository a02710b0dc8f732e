"""Bases in few bits: made by bitsandbytes when they are loaded, or quantised beforehand by whoever published them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import QuantizationSpec
from llmbench.recipe.combination import TRAINABLE

__all__ = [
    "check_package", "config", "dequantize", "is_quantized", "is_quantized_linear", "keep_gradients", "probe", "trainable",
]  # fmt: skip


def config(spec: QuantizationSpec, dtype: torch.dtype) -> Any:
    """The recipe's section as transformers' BitsAndBytesConfig."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=spec.load_in_4bit,
        load_in_8bit=spec.load_in_8bit,
        bnb_4bit_quant_type=spec.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=spec.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_threshold=spec.llm_int8_threshold,
    )


def check_package(name: str, base: Mapping[str, Any]) -> None:
    """Makes sure that a base which comes quantised can be read.

    Raises:
        LlmbenchError: the package that reads it is not installed.
    """
    values = base.get("quantization_config")
    if not isinstance(values, dict):
        return
    method = str(values.get("quant_method", "bitsandbytes"))
    package = TRAINABLE[method]
    if find_spec(package) is None:
        raise LlmbenchError(f"{name}: is quantised with {method}, which needs {package}. Run: pip install {package}")


def trainable(folder: Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """What a GPTQ or AWQ base is loaded with besides, so that GPTQModel takes kernels that hand gradients down.

    Left to itself it takes the fastest, which on a CPU are for inference alone.
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    if values.get("quant_method") not in ("gptq", "awq"):
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code, local_files_only=True)
    config.quantization_config["backend"] = "auto_trainable"
    return {"config": config}


def is_quantized_linear(module: Any) -> bool:
    """Whether a module is a linear layer of GPTQ or AWQ, which is not derived from torch's own."""
    return hasattr(module, "qweight")


def is_quantized(model: Any) -> bool:
    """Whether a model's weights are in few bits, whoever made them so."""
    return getattr(model.config, "quantization_config", None) is not None


def keep_gradients(model: Any) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights on a CPU with AVX512-BF16.

    It does so at the first forward pass in evaluation mode, for good, and a packed layer hands no gradient down: what lies
    below it is trained by the residual stream alone, or not at all, and nobody is told (bitsandbytes 0.50,
    nn/modules.py Linear4bit.forward, autograd/_functions.py matmul_4bit).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def probe(model: Any, place: str) -> None:
    """Two short steps beside a quantised base, so that what the kernels of this machine cannot do is known before the data.

    Raises:
        RecipeError: a library fails, or a trained parameter gets no gradient.
    """
    rows = torch.arange(16, device=model.device)[None] % model.config.get_text_config().vocab_size
    dtype = next((m.compute_dtype for m in model.modules() if getattr(m, "compute_dtype", None) is not None), torch.bfloat16)
    try:
        for _ in range(2):  # bitsandbytes moves its state about in the first one
            with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
                model(input_ids=rows, use_cache=False).logits.float().square().mean().backward()
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RecipeError(
            f"{place}: cannot be trained on this quantised base on {model.device.type} ({text}); "
            "use plain LoRA (`lora: {r: 16}`), or leave quantization out"
        ) from error
    still = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None and "token" not in name]
    model.zero_grad(set_to_none=True)
    if still:
        raise RecipeError(
            f"{place}: {len(still)} trained parameters get no gradient on this quantised base on {model.device.type}, "
            f"{still[0]} among them; use plain LoRA (`lora: {{r: 16}}`), or leave quantization out"
        )


def dequantize(model: Any, dtype: torch.dtype) -> Any:
    """The model with its few-bit layers made ordinary ones, whose weights are what the bits stand for.

    transformers' own `dequantize` fails on a model that was loaded with a dtype (5.19).

    Raises:
        LlmbenchError: of a kind that nothing turns back.
    """
    from peft.utils.integrations import dequantize_module_weight

    for name, module in list(model.named_modules()):
        weight = getattr(module, "weight", None)
        if not isinstance(module, torch.nn.Linear) or weight is None or not _few_bits(weight):
            continue
        state = getattr(module, "state", None)
        if state is not None and state.SCB is None:
            state.SCB = weight.SCB
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        plain.weight = torch.nn.Parameter(dequantize_module_weight(module).to(dtype), requires_grad=False)
        plain.bias = module.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, plain)
    left = next((name for name, p in model.named_parameters() if not p.is_floating_point()), None)
    if left is not None or any(hasattr(m, "qweight") or hasattr(m, "W_q") for m in model.modules()):
        raise LlmbenchError("weights quantised this way cannot be dequantised, so nothing can be merged")
    for attribute in ("is_loaded_in_4bit", "is_loaded_in_8bit", "hf_quantizer", "quantization_method", "is_quantized"):
        if attribute in model.__dict__:
            delattr(model, attribute)
    # How the weights were read is how transformers would write them; the steps that read few bits have no way back.
    steps = getattr(model, "_weight_conversions", None)
    if steps is not None:
        few = [step for step in steps if any("eserialize" in type(op).__name__ for op in getattr(step, "operations", []))]
        model._weight_conversions = [step for step in steps if step not in few]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(dtype)


def _few_bits(weight: Any) -> bool:
    """Whether a weight is bitsandbytes' or torchao's."""
    return type(weight).__name__ in ("Params4bit", "Int8Params") or type(weight).__module__.startswith("torchao.")
