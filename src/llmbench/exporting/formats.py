"""The formats that runs are exported in. Each stands in a module of its own, which is loaded when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.exporting.protocol import Format

__all__ = ["FORMATS", "SETTINGS", "FormatEntry", "get", "named", "precision_of"]


@dataclass(frozen=True)
class FormatEntry:
    """What is known of a format before its module, and torch, is loaded."""

    name: str
    """As `--format` says it, lower case."""
    title: str
    """For the help and the model card."""
    precisions: tuple[str, ...]
    """As `--precision` says them; the first is taken where nothing is said."""
    module: str
    """Of this room."""
    inner: str
    """The class in it that is a `protocol.Format`."""
    packages: tuple[tuple[str, str], ...] = ()
    """Modules that it needs in this environment beside training's, each with the extra of llmbench that installs it."""
    settings: tuple[str, ...] = ()
    """What its class can be told, of `SETTINGS`."""
    served: bool = False
    """Whether vLLM serves the folder, so that a certificate belongs into it, which `llmbench serve` puts to the engine."""


SETTINGS = {"python": "--compressor", "rows": "--calibration-rows"}
"""What some formats can be told, and the option that tells it."""
_PYTHON, _CALIBRATED = ("python",), ("python", "rows")


FORMATS: dict[str, FormatEntry] = {
    entry.name: entry
    for entry in (
        FormatEntry(
            "merged", "Whole model in safetensors, for transformers and vLLM", ("bfloat16", "float16", "float32"),
            "merged", "MergedFormat", served=True,
        ),
        FormatEntry(
            "adapter", "Adapter alone in PEFT's format", ("as-trained", "float32", "bfloat16", "float16"),
            "adapter", "AdapterFormat",
        ),
        FormatEntry("int8", "Weights and activations in 8 bits, for vLLM", ("bfloat16",), "quantised", "Int8", (), _CALIBRATED),
        FormatEntry("w4a16", "Weights in 4 bits by GPTQ, for vLLM", ("bfloat16",), "quantised", "W4a16", (), _CALIBRATED),
        FormatEntry("awq", "Weights in 4 bits by AWQ, for vLLM", ("bfloat16",), "quantised", "Awq", (), _CALIBRATED),
        FormatEntry("fp8", "Weights and activations in 8-bit floats, for vLLM", ("bfloat16",), "quantised", "Fp8", (), _PYTHON),
        FormatEntry(
            "torchao-int8", "Weights in 8 bits by torchao, for transformers and vLLM", ("bfloat16",),
            "torchao_int8", "TorchaoInt8", (("torchao", "torchao"),),
        ),
        FormatEntry(
            "gguf", "GGUF for llama.cpp, Ollama and LM Studio", ("q8_0", "f16", "q4_k_m"), "llama.format", "GgufFormat",
            (("gguf", "gguf"), ("ik_llama_cpp", "gguf")),
        ),
        FormatEntry(
            "gguf-adapter", "LoRA alone in GGUF, for llama.cpp and Ollama", ("f16", "f32"), "llama.adapter",
            "GgufAdapterFormat", (("gguf", "gguf"), ("ik_llama_cpp", "gguf")),
        ),
        FormatEntry(
            "onnx", "ONNX graph, for onnxruntime on a CPU", ("float32", "int8", "int4"), "onnx_format", "OnnxFormat",
            (("onnxscript", "onnx"), ("onnxruntime", "onnx")),
        ),
        FormatEntry(
            "onnx-genai", "ONNX graph and configuration for onnxruntime-genai", ("float32", "int8", "int4"), "genai_format",
            "GenaiFormat", (("onnxruntime_genai", "onnx-genai"), ("onnx_ir", "onnx-genai")),
        ),
    )
}  # fmt: skip
"""Each format by its name, in the order of the help. A new one is one more `FormatEntry`."""


def named(name: str) -> FormatEntry:
    """What is known of the format of a name.

    Raises:
        LlmbenchError: there is none.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise LlmbenchError(f"--format {name}: there is no such format. {hint}Available: {', '.join(FORMATS)}")
    return FORMATS[name]


def get(entry: FormatEntry, settings: dict[str, Any] | None = None) -> Format:
    """The format itself.

    Args:
        entry: what is known of it.
        settings: what it is told, by the names of `SETTINGS`; None as a value is nothing.

    Raises:
        LlmbenchError: it cannot be told this.
    """
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    for name in given:
        if name not in entry.settings:
            others = [other.name for other in FORMATS.values() if name in other.settings]
            raise LlmbenchError(f"{SETTINGS[name]} is for {', '.join(others)}. Leave it out for --format {entry.name}")
    found: Format = getattr(importlib.import_module(f"llmbench.exporting.{entry.module}"), entry.inner)(**given)
    return found


def precision_of(entry: FormatEntry, precision: str | None) -> str:
    """The precision that is meant, or the format's own.

    Raises:
        LlmbenchError: the format has no such precision.
    """
    if precision is None:
        return entry.precisions[0]
    if precision not in entry.precisions:
        raise LlmbenchError(
            f"--precision {precision}: format {entry.name} has none of this name. Available: {', '.join(entry.precisions)}"
        )
    return precision
