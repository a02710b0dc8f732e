"""`onnx`: the whole model as an ONNX graph with its keys and values, which onnxruntime computes on any CPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from llmbench.errors import LlmbenchError
from llmbench.exporting import onnx_graph
from llmbench.exporting.material import Material
from llmbench.exporting.merged import prompt_tuning
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes
from llmbench.onnx_model import GRAPH, OnnxModel

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ALLOWED", "BITS", "OnnxFormat", "own_code"]

ALLOWED = {
    "float32": Allowance(1e-5, 0.01, 0.99),
    "int8": Allowance(2e-2, 1.5, 0.93),
    "int4": Allowance(0.25, 8.0, 0.75),
}
"""float32: other orders of the same sums. int8 and int4: what rounding in blocks of 32 may do to a small model."""
BITS = {"float32": 32, "int8": 8, "int4": 4}
_WEIGHTS = (".safetensors", ".safetensors.index.json")


class OnnxFormat:
    """See the module."""

    name = "onnx"

    def refuse(self, source: Exportable, precision: str) -> None:
        """Prompt tuning, and models of which transformers would run code of their own."""
        prompt_tuning(source)
        own_code(source)

    def room(self, source: Exportable, precision: str) -> int:
        """The weights in float32, which a graph in fewer bits is made from."""
        return source.parameters * 4 * (1 if precision == "float32" else 2)

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """The graph, its weights, and the model's files but for its own weights."""
        made = material.model("float32")
        onnx_graph.write(made, folder / GRAPH)
        if (bits := BITS[precision]) < 32:
            onnx_graph.fewer_bits(folder / GRAPH, bits)
        for path in sorted(made.iterdir()):
            if path.is_file() and not path.name.endswith(_WEIGHTS):
                shutil.copyfile(path, folder / path.name)

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By onnxruntime: each probe read half, then the rest from its keys and values; answers token by token."""
        from transformers import AutoTokenizer

        model = OnnxModel(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise LlmbenchError(f"its tokenizer cannot be loaded ({str(error).splitlines()[0][:200]})") from error
        return Heard(
            logits=[_in_two(model, ids) for ids in probes.sequences],
            greedy=[
                model.greedy(ids[:prompt], probes.new_tokens)
                for ids, prompt in zip(probes.sequences, probes.prompts, strict=True)
            ],
            tokens=[list(tokenizer(one.text, add_special_tokens=one.begins)["input_ids"]) for one in probes.texts],
            stops=model.stops,
            template=tokenizer.chat_template,
            tied=None,
        )

    def expected_bytes(self, material: Material, precision: str) -> int:
        """Four bytes a parameter; in fewer bits, the embedding keeps them, and each block of 32 has a scale."""
        assert material.parameters is not None
        if precision == "float32":
            return 4 * material.parameters
        config = json.loads((material.model("float32") / "config.json").read_text(encoding="utf-8"))
        embedding = int(config["vocab_size"]) * int(config["hidden_size"])
        products = material.parameters - embedding
        return 4 * embedding + products * BITS[precision] // 8 + 4 * products // onnx_graph.BLOCK

    def weight_files(self, folder: Path) -> list[Path]:
        """The file beside the graph."""
        return sorted(folder.glob(f"{GRAPH}.data*"))

    def tolerance(self, precision: str) -> Allowance:
        """See the table."""
        return ALLOWED[precision]

    def usage(self, name: str, precision: str) -> str:
        """Both ways to ask it."""
        return (
            f"Serve it on a CPU with llmbench: `engine.backend: onnx` and `model.model_name_or_path: {name}`.\n\n"
            f"```python\nfrom pathlib import Path\nfrom llmbench.onnx_model import OnnxModel\n\n"
            f'model = OnnxModel(Path("{name}"))\nlogits, cache = model.read([1, 2, 3], model.start())\n```\n\n'
            "The graph has Optimum's inputs and outputs, so that `optimum.onnxruntime.ORTModelForCausalLM` loads it too."
        )


def own_code(source: Exportable) -> None:
    """Raises LlmbenchError for a model of which transformers would run code of its own."""
    if source.spec.trust_remote_code:
        raise LlmbenchError(
            f"{source.spec.model_name_or_path} needs code of its own (trust_remote_code), which is not exported to ONNX. "
            "Use --format merged"
        )


def _in_two(model: OnnxModel, ids: tuple[int, ...]) -> np.ndarray:
    """The logits of each position, the later half of them read from the keys and values of the first."""
    import numpy as np

    half = max(1, len(ids) // 2)
    first, cache = model.read(ids[:half], model.start())
    if half == len(ids):
        return first
    return np.concatenate([first, model.read(ids[half:], cache)[0]])
