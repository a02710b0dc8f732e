"""What a checkpoint holds beside the weights: optimizer, scheduler, random numbers and the running loss, without pickle.

transformers writes these with `torch.save`. Here tensors go to state.safetensors and all else to state.json, where
`{"tensor": name}` stands for a tensor and `{"pairs": [...]}` for a dict, whose keys JSON would turn into text.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from llmbench import written
from llmbench.recipe import TrainRecipe
from llmbench.runs import checkpoints
from llmbench.runs.best import goal
from llmbench.training.distributed import sharding
from llmbench.training.loop.evaluation import Measured
from llmbench.training.loop.random_state import random_state, restore_random_state
from llmbench.training.loop.watch import Watched

__all__ = ["WholeCheckpoints", "read", "sync", "write"]


class WholeCheckpoints(Watched, Measured):
    """Stands before one of TRL's trainers: checkpoints that are whole or not there, without pickle, and no telemetry.

    With it come what `Watched` and `Measured` do: no step that is not finite, and evaluations that disturb nothing.
    """

    recipe: TrainRecipe
    paused: float
    """Seconds spent on evaluation and checkpoints, which are no part of the training's speed."""
    args: Any
    model: Any
    state: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    _tr_loss: torch.Tensor
    _globalstep_last_logged: int
    gathered: dict[str, torch.Tensor] | None = None
    """What is trained, put together for a checkpoint, of a model that is in parts."""

    def train_from(self, checkpoint: Path | None, steps: int) -> None:
        """Trains to the end, from the start or from a checkpoint.

        A checkpoint of the last step, or of the step that early stopping ended at, is loaded and nothing is trained:
        transformers would take one step more.
        """
        if checkpoint is None:
            self.train()  # type: ignore[attr-defined]
            return
        state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        judged = goal(self.recipe.training)
        if state.global_step < steps and not (judged is not None and judged.exhausted(state.log_history)):
            self.train(resume_from_checkpoint=str(checkpoint))  # type: ignore[attr-defined]
            return
        self._load_from_checkpoint(str(checkpoint))
        state.max_steps = steps
        self.state = state

    def stopped_early(self) -> bool:
        """Whether the evaluations said that the training gains no more."""
        judged = goal(self.recipe.training)
        return judged is not None and judged.exhausted(self.state.log_history)

    def keep_best(self) -> int | None:
        """Takes up the weights of the best evaluation, where the recipe asks for them; returns its step."""
        judged = goal(self.recipe.training)
        best = judged.best(self.state.log_history) if judged is not None else None
        if best is None or not self.recipe.training.load_best_model_at_end:
            return None
        if best[0] != self.state.global_step:
            self._load_from_checkpoint(str(Path(str(self.args.output_dir)) / f"checkpoint-{best[0]}"))
        return best[0]

    def _send_telemetry(self) -> None:
        """TRL would report the training to its makers; llmbench reports nothing to anybody."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes a checkpoint beside the others and renames it when it is whole."""
        start = time.perf_counter()
        self.refuse_unusable_weights()
        folder = Path(str(self.args.output_dir))
        self.gather()
        if self.ranks.first:
            self._write_checkpoint(folder, model, trial)
        else:
            transformers.Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]  # gives the first its part
        self.ranks.wait()
        self.paused += time.perf_counter() - start

    def gather(self) -> None:
        """Puts what is trained together, where the model is in parts, for what is saved next."""
        self.gathered = sharding.gathered(self.model) if sharding.in_parts(self.model) else None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, self.gathered or state_dict)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if sharding.in_parts(self.model):
            sharding.load_adapter(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _write_checkpoint(self, folder: Path, model: Any, trial: Any) -> None:
        part = folder / ".part"
        written.begin(part)
        self.args.output_dir = str(part)
        try:
            transformers.Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]
            [whole] = part.glob("checkpoint-*")
            (whole / "training_args.bin").unlink()  # a pickle, which nobody reads: the recipe says it all
            checkpoints.seal(whole)
            sync(whole)
            checkpoints.remove(folder / whole.name)
            whole.replace(folder / whole.name)
            _sync_entry(folder)
        finally:
            self.args.output_dir = str(folder)
            written.drop(part)
        judged = goal(self.recipe.training)
        best = judged.best(self.state.log_history) if judged is not None else None
        for old in checkpoints.every(folder)[: -self.recipe.training.save_total_limit]:
            if best is None or checkpoints.step_of(old) != best[0]:
                checkpoints.remove(old)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        own = self.optimizer.state_dict()
        own = sharding.gathered_optimizer(own) if sharding.is_sharded(self.model) else own
        state = {"optimizer": own, "scheduler": self.lr_scheduler.state_dict()}
        if self.ranks.first:
            write(Path(output_dir), "optimizer", state)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        if folder is not None:
            state = read(Path(folder), "optimizer")
            own = state["optimizer"]
            self.optimizer.load_state_dict(
                sharding.restore_optimizer(self.optimizer, own) if sharding.is_sharded(self.model) else own
            )
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _save_rng_state(self, output_dir: str) -> None:
        own = random_state()
        others = self.ranks.gather(own)[1:]
        loss = self._tr_loss if self.ranks.alone else self.ranks.total(float(self._tr_loss))[0] / self.ranks.world
        if self.ranks.first:
            write(Path(output_dir), "random", own | ({"others": others} if others else {}))
            write(Path(output_dir), "running", {"loss": torch.as_tensor(loss), "logged": self._globalstep_last_logged})

    def _load_rng_state(self, folder: str | None) -> None:
        if folder is not None:
            self._restore_random(read(Path(folder), "random"))
            running = read(Path(folder), "running")
            self._tr_loss.copy_(running["loss"])  # the loss since the last log step, so that its mean is over all of them
            self._globalstep_last_logged = running["logged"]

    def _restore_random(self, state: dict[str, Any]) -> None:
        """This process's own numbers; those of one that was not there when the checkpoint was written begin with the step."""
        every = [state, *state.get("others", [])]
        if self.ranks.rank < len(every):
            restore_random_state(every[self.ranks.rank])
        else:
            transformers.set_seed((self.recipe.training.seed + 7919 * self.state.global_step + self.ranks.rank) % 2**32)

    def _save_scaler(self, output_dir: str) -> None:
        if self.ranks.first and getattr(self.accelerator, "scaler", None) is not None:
            write(Path(output_dir), "scaler", self.accelerator.scaler.state_dict())

    def _load_scaler(self, folder: str | None) -> None:
        if folder is not None and getattr(self.accelerator, "scaler", None) is not None:
            self.accelerator.scaler.load_state_dict(read(Path(folder), "scaler"))


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


def sync(folder: Path) -> None:
    """Flushes every file of a folder to disk, so that a rename cannot overtake its content."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync_entry(folder: Path) -> None:
    """Flushes a folder's list of names, so that a rename in it outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
