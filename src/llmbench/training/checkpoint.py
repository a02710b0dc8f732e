"""What a checkpoint holds beside the weights: optimizer, scheduler and random numbers, without pickle.

transformers writes these with `torch.save`. Here tensors go to state.safetensors and all else to state.json, where
`{"tensor": name}` stands for a tensor and `{"pairs": [...]}` for a dict, whose keys JSON would turn into text.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

__all__ = ["random_state", "read", "restore_random_state", "write"]


def write(folder: Path, name: str, value: Any) -> None:
    """Writes nested dicts, lists, numbers, text and tensors to NAME.json and NAME.safetensors."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _packed(value, tensors)
    if tensors:
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")


def read(folder: Path, name: str) -> Any:
    """What `write` wrote; tuples come back as lists."""
    path = folder / f"{name}.safetensors"
    tensors = load_file(path) if path.exists() else {}
    return _unpacked(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)


def random_state() -> dict[str, Any]:
    """The state of every random number generator that a training draws from."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Takes up the state that `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case torch.Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        case dict():
            return {"pairs": [[key, _packed(item, tensors)] for key, item in value.items()]}
        case list() | tuple():
            return [_packed(item, tensors) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    match value:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"pairs": list(pairs)}:
            return {key: _unpacked(item, tensors) for key, item in pairs}
        case list():
            return [_unpacked(item, tensors) for item in value]
    return value
