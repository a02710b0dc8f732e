"""Names, shapes and kinds of the tensors in a safetensors file, read from its header; and whether their numbers can be used."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench.errors import EngineError

__all__ = ["FLOATS", "LARGEST", "Tensor", "Tensors", "read_header", "read_numbers"]


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor. `kind` is the format's name of its numbers, such as BF16."""

    shape: tuple[int, ...]
    kind: str


Tensors = dict[str, Tensor]
"""By name."""

LARGEST = 65504
"""float16's largest number: what is beyond it becomes infinite in some of the kinds that vLLM computes in."""
FLOATS = {
    "BF16": ("<u2", 0x477F),
    "F16": ("<u2", 0x7BFF),
    "F32": ("<u4", 0x477F_E000),
    "F64": ("<u8", 0x40EF_FC00_0000_0000),
}
"""How each kind of IEEE 754 is stored, and the bits of the largest number that can be used, which also sort below infinity."""

_MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Of one number; kinds that are not named have sizes that nothing here depends on."""
_PIECE = 2**24
"""Numbers looked at together, so that a large adapter needs no more memory than this."""


def read_header(path: Path) -> Tensors:
    """Reads the header (https://huggingface.co/docs/safetensors): 8 bytes of length, then JSON.

    Raises:
        EngineError: the file is cut off or no safetensors file, or its header contradicts itself.
    """
    try:
        size = path.stat().st_size
        length, header = _header(path)
        tensors = {name: _tensor(name, entry) for name, entry in header.items() if name != "__metadata__"}
        if size != 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name in tensors), default=0):
            raise ValueError("it is cut off")
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise EngineError(f"{path} is not a complete safetensors file ({error}). Save or copy it again") from error


def read_numbers(path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Looks at every number of a file whose header was read: (name, all can be used, all are zero).

    A number can be used when it is finite and within LARGEST. Kinds that are none of FLOATS are not looked at.
    """
    import numpy as np

    length, header = _header(path)
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in FLOATS:
            continue
        start, end = entry["data_offsets"]
        stored, largest = FLOATS[entry["dtype"]]
        count = (end - start) // np.dtype(stored).itemsize
        numbers = np.memmap(path, stored, "r", 8 + length + start, (count,)) if count else np.zeros(0, stored)
        usable = zero = True
        for first in range(0, count, _PIECE):
            piece = numbers[first : first + _PIECE] << 1  # without the sign's bit, the bits of larger numbers are larger
            usable = usable and bool(piece.max() <= largest << 1)
            zero = zero and not bool(piece.any())
        yield name, usable, zero


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MAX_HEADER, path.stat().st_size - 8):
            raise ValueError("the header is longer than the file")
        return length, json.loads(file.read(length))


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    shape, kind, (start, end) = entry["shape"], entry["dtype"], entry["data_offsets"]
    if not isinstance(kind, str) or not all(type(n) is int and n >= 0 for n in (*shape, start, end)) or start > end:
        raise ValueError(f"the header's entry for {name[:100]!r} is malformed")
    if kind in _BYTES and math.prod(shape) * _BYTES[kind] != end - start:
        raise ValueError(f"{name[:100]!r} does not have as many bytes as its shape needs")
    return Tensor(tuple(shape), kind)
