"""lock.json: everything that a result depends on, by content."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmbench import data, own_code, provenance
from llmbench.data import sources
from llmbench.errors import RunError
from llmbench.hardware import processor
from llmbench.recipe import DataSource, ModelSpec, TrainRecipe
from llmbench.runs import Run
from llmbench.training.loading.model import Loaded, local_folder

__all__ = ["Grounds", "base", "of", "row_hashes", "settled", "write"]

_ENVIRONMENT = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING",
)  # fmt: skip
"""Variables that change in which order, or with which instructions, numbers are added."""
_SETTLED = ("padding_free", "fused_lora", "torch_compile", "gradient_checkpointing")
"""What `training.performance` may choose by the machine."""
_UNLEARNED = ("roles", "source", "row")
"""Columns of prepared rows that say where a row comes from; no step reads them."""
_BATCH = 1000


@dataclass(frozen=True)
class Grounds:
    """What of a model a lock records, whether the model is loaded or not."""

    folder: Path | None
    """Where the base is; None for random weights."""
    device: str
    dtype: torch.dtype
    template: str | None
    """The chat template in use, as text."""

    @classmethod
    def of(cls, loaded: Loaded) -> Grounds:
        """Those of a model in memory."""
        return cls(loaded.folder, loaded.device, loaded.dtype, getattr(loaded.tokenizer, "chat_template", None))


def of(recipe: TrainRecipe, grounds: Grounds) -> dict[str, Any]:
    """The lock of a run before its rows are read: seed, versions, hardware, and the sha256 of data, model and tokenizer."""
    files = {"train": recipe.data.train, "eval": recipe.data.eval}
    asked = recipe.evaluation.questions if recipe.evaluation is not None else None
    return {
        "seed": recipe.training.seed,
        "versions": provenance.versions() | {"llmbench_code": provenance.code()},
        "hardware": hardware(grounds),
        "numerics": _numerics(grounds),
        "data": {part: [_source(source) for source in sources] for part, sources in files.items()},
        "model": base(recipe, grounds.folder),
        "template": hashlib.sha256(grounds.template.encode()).hexdigest() if grounds.template else None,
        "questions": None if asked is None else {"path": str(asked), "sha256": provenance.file_hash(Path(asked))},
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
    place = {"url": source.url} if source.url is not None else {"path": str(source.path)}
    listed = [{"name": _name(path, source), "sha256": sha} for path, sha in zip(files, hashes, strict=True)]
    found = {**place, "sha256": together, "bytes": sum(path.stat().st_size for path in files), "files": listed}
    return found if source.query is None else found | {"query": source.query}


def _name(path: Path, source: DataSource) -> str:
    """A file by its path in the folder that the recipe names."""
    root = source.path
    return path.relative_to(root).as_posix() if root is not None and root.is_dir() else path.name


def _method(recipe: TrainRecipe) -> dict[str, Any]:
    """What a method reads beside the data: files of reward functions by their content, a teacher by its fingerprint."""
    if recipe.grpo is not None:
        files = [own_code.file(reward.function) for reward in recipe.grpo.reward_functions if reward.function]
        return {"functions": {str(path): provenance.file_hash(path) for path in files}}
    if recipe.distillation is not None:
        spec = ModelSpec(**recipe.distillation.teacher.model_dump())
        return {"teacher": provenance.fingerprint(local_folder(spec))}
    return {}


def write(run: Run, recipe: TrainRecipe, loaded: Loaded, rows: data.Rows, *, resumed_at: int | None) -> None:
    """Writes the lock of a run that begins; of one that goes on, makes sure that all it depends on is still the same.

    Args:
        run: whose lock.
        recipe: with nothing left open.
        loaded: the model with its tokenizer.
        rows: what is trained and evaluated on.
        resumed_at: the step that it is continued from, which the lock keeps with the versions and the hardware of then.

    Raises:
        RunError: data, model or what its method reads changed since it began.
    """
    new = json.loads(json.dumps(of(recipe, Grounds.of(loaded)) | {"rows": row_hashes(rows), "settled": settled(recipe)}))
    if resumed_at is None:
        run.write_lock(new)
        return
    old = run.lock
    changed = [part for part in ("data", "rows", "model", "method") if not _agrees(old.get(part, {}), new[part])]
    if changed:
        raise RunError(
            f"Run {run.name} cannot continue: its {' and '.join(changed)} changed since it began "
            f"(see {run.folder / 'lock.json'}). Undo these changes, or start again with --overwrite."
        )
    others = {part: new[part] for part in ("versions", "hardware", "numerics", "settled") if old.get(part) != new[part]}
    run.write_lock(old | {"resumed": [*old.get("resumed", []), {"step": resumed_at, **others}]})


def _agrees(old: Any, new: Any) -> bool:
    """Whether all that an older lock says still holds; what it has no word for is no difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(_agrees(value, new.get(key)) for key, value in old.items() if (key, value) != ("path", "None"))
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_agrees, old, new))
    return bool(old == new)


