"""`int8`, `w4a16`, `awq`, `fp8`: the merged model in fewer bits for vLLM, by llm-compressor in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting import calibration, compressor, served
from llmbench.exporting.material import Material
from llmbench.exporting.merged import prompt_tuning, tied_on_disk
from llmbench.exporting.proof import Compared
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes
from llmbench.training.merging import probes as distances
from llmbench.training.merging.probes import Answers

__all__ = ["EIGHT_BITS", "FOUR_BITS", "Awq", "Fp8", "Int8", "W4a16", "bytes_of", "group_of"]

EIGHT_BITS = Allowance(0.05, 4.0, 0.85)
FOUR_BITS = Allowance(0.3, 8.0, 0.7)
_GROUPS = (128, 64, 32)
"""Weights of a row that share a scale in 4 bits: as many as divide every row, as vLLM's kernels want it."""
_PARAMETER = 2
"""Bytes of what stays as it is, and of a scale."""


_Said = tuple[Heard, float | None]
"""What a folder says to the probes, and its loss on the held-out rows."""


class _Quantised:
    """One scheme of llm-compressor. See `Format` for what each method promises."""

    name: Literal["int8", "w4a16", "awq", "fp8"]
    bits: int
    grouped: bool
    calibrates: bool
    allowance: Allowance
    apart: float
    """How far a layer's attention, or what follows it, may be off, as a part of its length."""

    def __init__(self, *, python: Path | None = None, rows: int | None = None) -> None:
        """Takes the Python that has llm-compressor and how many rows calibrate; None is the usual."""
        self._python, self._rows = python, rows
        self._there: compressor.Compressor | None = None
        self._drawn: calibration.CalibrationRows | None = None
        self._made: dict[str, Any] = {}

    def refuse(self, source: Exportable, precision: str) -> None:
        """What has no merged model, and where llm-compressor is not."""
        prompt_tuning(source)
        if not self.calibrates and self._rows is not None:
            raise LlmbenchError(f"--calibration-rows: format {self.name} is not calibrated. Leave it out")
        self._there = compressor.find(self._python)

    def room(self, source: Exportable, precision: str) -> int:
        """Less than the merged model."""
        return source.parameters * _PARAMETER

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """Has the merged model quantised into the folder, with its tokenizer beside it."""
        assert self._there is not None
        merged = material.model(precision)
        count = (self._rows or calibration.ROWS) if self.calibrates else 0
        self._drawn = calibration.drawn(material.source, material.tokenizer, count)
        group = group_of(merged) if self.grouped else 0
        request = {
            "model": str(merged), "output": str(folder), "scheme": self.name, "group": group, "rows": self._drawn.rows,
            "trust_remote_code": material.source.spec.trust_remote_code,
        }  # fmt: skip
        compressor.run(self._there, "quantise", request, material.work, material.say)
        noted = folder / "compressor.json"
        self._made = {"group": group, "versions": json.loads(noted.read_text(encoding="utf-8"))}
        noted.unlink()
        material.tokenizer.save_pretrained(folder)

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """By transformers in llm-compressor's environment, which tells all logits, and by vLLM, which is to serve it."""
        assert self._there is not None and self._drawn is not None
        folders = {"merged": material.model(precision), "exported": folder}
        said = {name: material.work / f"said-{name}" for name in folders}
        for place in said.values():
            place.mkdir(exist_ok=True)
        request = {
            "folders": [[str(folders[name]), str(said[name])] for name in folders],
            "dtype": precision,
            "sequences": [list(ids) for ids in probes.sequences],
            "prompts": list(probes.prompts),
            "new_tokens": probes.new_tokens,
            "texts": [[one.text, one.begins] for one in probes.texts],
            "held_out": self._drawn.held_out,
            "trust_remote_code": material.source.spec.trust_remote_code,
        }
        compressor.run(self._there, "ask", request, material.work, material.say)
        merged, exported = (_heard(said[name], len(probes.sequences), folders[name]) for name in ("merged", "exported"))
        material.say("Starting vLLM on it")
        check, figures, answers = served.check(folder, material.reference(), self.allowance, precision)
        more = self._figures(material, merged, exported) | ({"served": figures} if figures else {})
        more["answers"] = _beside(material, merged[0].greedy, exported[0].greedy, answers)
        more["layers"] = _layers(said["exported"])
        return replace(exported[0], further=(self._apart(more["layers"]), check, _cost(more)), figures=more)

    def expected_bytes(self, material: Material, precision: str) -> int:
        """So many bits for each weight of a linear layer but the head, its scales, and two bytes for all else."""
        return bytes_of(material.model(precision), bits=self.bits, group=self._made["group"], zeros=self.name == "awq")

    def weight_files(self, folder: Path) -> list[Path]:
        """The shards."""
        return sorted(folder.glob("*.safetensors"))

    def tolerance(self, precision: str) -> Allowance:
        """As measured; see docs/decisions/035."""
        return self.allowance

    def usage(self, name: str, precision: str) -> str:
        """vLLM."""
        return f"```bash\nvllm serve {name} --dtype {precision}\n```"

    def _apart(self, layers: dict[str, float]) -> Compared:
        """A matrix that is wrong may hardly show in logits: each part of a layer is looked at alone."""
        if not layers:
            return Compared("layers", None, "the model has no layers of parts to look at")
        worst = max(layers, key=lambda name: layers[name])
        said = f"off by {layers[worst]:.1%} at most, at {worst}, of {len(layers)} parts"
        return Compared("layers", layers[worst] <= self.apart, said, f"{self.apart:.0%}")

    def _figures(self, material: Material, merged: _Said, exported: _Said) -> dict[str, Any]:
        """What quantising cost, beside what merging did."""
        assert self._drawn is not None
        trained = Answers([torch.from_numpy(one) for one in material.reference().heard.logits], [])
        one, other = (Answers([torch.from_numpy(values) for values in said[0].logits], []) for said in (merged, exported))
        far = {"merged": distances.distance(trained, one), "from_merged": distances.distance(one, other)}
        found: dict[str, Any] = {name: {"kl": value.kl, "logit": value.logit} for name, value in far.items()}
        rows = self._drawn.rows
        found["calibration"] = {"rows": len(rows), "of": self._drawn.known, "tokens": sum(map(len, rows))}
        found["held_out"] = {"rows": len(self._drawn.held_out), "merged": merged[1], "exported": exported[1]}
        return found | {"compressor": self._made}


