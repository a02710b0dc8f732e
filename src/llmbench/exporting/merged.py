"""`merged`: the whole model in transformers' format, which vLLM, transformers and most other tools read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting.material import Material, asked
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["ALLOWED", "MergedFormat", "prompt_tuning", "tied_on_disk"]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ALLOWED = {
    "float32": Allowance(1e-5, 0.01, 0.99),
    "float16": Allowance(1e-3, 0.5, 0.98),
    "bfloat16": Allowance(1e-2, 1.5, 0.93),
}
"""What rounding a model's weights to a precision, and computing in it, may change; as of `llmbench merge`."""


class MergedFormat:
    """See the module."""

    name = "merged"

    def refuse(self, source: Exportable, precision: str) -> None:
        """Prompt tuning changes no weights, so there is nothing to merge."""
        prompt_tuning(source)

    def room(self, source: Exportable, precision: str) -> int:
        """The weights alone."""
        return source.parameters * _BYTES[precision]

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """Moves the merged model's files into the folder."""
        made = material.model(precision)
        for path in sorted(made.iterdir()):
            shutil.move(path, folder / path.name)

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By transformers, from the folder alone, in its own precision."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        trust = material.source.spec.trust_remote_code
        dtype: torch.dtype = getattr(torch, precision)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, trust_remote_code=trust, use_safetensors=True, local_files_only=True,
                output_loading_info=True,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LlmbenchError(f"transformers cannot load it ({str(error).splitlines()[0][:200]})") from error
        model, loading = loaded
        if loading["missing_keys"]:
            raise LlmbenchError(f"its weights lack {sorted(loading['missing_keys'])[0]}")
        return asked(model.to(material.device), tokenizer, probes, dtype, tied=tied_on_disk(folder))

    def expected_bytes(self, material: Material, precision: str) -> int:
        """Two or four for each parameter."""
        assert material.parameters is not None
        return material.parameters * _BYTES[precision]

    def weight_files(self, folder: Path) -> list[Path]:
        """The shards."""
        return sorted(folder.glob("*.safetensors"))

    def tolerance(self, precision: str) -> Allowance:
        """As of a merge."""
        return ALLOWED[precision]

    def usage(self, name: str, precision: str) -> str:
        """Both readers."""
        return (
            f"```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
            f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")\n```\n\n'
            f"```bash\nvllm serve {name}\n```"
        )


def prompt_tuning(source: Exportable) -> None:
    """Raises LlmbenchError for vectors before the prompt, which no weights hold."""
    if source.peft.get("peft_type") == "PROMPT_TUNING":
        raise LlmbenchError(
            f"{source.folder} is prompt tuning, which puts vectors before the prompt and changes no weights. "
            "Use --format adapter"
        )


def tied_on_disk(folder: Path) -> bool:
    """Whether a folder's head is its embedding: no file holds another one, and config.json says so."""
    import json

    from safetensors import safe_open

    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = bool(values.get("tie_word_embeddings", values.get("text_config", {}).get("tie_word_embeddings", True)))
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    return said and "lm_head.weight" not in names
