"""`gguf-adapter`: a LoRA alone for llama.cpp, which puts it beside the base's own GGUF file when it starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting.llama import modelfile, reading, writer
from llmbench.exporting.llama.format import fields, named_pre_tokenizer, refuse_architecture
from llmbench.exporting.llama.writer import Layout
from llmbench.exporting.material import Material
from llmbench.exporting.merged import ALLOWED
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["GgufAdapterFormat"]

_FILE = "adapter.gguf"
_RANKS = 32
"""Ranks are multiples of this in the file."""
_PART = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_BYTES = {"f32": 4, "f16": 2}


class GgufAdapterFormat:
    """See the module."""

    name = "gguf-adapter"

    def refuse(self, source: Exportable, precision: str) -> None:
        """What llama.cpp's LoRA cannot hold."""
        if not source.adapts:
            raise LlmbenchError(f"run {source.run.name} trained all parameters, so there is no adapter. Use --format gguf")
        refuse_architecture(source)
        peft = source.peft
        reasons = {
            "is no LoRA": peft.get("peft_type") != "LORA",
            "is a DoRA, whose lengths llama.cpp's LoRA has no place for": peft.get("use_dora"),
            "trains whole modules (modules_to_save)": peft.get("modules_to_save"),
            "trains rows of the embedding": peft.get("trainable_token_indices"),
            "trains biases": peft.get("bias", "none") != "none",
            "is for Phi-3's joined matrices, with which llama.cpp was not seen to compute a LoRA right": (
                writer.layout(source.config).arch == "phi3"
            ),
        }
        reason = next((text for text, holds in reasons.items() if holds), None)
        if reason is not None:
            raise LlmbenchError(f"{source.folder}: the adapter {reason}. Use --format gguf, which merges it")
        if source.run.recipe.get("quantization"):
            raise LlmbenchError(
                f"run {source.run.name} was trained on a base in few bits, and a GGUF file of the base is rounded otherwise. "
                "Use --format gguf, which merges what was trained"
            )

    def room(self, source: Exportable, precision: str) -> int:
        """The adapter, and while it is read back the base."""
        return 4 * source.parameters + 2 * (source.folder / "adapter_model.safetensors").stat().st_size

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """`adapter.gguf` with the scale in B, since llama.cpp knows one scale for all matrices, and a Modelfile."""
        import gguf
        import numpy as np

        found = writer.layout(material.source.config)
        made = gguf.GGUFWriter(folder / _FILE, found.arch)
        try:
            made.add_type("adapter")
            made.add_name(material.source.label)
            made.add_string("adapter.type", "lora")
            made.add_float32("adapter.lora.alpha", 0.0)  # no scale of its own
            kind = np.float32 if precision == "f32" else np.float16
            for name, values in _matrices(material, found):
                made.add_tensor(name, values.contiguous().numpy().astype(kind))
            made.write_header_to_file()
            made.write_kv_data_to_file()
            made.write_tensors_to_file()
        finally:
            made.close()
        text = modelfile.of(material, f"./{_FILE}", base="./base.gguf")
        (folder / "Modelfile").write_text(f"# base.gguf: a GGUF file of {material.source.spec.model_name_or_path}\n{text}", encoding="utf-8")  # fmt: skip  # noqa: E501

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By llama.cpp, beside a float32 file of the base that is made for it and not kept."""
        source = material.base_model()
        wanted, target = material.reference().heard.stops, material.work / "base.gguf"
        pre = named_pre_tokenizer(material, source)
        writer.write(source, target, material.tokenizer, wanted, name="base", pre=pre, kind="f32")
        heard, ends = reading.ask(target, probes, adapter=folder / _FILE)
        template, _ = fields(target)
        return dataclasses.replace(heard, stops=ends & wanted, also_stops=ends - wanted, template=template)

    def expected_bytes(self, material: Material, precision: str) -> int:
        """As many numbers as the adapter has."""
        found = writer.layout(material.source.config)
        return sum(values.numel() for _, values in _matrices(material, found)) * _BYTES[precision]

    def weight_files(self, folder: Path) -> list[Path]:
        """One."""
        return [folder / _FILE]

    def tolerance(self, precision: str) -> Allowance:
        """llama.cpp multiplies with it in the precision that it has."""
        return ALLOWED["float16"]

    def usage(self, name: str, precision: str) -> str:
        """llama.cpp and Ollama."""
        return (
            f"```bash\nllama-cli -m BASE.gguf --lora {name}/{_FILE} -cnv\n```\n\nFor Ollama, put a GGUF file of the base "
            "next to the Modelfile as `base.gguf`."
        )


def _matrices(material: Material, found: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    """llama.cpp's name and values of each matrix, in float32.

    Raises:
        LlmbenchError: the adapter has something that is no matrix of a LoRA, or of a layer without a name in llama.cpp.
    """
    from safetensors.torch import load_file

    config, names = material.source.peft, writer.names(found)
    state = load_file(material.adapter / "adapter_model.safetensors")
    for key, values in sorted(state.items()):
        match = _PART.fullmatch(key)
        name = names.get_name(f"{match[1]}.weight", try_suffixes=(".weight",)) if match is not None else None
        if match is None or name is None:
            raise LlmbenchError(f"{key} of the adapter has no place in llama.cpp's LoRA. Use --format gguf, which merges it")
        values = values.float()
        if match[2] == "B":
            rank = values.shape[1]
            values = values * _scale(config, match[1], rank)
            heads = {"q_proj": found.heads, "k_proj": found.kv_heads}.get(match[1].rsplit(".", 1)[-1])
            if found.arch == "llama" and heads is not None:
                values = writer.permuted(values, heads)
        yield f"{name}.lora_{match[2].lower()}", _filled(values, 0 if match[2] == "A" else 1)


def _filled(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The rank filled up with zeros, which change nothing: llama.cpp computes wrong numbers in float16 for a rank such as 4."""
    missing = -values.shape[dim] % _RANKS
    if not missing:
        return values
    shape = list(values.shape)
    shape[dim] = missing
    return torch.cat([values, torch.zeros(shape)], dim)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) of rsLoRA (arXiv:2312.03732), by PEFT's patterns of module names."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next((v for k, v in patterns.items() if re.fullmatch(rf"(.*\.)?({k})", module)), config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