class Int8(_Quantised):
    """Weights and activations in 8 bits, by GPTQ."""

    name, bits, grouped, calibrates = "int8", 8, False, True
    allowance, apart = EIGHT_BITS, 0.2


class W4a16(_Quantised):
    """Weights in 4 bits, by GPTQ."""

    name, bits, grouped, calibrates = "w4a16", 4, True, True
    allowance, apart = FOUR_BITS, 0.5


class Awq(_Quantised):
    """Weights in 4 bits with zero points, by AWQ."""

    name, bits, grouped, calibrates = "awq", 4, True, True
    allowance, apart = FOUR_BITS, 0.5


class Fp8(_Quantised):
    """Weights and activations in 8-bit floats, which needs no calibration."""

    name, bits, grouped, calibrates = "fp8", 8, False, False
    allowance, apart = EIGHT_BITS, 0.2


def _heard(said: Path, count: int, folder: Path) -> _Said:
    """What `compressor_program.py` wrote of a folder."""
    found = json.loads((said / "answers.json").read_text(encoding="utf-8"))
    heard = Heard(
        logits=[np.load(said / f"logits-{i}.npy", allow_pickle=False) for i in range(count)],
        greedy=found["greedy"],
        tokens=found["tokens"],
        stops=frozenset(found["stops"]),
        template=found["template"],
        tied=tied_on_disk(folder),
    )
    return heard, found["loss"]


def _layers(said: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((said / "answers.json").read_text(encoding="utf-8"))["layers"]
    return found


def _cost(figures: dict[str, Any]) -> Compared:
    """What the quantised model lost, for people; nothing that could fail."""
    held_out, far = figures["held_out"], figures["from_merged"]
    said = f"KL {far['kl']:.1e} from the merged model"
    if held_out["merged"] is not None:
        rows, merged, exported = held_out["rows"], held_out["merged"], held_out["exported"]
        said += f"; loss on {rows} held-out rows {exported:.4f} nats a token, {merged:.4f} before"
    return Compared("cost", None, said)


def _beside(material: Material, *answers: list[list[int]]) -> list[dict[str, str]]:
    """The prompts, and what the trained model, the merged one, the exported one and vLLM wrote after each."""
    reference, decode = material.reference(), material.tokenizer.decode
    names, stops = ("trained", "merged", "exported", "served"), reference.heard.stops
    found = []
    for i, (ids, n) in enumerate(zip(reference.probes.sequences, reference.probes.prompts, strict=True)):
        row = {"prompt": str(decode(ids[:n]))}
        for name, each in zip(names, (reference.heard.greedy, *answers), strict=True):
            if each:
                row[name] = str(decode(served.until(each[i], stops)))
        found.append(row)
    return found


def bytes_of(folder: Path, *, bits: int, group: int = 0, zeros: bool = False) -> int:
    """Bytes of a merged model's weights once its linear layers are in fewer bits.

    Args:
        folder: the merged model's.
        bits: of a weight.
        group: weights that share a scale; 0 for one scale a row.
        zeros: whether each scale has a zero point of as many bits.
    """
    total = 0.0
    for name, shape in _shapes(folder):
        count = int(np.prod(shape))
        if _is_linear(name, shape):
            scales = count / group if group else shape[0]
            total += count * bits / 8 + scales * (_PARAMETER + (bits / 8 if zeros else 0))
        else:
            total += count * _PARAMETER
    return int(total)


def group_of(folder: Path) -> int:
    """As many weights as share a scale."""
    widths = {shape[1]: name for name, shape in _shapes(folder) if _is_linear(name, shape)}
    for group in _GROUPS:
        if all(width % group == 0 for width in widths):
            return group
    width = next(width for width in widths if width % _GROUPS[-1])
    raise LlmbenchError(
        f"{widths[width]} has rows of {width} weights, which are not whole groups of {_GROUPS[-1]}, so 4 bits do not fit it. "
        "Take --format int8 or fp8"
    )


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether it is the matrix of a linear layer, other than the head."""
    return len(shape) == 2 and name.endswith(".weight") and "embed" not in name and "lm_head" not in name


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each tensor of a model's folder."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                yield name, tuple(file.get_slice(name).get_shape())
