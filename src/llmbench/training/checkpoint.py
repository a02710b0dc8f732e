"""What a checkpoint holds beside the weights: optimizer, scheduler and random numbers, without pickle.

transformers writes these with `torch.save`. Here tensors go to state.safetensors and all else to state.json, where
`{"tensor": name}` stands for a tensor and `{"pairs": [...]}` for a dict, whose keys JSON would turn into text.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmbench.recipe import TrainRecipe

__all__ = [
    "WholeCheckpoints",
    "checkpoints",
    "last_checkpoint",
    "random_state",
    "read",
    "restore_random_state",
    "sync",
    "write",
]


class WholeCheckpoints:
    """Stands before one of TRL's trainers: checkpoints that are whole or not there, without pickle, and no telemetry."""

    recipe: TrainRecipe
    paused: float
    """Seconds spent on evaluation and checkpoints, which are no part of the training's speed."""
    args: Any
    optimizer: Any
    lr_scheduler: Any

    def _send_telemetry(self) -> None:
        """TRL would report the training to its makers; llmbench reports nothing to anybody."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes a checkpoint beside the others and renames it when it is whole."""
        start = time.perf_counter()
        folder = Path(str(self.args.output_dir))
        part = folder / ".part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        self.args.output_dir = str(part)
        try:
            transformers.Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]
            [whole] = part.iterdir()
            (whole / "training_args.bin").unlink()  # a pickle, which nobody reads: the recipe says it all
            sync(whole)
            shutil.rmtree(folder / whole.name, ignore_errors=True)
            whole.replace(folder / whole.name)
        finally:
            self.args.output_dir = str(folder)
            shutil.rmtree(part, ignore_errors=True)
        for old in checkpoints(folder)[: -self.recipe.training.save_total_limit]:
            shutil.rmtree(old)
        self.paused += time.perf_counter() - start

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
        write(Path(output_dir), "optimizer", state)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        if folder is not None:
            state = read(Path(folder), "optimizer")
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _save_rng_state(self, output_dir: str) -> None:
        write(Path(output_dir), "random", random_state())

    def _load_rng_state(self, folder: str | None) -> None:
        if folder is not None:
            restore_random_state(read(Path(folder), "random"))


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


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to continue from, or None."""
    found = checkpoints(folder)
    return found[-1] if found else None


def sync(folder: Path) -> None:
    """Flushes every file of a folder to disk, so that a rename cannot overtake its content."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
