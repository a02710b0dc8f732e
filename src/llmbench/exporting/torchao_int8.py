"""`torchao-int8`: the merged model with its weights in 8 bits by torchao, in this environment, for transformers and vLLM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting import served
from llmbench.exporting.material import Material, asked
from llmbench.exporting.merged import prompt_tuning, tied_on_disk
from llmbench.exporting.quantised import EIGHT_BITS, bytes_of
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["TorchaoInt8"]


class TorchaoInt8:
    """See the module. Activations stay as they are, so nothing is calibrated."""

    name = "torchao-int8"

    def refuse(self, source: Exportable, precision: str) -> None:
        """What has no merged model."""
        prompt_tuning(source)

    def room(self, source: Exportable, precision: str) -> int:
        """Less than the merged model."""
        return source.parameters * 2

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """Loads the merged model with its linear layers in 8 bits, and saves it as safetensors."""
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import AutoModelForCausalLM, TorchAoConfig

        model: Any = AutoModelForCausalLM.from_pretrained(
            str(material.model(precision)), dtype=getattr(torch, precision), use_safetensors=True, local_files_only=True,
            quantization_config=TorchAoConfig(quant_type=Int8WeightOnlyConfig()),
            trust_remote_code=material.source.spec.trust_remote_code,
        )  # fmt: skip
        model.save_pretrained(folder, max_shard_size="5GB")
        material.tokenizer.save_pretrained(folder)

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By transformers, from the folder alone, and by vLLM."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        trust = material.source.spec.trust_remote_code
        dtype: torch.dtype = getattr(torch, precision)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, trust_remote_code=trust, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LlmbenchError(f"transformers cannot load it ({str(error).splitlines()[0][:200]})") from error
        heard = asked(model.to(material.device), tokenizer, probes, dtype, tied=tied_on_disk(folder))
        del model
        material.say("Starting vLLM on it")
        check, figures, _ = served.check(folder, material.reference(), EIGHT_BITS, precision)
        return replace(heard, further=(check,), figures={"served": figures} if figures else {})

    def expected_bytes(self, material: Material, precision: str) -> int:
        """A byte for each weight of a linear layer but the head, a scale for each of its rows, and two bytes for all else."""
        return bytes_of(material.model(precision), bits=8)

    def weight_files(self, folder: Path) -> list[Path]:
        """The shards."""
        return sorted(folder.glob("*.safetensors"))

    def tolerance(self, precision: str) -> Allowance:
        """As of int8."""
        return EIGHT_BITS

    def usage(self, name: str, precision: str) -> str:
        """Both readers; each needs torchao."""
        return (
            "Needs `pip install torchao`.\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
            f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="{precision}")\n```\n\n'
            f"```bash\nvllm serve {name} --dtype {precision}\n```"
        )
