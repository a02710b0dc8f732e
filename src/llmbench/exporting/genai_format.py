"""`onnx-genai`: a graph and a configuration for onnxruntime-genai, by its own builder, read back by its own runtime.

The builder writes the graph of an architecture by hand: fewer and larger operations than PyTorch's exporter finds, and fewer
architectures. It is a program of the package that prints and loads as it likes, so it runs as a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.exporting.material import Material
from llmbench.exporting.onnx_format import BITS, OnnxFormat
from llmbench.exporting.values import Heard, Probes

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GenaiFormat"]

_BUILDER = "onnxruntime_genai.models.builder"
_PRECISIONS = {"float32": "fp32", "int8": "int8", "int4": "int4"}
"""Ours -> the builder's."""
_CONFIG, _WEIGHTS = "genai_config.json", "model.onnx.data"
_SECONDS = 6 * 3600
_BLOCK = 32


class GenaiFormat(OnnxFormat):
    """See the module. What it refuses and the room that it takes are those of `onnx`."""

    name = "onnx-genai"

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """The graph, its weights, genai_config.json, and the tokenizer's files, all by the builder."""
        cache = material.work / "genai"
        command = [
            sys.executable, "-P", "-m", _BUILDER, "-i", str(material.model("float32")), "-o", str(folder),
            "-p", _PRECISIONS[precision], "-e", "cpu", "-c", str(cache),
        ]  # fmt: skip
        log = workspace.new_log("genai", "the builder's")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
        with log.open("wb") as file:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=material.work,
                timeout=_SECONDS, check=False,
            )  # fmt: skip
        if done.returncode or not (folder / _CONFIG).is_file():
            raise LlmbenchError(f"onnxruntime-genai's builder failed ({_last(log)}). Its log: {log}. Use --format onnx")
        log.unlink(missing_ok=True)

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By onnxruntime-genai: its tokenizer, each probe read in two parts, and answers drawn by it, always the likeliest."""
        import onnxruntime_genai
        from transformers import AutoTokenizer

        onnxruntime_genai.disable_telemetry_events()
        try:
            model = onnxruntime_genai.Model(str(folder))
            own = onnxruntime_genai.Tokenizer(model)
            template = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).chat_template
            tokens = [_tokens(own, one.text, begins=one.begins) for one in probes.texts]
            logits = [_in_two(onnxruntime_genai, model, ids) for ids in probes.sequences]
            asked = zip(probes.sequences, probes.prompts, strict=True)
            greedy = [_greedy(onnxruntime_genai, model, ids[:prompt], probes.new_tokens) for ids, prompt in asked]
        except Exception as error:  # its errors have no class of their own
            raise LlmbenchError(f"onnxruntime-genai cannot read it ({_line(str(error))})") from error
        return Heard(logits, greedy, tokens, _stops(folder), template, None)

    def expected_bytes(self, material: Material, precision: str) -> int:
        """Four bytes a parameter, and a head of its own; in fewer bits a scale for 32; int8 keeps the embedding."""
        assert material.parameters is not None
        config = json.loads((material.model("float32") / "config.json").read_text(encoding="utf-8"))
        embedding = int(config["vocab_size"]) * int(config["hidden_size"])
        whole = material.parameters + (embedding if config.get("tie_word_embeddings") else 0)
        if precision == "float32":
            return 4 * whole
        kept = embedding if precision == "int8" else 0
        return 4 * kept + (whole - kept) * BITS[precision] // 8 + 4 * (whole - kept) // _BLOCK

    def weight_files(self, folder: Path) -> list[Path]:
        """The file beside the graph."""
        return [folder / _WEIGHTS]

    def usage(self, name: str, precision: str) -> str:
        """Its own Python package."""
        return (
            f"```python\nimport onnxruntime_genai as og\n\nmodel = og.Model({name!r})\ntokenizer = og.Tokenizer(model)\n"
            "params = og.GeneratorParams(model)\nparams.set_search_options(max_length=512)\n"
            "generator = og.Generator(model, params)\n"
            'generator.append_tokens(tokenizer.encode("Hello"))\nwhile not generator.is_done():\n'
            "    generator.generate_next_token()\nprint(tokenizer.decode(generator.get_sequence(0)))\n```"
        )


def _generator(genai: Any, model: Any, length: int) -> Any:
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=length, do_sample=False)
    return genai.Generator(model, params)


def _in_two(genai: Any, model: Any, ids: tuple[int, ...]) -> np.ndarray:
    """The logits of each position, the later half of them read from the keys and values of the first."""
    import numpy as np

    generator, half = _generator(genai, model, len(ids) + 1), max(1, len(ids) // 2)
    said = []
    for part in filter(len, (ids[:half], ids[half:])):
        generator.append_tokens(np.array([part], dtype=np.int32))
        said.append(np.array(generator.get_output("logits"), dtype=np.float32)[0])
    found: np.ndarray = np.concatenate(said)
    return found


def _greedy(genai: Any, model: Any, ids: tuple[int, ...], count: int) -> list[int]:
    import numpy as np

    generator = _generator(genai, model, len(ids) + count + 1)
    generator.append_tokens(np.array([ids], dtype=np.int32))
    written: list[int] = []
    while len(written) < count and not generator.is_done():
        generator.generate_next_token()
        written.append(int(generator.get_next_tokens()[0]))
    return written


def _tokens(tokenizer: Any, text: str, *, begins: bool) -> list[int]:
    tokenizer.update_options(add_special_tokens="true" if begins else "false")
    return [int(one) for one in tokenizer.encode(text)]


def _stops(folder: Path) -> frozenset[int]:
    found = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["model"].get("eos_token_id")
    return frozenset(found if isinstance(found, list) else [] if found is None else [found])


def _last(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return _line(lines[-1]) if lines else "it said nothing"


def _line(text: str) -> str:
    return " ".join(text.split())[:200] or "it did not say why"
