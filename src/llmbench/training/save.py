"""What a finished training leaves: `adapter/` in PEFT's format, or `model/`; whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import runs
from llmbench.errors import LlmbenchError
from llmbench.runs import Run
from llmbench.training import lock
from llmbench.training.checkpoint import sync

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["disk_errors", "result", "training_template"]


def training_template(tokenizer: Any) -> str | None:
    """TRL's version of a known chat template with `{% generation %}` markers, or None where the own one has to do."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    template = tokenizer.chat_template
    if not template or has_generation_markers(template):
        return None
    try:
        marked: str | None = get_training_chat_template(tokenizer)
    except ValueError:
        return None
    return marked


def result(model: Any, job: Job, run: Run) -> None:
    """Saves the adapter, or the model with its tokenizer when all parameters were trained.

    Raises:
        LlmbenchError: the disk is full; nothing half-written is left.
    """
    recipe = job.recipe
    target = run.adapter if recipe.lora is not None else run.model
    part = run.folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        if recipe.lora is not None:
            _adapter(model, job, part, run)
        else:
            model.save_pretrained(part, max_shard_size="5GB")
            job.loaded.tokenizer.save_pretrained(part)
            manifest = _manifest(job, run) | {"fingerprint": runs.fingerprint(part)}
            (part / "llmbench.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        sync(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)


def _adapter(model: Any, job: Job, folder: Path, run: Run) -> None:
    """PEFT's own files, with the base called as the recipe calls it and not by a path of this machine."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.recipe.model.model_name_or_path
    config["revision"] = job.recipe.model.revision
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "llmbench.json").write_text(json.dumps(_manifest(job, run), indent=2) + "\n", encoding="utf-8")


def _manifest(job: Job, run: Run) -> dict[str, Any]:
    """Where a result comes from; serving refuses an adapter whose base has another fingerprint."""
    recipe = job.recipe
    base = lock.base(recipe, job.loaded)
    return {
        "run": run.name,
        "recipe": recipe.name,
        "method": recipe.method,
        "base_model": base["name"],
        "base_revision": base.get("revision"),
        "base_fingerprint": base["fingerprint"],
    }


@contextmanager
def disk_errors(run: Run) -> Iterator[None]:
    """Turns a full disk, from whatever library it comes, into one line.

    Raises:
        LlmbenchError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except Exception as error:
        if _is_full(error):
            raise LlmbenchError(
                f"{run.folder}: cannot be written (disk full). Free some space, then continue with --resume."
            ) from error
        raise


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that there is no space (safetensors and torch say it in words only)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        text = str(error)
        if "No space left" in text or "os error 28" in text or "os error 27" in text or "PytorchStreamWriter failed" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
