"""lock.json: everything that a result depends on, by content."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from llmbench import own_code, provenance
from llmbench.data import sources
from llmbench.errors import RunError
from llmbench.hardware import processor
from llmbench.recipe import DataSource, ModelSpec, TrainRecipe
from llmbench.runs import Run
from llmbench.training.loading.model import Loaded, local_folder

__all__ = ["base", "of", "write"]


def of(recipe: TrainRecipe, loaded: Loaded) -> dict[str, Any]:
    """The lock of a run: seed, versions, hardware, and the sha256 of data, model and tokenizer."""
    files = {"train": recipe.data.train, "eval": recipe.data.eval}
    return {
        "seed": recipe.training.seed,
        "versions": provenance.versions(),
        "hardware": hardware(loaded),
        "data": {part: [_source(source) for source in sources] for part, sources in files.items()},
        "model": base(recipe, loaded),
        "method": _method(recipe),
    }


def _source(source: DataSource) -> dict[str, Any]:
    """Files by their content; a hub data set by its revision; generated lessons by what they follow from."""
    found = _origin(source)
    if source.formatting is None:
        return found
    return found | {
        "formatting": source.formatting,
        "formatting_sha256": provenance.file_hash(own_code.file(source.formatting)),
    }


def _origin(source: DataSource) -> dict[str, Any]:
    if source.lessons is not None:
        return {"lessons": source.lessons.model_dump()}
    if source.dataset is not None:
        return {"dataset": source.dataset, "name": source.name, "split": source.split, "revision": source.revision}
    files = sources.files(source)
    hashes = [provenance.file_hash(path) for path in files]
    together = hashes[0] if len(files) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    found = {"path": str(source.path), "sha256": together, "bytes": sum(path.stat().st_size for path in files)}
    return found if source.query is None else found | {"query": source.query}


def _method(recipe: TrainRecipe) -> dict[str, Any]:
    """What a method reads beside the data: files of reward functions by their content, a teacher by its fingerprint."""
    if recipe.grpo is not None:
        files = [own_code.file(reward.function) for reward in recipe.grpo.reward_functions if reward.function]
        return {"functions": {str(path): provenance.file_hash(path) for path in files}}
    if recipe.distillation is not None:
        spec = ModelSpec(**recipe.distillation.teacher.model_dump())
        return {"teacher": provenance.fingerprint(local_folder(spec))}
    return {}


def write(run: Run, recipe: TrainRecipe, loaded: Loaded, *, resume: bool) -> None:
    """Writes the lock of a run that begins; of one that goes on, makes sure that all it depends on is still the same.

    Raises:
        RunError: they are not.
    """
    new = json.loads(json.dumps(of(recipe, loaded)))
    if resume:
        changed = [part for part in ("data", "model", "method") if run.lock.get(part, {}) != new[part]]
        if changed:
            raise RunError(
                f"Run {run.name} cannot continue: its {' and '.join(changed)} changed since it began "
                f"(see {run.folder / 'lock.json'}). Undo these changes, or start again with --overwrite."
            )
        return
    run.write_lock(new)


def base(recipe: TrainRecipe, loaded: Loaded) -> dict[str, Any]:
    """What was started from: its name, revision and fingerprint; for random weights the configuration and the tokenizer."""
    spec = recipe.model
    if loaded.folder is None:
        tokenizer = Path(spec.tokenizer) if spec.tokenizer else None
        return {"name": None, "config": spec.config, "fingerprint": provenance.fingerprint(tokenizer) if tokenizer else {}}
    commit = loaded.folder.name if loaded.folder.parent.name == "snapshots" else None
    return {
        "name": spec.model_name_or_path,
        "revision": commit or spec.revision,
        "fingerprint": provenance.fingerprint(loaded.folder),
    }


def hardware(loaded: Loaded) -> dict[str, Any]:
    """The processor, the memory and the GPU that it ran on."""
    found: dict[str, Any] = {
        "device": loaded.device,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if loaded.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def _processor() -> str:
    return processor().get("model name") or platform.processor() or platform.machine()