def settled(recipe: TrainRecipe) -> dict[str, Any]:
    """What `training.performance` chose, so that a replay need not choose by another machine."""
    return {name: getattr(recipe.training, name) for name in _SETTLED}


def row_hashes(rows: data.Rows) -> dict[str, Any]:
    """Number and sha256 of the prepared rows of each part: what is learned, whatever it was made from.

    The same files with another template, tokenizer, `max_length` or share held out give other rows; a hub data set that changed
    under its name does too.
    """
    parts = {"train": rows.train, "eval": rows.eval}
    return {name: {"rows": len(part), "sha256": _rows_hash(part)} for name, part in parts.items() if part is not None}


def _rows_hash(rows: Any) -> str:
    digest = hashlib.sha256()
    names = sorted(name for name in rows.column_names if name not in _UNLEARNED)
    digest.update(json.dumps(names).encode())
    for table in rows.select_columns(names).with_format("arrow").iter(batch_size=_BATCH):
        for name in names:
            digest.update(_bytes(table.column(name)))
    return digest.hexdigest()


def _bytes(column: Any) -> bytes:
    """A column's values, whatever its buffers look like: token ids as int32 after the length of each row, all else as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type) and not column.null_count:
        lengths, values = pc.list_value_length(column), pc.list_flatten(column)
        joined: bytes = lengths.to_numpy().astype("<i4").tobytes() + values.to_numpy().astype("<i4").tobytes()
        return joined
    return json.dumps(column.to_pylist(), ensure_ascii=False, default=str).encode()


def base(recipe: TrainRecipe, folder: Path | None) -> dict[str, Any]:
    """What was started from: its name, revision and fingerprint; for random weights the configuration and the tokenizer.

    An adapter that is trained further is in it by the content of its files.
    """
    spec = recipe.model
    started = {} if recipe.adapter_name_or_path is None else {"adapter": _adapter(Path(recipe.adapter_name_or_path))}
    if folder is None:
        tokenizer = Path(spec.tokenizer) if spec.tokenizer else None
        fingerprint = provenance.fingerprint(tokenizer) if tokenizer else {}
        return {"name": None, "config": spec.config, "fingerprint": fingerprint, **started}
    commit = folder.name if folder.parent.name == "snapshots" else None
    return {
        "name": spec.model_name_or_path,
        "revision": commit or spec.revision,
        "fingerprint": provenance.fingerprint(folder),
        **started,
    }


def _adapter(folder: Path) -> dict[str, str]:
    files = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    return {name: provenance.file_hash(folder / name) for name in files if (folder / name).exists()}


def hardware(grounds: Grounds) -> dict[str, Any]:
    """The processor, the memory and the GPU that it ran on."""
    found: dict[str, Any] = {
        "device": grounds.device,
        "dtype": str(grounds.dtype).removeprefix("torch."),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if grounds.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def _numerics(grounds: Grounds) -> dict[str, Any]:
    """What else decides about the last bits: instructions, deterministic algorithms, precision of products, variables."""
    found: dict[str, Any] = {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }
    if grounds.device == "cuda":
        found["cudnn_deterministic"] = torch.backends.cudnn.deterministic
        found["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    return found


def _processor() -> str:
    return processor().get("model name") or platform.processor() or platform.machine()
