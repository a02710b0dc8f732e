"""Names and shapes of the tensors in a safetensors file, read from its header; and whether their numbers are numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llmbench.errors import EngineError

__all__ = ["Tensors", "read_header", "read_numbers"]

Tensors = dict[str, tuple[int, ...]]
"""Name -> shape."""

_MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""

_EXPONENTS = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F80_0000), "F64": ("<u8", 0x7FF0 << 48)}
"""How each kind of number is stored, and the bits that are all set in infinities and in what is no number (IEEE 754)."""
_PIECE = 2**24
"""Numbers looked at together, so that a large adapter needs no more memory than this."""


def read_header(path: Path) -> Tensors:
    """Reads the header (https://huggingface.co/docs/safetensors): 8 bytes of length, then JSON.

    Raises:
        EngineError: the file is cut off or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if size != 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0):
            raise ValueError("it is cut off")
        return {name: tuple(int(n) for n in entry["shape"]) for name, entry in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineError(f"{path} is no whole safetensors file ({error}). Save or copy it again") from error


def read_numbers(path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Looks at every number of a file whose header was read: (name, all are finite, all are zero).

    Numbers of other kinds than the four of IEEE 754 count as finite.
    """
    import numpy as np

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind, exponent = _EXPONENTS.get(entry["dtype"], ("u1", 0))
        numbers = data[start:end].view(kind)
        finite = zero = True
        for first in range(0, len(numbers), _PIECE):
            piece = numbers[first : first + _PIECE]
            finite = finite and not (exponent and bool(((piece & exponent) == exponent).any()))
            zero = zero and not bool((piece << 1).any())  # the sign's bit does not count
        yield name, finite, zero
