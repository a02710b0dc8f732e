"""Names and shapes of the tensors in a safetensors file, read from its header without any of the weights."""

from __future__ import annotations

import json
from pathlib import Path

from llmbench.errors import EngineError

__all__ = ["Tensors", "read_header"]

Tensors = dict[str, tuple[int, ...]]
"""Name -> shape."""

_MAX_HEADER = 100_000_000
"""The format's own limit, in bytes."""


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
