"""`gguf`: one file for llama.cpp, Ollama and LM Studio, read back by llama.cpp."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from llmbench.errors import LlmbenchError
from llmbench.exporting.llama import modelfile, reading, rotation, vocabulary, writer
from llmbench.exporting.material import Material
from llmbench.exporting.merged import ALLOWED, prompt_tuning
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["GgufFormat", "fields", "named_pre_tokenizer", "refuse_architecture"]

_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_k_m": 5.1}
"""For each parameter; q4_k_m keeps some matrices in six bits."""
_ALLOWED = {
    "f16": ALLOWED["float16"],
    "q8_0": Allowance(2e-2, 2.0, 0.93),
    "q4_k_m": Allowance(0.25, 6.0, 0.8),
}


class GgufFormat:
    """See the module."""

    name = "gguf"

    def refuse(self, source: Exportable, precision: str) -> None:
        """Architectures and tokenizers that llama.cpp, or the writer, has nothing for."""
        prompt_tuning(source)
        refuse_architecture(source)

    def room(self, source: Exportable, precision: str) -> int:
        """The file, and the float32 one that it is quantised from."""
        whole = 0 if precision == "f16" else 4 * source.parameters
        return whole + int(source.parameters * _BITS[precision] / 8)

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """`model.gguf` and `Modelfile`."""
        source = material.model("float32")
        stops = material.reference().heard.stops
        pre = named_pre_tokenizer(material, source)
        target, label = folder / "model.gguf", material.source.label
        if precision == "f16":
            writer.write(source, target, material.tokenizer, stops, name=label, pre=pre, kind="f16")
        else:
            whole = material.work / "whole.gguf"
            writer.write(source, whole, material.tokenizer, stops, name=label, pre=pre, kind="f32")
            reading.quantise(whole, target, precision.upper())
            whole.unlink()
        (folder / "Modelfile").write_text(modelfile.of(material, "./model.gguf"), encoding="utf-8")

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By llama.cpp; template and head from the file's own fields."""
        heard, ends = reading.ask(folder / "model.gguf", probes)
        template, names = fields(folder / "model.gguf")
        wanted = material.reference().heard.stops
        return dataclasses.replace(
            heard, stops=ends & wanted, also_stops=ends - wanted, template=template, tied="output.weight" not in names,
            further=rotation.compared(folder / "model.gguf", material.source.config),
        )  # fmt: skip

    def expected_bytes(self, material: Material, precision: str) -> int:
        """By the bits of each parameter."""
        assert material.parameters is not None
        return int(material.parameters * _BITS[precision] / 8)

    def weight_files(self, folder: Path) -> list[Path]:
        """One."""
        return [folder / "model.gguf"]

    def tolerance(self, precision: str) -> Allowance:
        """llama.cpp rounds what enters a product, too: to float16 beside float16 weights, to eight bits beside others."""
        return _ALLOWED[precision]

    def usage(self, name: str, precision: str) -> str:
        """llama.cpp and Ollama."""
        return (
            f"```bash\nllama-cli -m {name}/model.gguf -cnv\n```\n\n"
            f"```bash\ncd {name} && ollama create my-model -f Modelfile\n```"
        )


def refuse_architecture(source: Exportable) -> None:
    """Raises LlmbenchError where a model, or its tokenizer, is not written to GGUF."""
    reason = writer.refusal(source.config)
    place = source.folder if (source.folder / "tokenizer.json").is_file() else source.spec.tokenizer or source.base
    if reason is None and place is not None and (place / "tokenizer.json").is_file():
        reason = vocabulary.refusal(place)
    if reason is not None:
        raise LlmbenchError(f"{source.spec.model_name_or_path}: {reason}. Use --format merged")


def named_pre_tokenizer(material: Material, source: Path) -> str:
    """llama.cpp's name of the pre-tokenizer, found by trying those that it knows on the texts of the proof."""
    if vocabulary.of(material.tokenizer, source, 0).model == "llama":
        return "default"  # pieces are not cut first
    texts = material.reference().probes.texts
    alone = material.work / "vocabulary.gguf"
    writer.write(source, alone, material.tokenizer, frozenset(), name="", pre="default", kind="f32", weights=False)
    return reading.pre_tokenizer(alone, texts)


def fields(path: Path) -> tuple[str | None, set[str]]:
    """The chat template in a GGUF file, and the names of its tensors."""
    import gguf

    reader = gguf.GGUFReader(path)
    found = reader.get_field("tokenizer.chat_template")
    return (str(found.contents()) if found is not None else None), {tensor.name for tensor in reader.tensors}
