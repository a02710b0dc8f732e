"""What is exported: a finished run's result or a checkpoint, found and looked at before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import provenance
from llmbench.errors import LlmbenchError, RunError
from llmbench.estimate import shapes
from llmbench.recipe import DataSpec, ModelSpec, TrainingSpec
from llmbench.runs import Run, best, checkpoints

__all__ = ["Exportable", "find"]

_ADAPTER = "adapter_config.json"
_MOVED = ("pissa", "olora")
"""Starts that are taken out of the base's weights; what of them a checkpoint lacks only the end of a training puts back."""


@dataclass(frozen=True)
class Exportable:
    """What is exported."""

    run: Run
    folder: Path
    """With `adapter_config.json`, or with the whole model's `config.json`; the run's own, or a checkpoint's."""
    step: int | None
    """The checkpoint's; None for what the training left."""
    base: Path | None
    """The base model's folder; None where the training began with random weights."""
    spec: ModelSpec
    """The base as the recipe names it."""
    adapts: bool
    """Whether it is an adapter for the base."""

    @property
    def label(self) -> str:
        """As lines and names call it: `sft-lora`, or `sft-lora-step-40`."""
        return self.run.name if self.step is None else f"{self.run.name}-step-{self.step}"

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the model that results: the base's, or the trained model's own."""
        found: dict[str, Any] = json.loads(((self.base if self.adapts else self.folder) or self.folder).joinpath(
            "config.json").read_text(encoding="utf-8"))  # fmt: skip
        return found

    @property
    def parameters(self) -> int:
        """About how many parameters the whole model has, read from its configuration and the heads of its files."""
        return shapes.of(self.base if self.adapts else self.folder).parameters

    @property
    def peft(self) -> dict[str, Any]:
        """adapter_config.json; empty for a whole model."""
        path = self.folder / _ADAPTER
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def template_text(self) -> str | None:
        """The chat template that the recipe names in place of the base's own; None where it names none."""
        if self.run.recipe["data"].get("chat_template") is None:
            return None
        return DataSpec.model_validate(self.run.recipe["data"]).template()


def find(run: Run, checkpoint: str | None = None) -> Exportable:
    """What there is to export of a run.

    Args:
        run: any; without `checkpoint` a finished one.
        checkpoint: `best`, `last` or a step; None for what the training left.

    Raises:
        LlmbenchError: there is nothing of the kind, it is damaged, or the base is not here.
    """
    spec = ModelSpec.model_validate(run.recipe["model"])
    _check_lock(run)
    if checkpoint is None:
        folder, step = _result(run), None
    else:
        folder = _checkpoint(run, checkpoint)
        step = checkpoints.step_of(folder)
    adapts = (folder / _ADAPTER).is_file()
    start = (run.recipe.get("lora") or {}).get("init_lora_weights")
    if step is not None and adapts and isinstance(start, str) and start.startswith(_MOVED):
        raise LlmbenchError(
            f"{folder} was trained against weights from which {start} had taken its initial adapter, and only the end of a "
            "training restores them. "
            "Export the finished run: leave out --checkpoint"
        )
    if run.recipe["method"] == "reward":
        raise LlmbenchError(
            f"run {run.name} trained a reward model, which scores answers and writes none, so it cannot be exported"
        )
    base = _base(run, spec, adapts)
    return Exportable(run, folder, step, base, spec, adapts)


def _check_lock(run: Run) -> None:
    """Raises RunError where the note of what a run was trained with is not whole."""
    try:
        str(run.lock["hardware"]["dtype"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        path, why = run.folder / "lock.json", "missing" if isinstance(error, FileNotFoundError) else str(error)[:100]
        raise RunError(
            f"Run {run.name} is damaged: {path} cannot be read ({why}). Restore the file, or train it again with --overwrite"
        ) from error


def _result(run: Run) -> Path:
    if run.state != "finished":
        raise RunError(
            f"Run {run.name} is {run.state}, so it has no result yet. Finish it with --resume, or export a checkpoint: "
            "--checkpoint last"
        )
    for folder, file in ((run.adapter, _ADAPTER), (run.model, "config.json")):
        if (folder / file).is_file():
            return folder
    raise RunError(f"Run {run.name}: both {run.adapter} and {run.model} are missing. Train it again with --overwrite")


def _checkpoint(run: Run, wanted: str) -> Path:
    """The folder of a checkpoint that is whole."""
    known = checkpoints.every(run.checkpoints)
    if not known:
        raise RunError(f"Run {run.name} has no checkpoints. Leave out --checkpoint to export its result")
    if wanted == "last":
        found, _ = checkpoints.choose(run.checkpoints)
        assert found is not None
        return found
    if wanted == "best":
        step = _best_step(run)
    elif wanted.isdecimal():
        step = int(wanted)
    else:
        raise LlmbenchError(f"--checkpoint {wanted}: say best, last, or the step of a checkpoint, such as 40")
    found, _ = checkpoints.choose(run.checkpoints, step)
    assert found is not None
    return found


def _best_step(run: Run) -> int:
    judged = best.goal(TrainingSpec.model_validate(run.recipe["training"]))
    judged = judged or best.Goal("eval_loss", False)
    found = judged.best(run.metrics())
    if found is None:
        raise RunError(
            f"Run {run.name} has no evaluation ({judged.metric}), so none of its checkpoints is the best. "
            "Say --checkpoint last, or a step"
        )
    return found[0]


def _base(run: Run, spec: ModelSpec, adapts: bool) -> Path | None:
    """The base's folder, and whether it is the one that was trained on."""
    from llmbench.training.loading.model import local_folder  # loads torch

    if spec.config is not None:
        return None
    try:
        base = local_folder(spec)
    except LlmbenchError:
        if adapts:
            raise
        return None  # a whole model needs it for one check only, which says that it was not here
    known, here = run.lock.get("model", {}).get("fingerprint") or {}, provenance.fingerprint(base)
    for part in ("weights", "tokenizer"):
        if adapts and part in known and known[part] != here.get(part):
            raise LlmbenchError(
                f"{spec.model_name_or_path}: its {part} changed since run {run.name} was trained "
                f"({str(known[part])[:12]} then, {str(here.get(part))[:12]} now), so the adapter does not fit it. "
                "Put the old base back, or train again"
            )
    return base if adapts or all(known.get(part) == here.get(part) for part in ("weights",)) else None
