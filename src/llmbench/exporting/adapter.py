"""`adapter`: the adapter alone in PEFT's format, for tools that put it beside the base themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting.material import Material, asked
from llmbench.exporting.merged import ALLOWED
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["AdapterFormat"]

_WEIGHTS = "adapter_model.safetensors"
_AS_TRAINED = "as-trained"


class AdapterFormat:
    """See the module."""

    name = "adapter"

    def refuse(self, source: Exportable, precision: str) -> None:
        """A whole model has no adapter."""
        if not source.adapts:
            raise LlmbenchError(f"run {source.run.name} trained all parameters, so there is no adapter. Use --format merged")

    def room(self, source: Exportable, precision: str) -> int:
        """The adapter, and a tokenizer."""
        return 2 * (source.folder / _WEIGHTS).stat().st_size + 20_000_000

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """PEFT's two files, and what the base alone does not say: tokenizer, chat template, stop tokens."""
        from safetensors.torch import load_file, save_file

        config = json.loads((material.adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": material.source.spec.model_name_or_path, "inference_mode": True}
        config["revision"] = material.source.spec.revision
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if precision == _AS_TRAINED:
            shutil.copyfile(material.adapter / _WEIGHTS, folder / _WEIGHTS)
        else:
            dtype: torch.dtype = getattr(torch, precision)
            state = {name: tensor.to(dtype) for name, tensor in load_file(material.adapter / _WEIGHTS).items()}
            save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})
        material.tokenizer.save_pretrained(folder)
        stops = sorted(material.reference().heard.stops)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}, indent=2) + "\n", encoding="utf-8")

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By PEFT itself, on the base as it was trained on."""
        from transformers import AutoTokenizer, GenerationConfig

        dtype = material.reference().dtype
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=material.source.spec.trust_remote_code, local_files_only=True
            )
            model = material.with_adapter(folder, dtype)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise LlmbenchError(f"PEFT cannot load it ({str(error).splitlines()[0][:200]})") from error
        model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
        return asked(model, tokenizer, probes, dtype)

    def expected_bytes(self, material: Material, precision: str) -> int:
        """As many numbers as were trained."""
        from safetensors import safe_open

        count, size = 0, (material.adapter / _WEIGHTS).stat().st_size
        if precision == _AS_TRAINED:
            return size
        with safe_open(material.adapter / _WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                one = 1
                for edge in file.get_slice(name).get_shape():
                    one *= edge
                count += one
        return count * (4 if precision == "float32" else 2)

    def weight_files(self, folder: Path) -> list[Path]:
        """One."""
        return [folder / _WEIGHTS]

    def tolerance(self, precision: str) -> Allowance:
        """Rounding the adapter changes less than rounding the whole model."""
        return ALLOWED["float32" if precision == _AS_TRAINED else precision]

    def usage(self, name: str, precision: str) -> str:
        """PEFT and vLLM."""
        return (
            "```python\nfrom peft import PeftConfig, PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'config = PeftConfig.from_pretrained("{name}")\n'
            'base = AutoModelForCausalLM.from_pretrained(config.base_model_name_or_path, dtype="auto")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
            "if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:\n"
            "    base.resize_token_embeddings(len(tokenizer))\n"
            f'model = PeftModel.from_pretrained(base, "{name}")\n```'
        )
