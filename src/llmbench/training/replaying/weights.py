"""Trained weights of two runs, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from llmbench.runs import Run, checkpoints

__all__ = ["WeightPair", "comparable", "weights"]

_FILES = ("adapter_model*.safetensors", "model*.safetensors")


@dataclass(frozen=True)
class WeightPair:
    """The weights of two folders."""

    what: str
    """`adapter`, `model`, or `checkpoint-8`."""
    tensors: int
    """How many both have."""
    differing: int
    """How many of these differ in a bit, a shape or a type."""
    largest: float
    """The largest distance of a tensor: the root of its squared differences, over that of its recorded values; infinite for
    tensors of other shapes, and where only zeros were recorded."""
    worst: str | None
    """The tensor of the largest distance."""
    unpaired: tuple[str, ...]
    """Tensors that only one of the two has."""

    @property
    def same_bits(self) -> bool:
        """Whether nothing differs."""
        return not self.differing and not self.unpaired

    def as_json(self) -> dict[str, Any]:
        """As plain values; null for an infinite distance, which JSON has no number for."""
        return asdict(self) | {"largest": self.largest if math.isfinite(self.largest) else None}


def comparable(recorded: Run, replayed: Run, step: int, *, whole: bool) -> tuple[str, Path, Path] | None:
    """What of two runs holds the weights after the same step: name and the two folders; None where the recording has none.

    Args:
        recorded: the recording.
        replayed: its repetition, which ended after `step`.
        step: the last that was replayed.
        whole: whether both were trained to their end.
    """
    if whole:
        for name in ("adapter", "model"):
            if (recorded.folder / name).is_dir() and (replayed.folder / name).is_dir():
                return name, recorded.folder / name, replayed.folder / name
    for path in reversed(checkpoints.every(replayed.checkpoints)):
        other = recorded.checkpoints / path.name
        if checkpoints.step_of(path) <= step and other.is_dir() and checkpoints.fault(other) is None:
            return path.name, other, path
    return None


def weights(what: str, recorded: Path, replayed: Path) -> WeightPair:
    """Compares the trained weights in two folders; two bits that differ are a difference."""
    one, other = (dict(_tensors(folder)) for folder in (recorded, replayed))
    differing, largest, worst = 0, 0.0, None
    for name in sorted(one.keys() & other.keys()):
        a, b = (_read(side[name], name) for side in (one, other))
        if a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bits(a), _bits(b)):
            continue
        differing += 1
        distance = float("inf")
        if a.shape == b.shape:
            size = float(a.double().norm())
            distance = float((a.double() - b.double()).norm()) / size if size else float("inf")
        if distance >= largest:
            largest, worst = distance, name
    return WeightPair(
        what, len(one.keys() & other.keys()), differing, largest, worst, tuple(sorted(one.keys() ^ other.keys()))
    )  # fmt: skip


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def _tensors(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each tensor in a folder's weights, with its file; they are read one by one, since a model may fill the memory."""
    for pattern in _FILES:
        for path in sorted(folder.glob(pattern)):
            with safe_open(path, "pt") as file:
                yield from ((name, path) for name in list(file.keys()))
