"""What a finished training leaves: `adapter/` in PEFT's format, or `model/`; whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from llmbench import parity, provenance, written
from llmbench.errors import LlmbenchError
from llmbench.recipe.servability import servability
from llmbench.runs import Run
from llmbench.training import certificate, lock
from llmbench.training.loading import adapter, targets
from llmbench.training.loading.model import stop_at
from llmbench.training.loading.quantized import is_quantized
from llmbench.training.loop.checkpoint import sync

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["disk_errors", "is_full", "result", "whole"]


def result(model: Any, job: Job, run: Run, *, whole: dict[str, torch.Tensor] | None = None) -> str:
    """Saves the adapter, or the model with its tokenizer when all parameters were trained.

    Args:
        model: as it was trained.
        job: its job.
        run: where to.
        whole: what was trained, put together, of a model that is in parts.

    Returns:
        Why there is no certificate beside the adapter, or an empty text.

    Raises:
        LlmbenchError: the disk is full; nothing half-written is left.
    """
    recipe = job.recipe
    target = run.adapter if recipe.adapts else run.model
    part = run.folder / f".{target.name}.part"
    problem = ""
    written.begin(part)
    try:
        if recipe.adapts:
            _adapter(model, job, part, run, whole)
            problem = _certify(model, job, part) if whole is None else "the model is in parts"
        else:
            stop_at(model, job.rows.train_report.turn_ends)  # once more: transformers' trainer sets the tokenizer's own
            model.save_pretrained(part, max_shard_size="5GB", state_dict=whole)
            job.loaded.tokenizer.save_pretrained(part)
            manifest = _manifest(job, run) | {"fingerprint": provenance.fingerprint(part)}
            (part / "llmbench.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        sync(part)
        written.publish(part, target)
    except BaseException:
        written.drop(part)
        raise
    return problem


def _certify(model: Any, job: Job, folder: Path) -> str:
    """Writes the certificate; a training of hours is not lost by what goes wrong here."""
    recipe, loaded = job.recipe, job.loaded
    if servability(recipe) or recipe.lora is None:
        return ""  # nothing that vLLM serves as an adapter; `llmbench merge` certifies the merged model
    if recipe.lora.save_dtype != "float32":  # what is certified is what was saved
        rounded: torch.dtype = getattr(torch, recipe.lora.save_dtype)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(rounded).to(parameter.dtype)
    if recipe.data.chat_template is not None:  # the base's own is another, and vLLM has to be told
        (folder / "chat_template.jinja").write_text(loaded.tokenizer.chat_template, encoding="utf-8")
    try:
        made = certificate.of(
            model, loaded.tokenizer, dtype=loaded.dtype, quantized=is_quantized(model),
            base=provenance.fingerprint(loaded.folder) if loaded.folder is not None else {},
            folder=folder, template_kwargs=recipe.data.chat_template_kwargs,
            start=loaded.start,
        )  # fmt: skip
        parity.write(made, folder)
    except (LlmbenchError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        if is_full(error):
            raise
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return ""


def _adapter(model: Any, job: Job, folder: Path, run: Run, whole: dict[str, torch.Tensor] | None) -> None:
    """PEFT's own files, with the base called as the recipe calls it and not by a path of this machine."""
    recipe, loaded = job.recipe, job.loaded
    section = recipe.lora or recipe.adapter
    assert section is not None
    model.save_pretrained(
        folder, safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"], state_dict=whole
    )
    (folder / "README.md").unlink(missing_ok=True)
    weights = folder / "adapter_model.safetensors"
    dtype: torch.dtype = getattr(torch, section.save_dtype)
    state = {name: tensor.to(dtype) for name, tensor in adapter.plain(load_file(weights), loaded.start).items()}
    save_file(state, weights, metadata={"format": "pt"})
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if loaded.start:
        config = adapter.plain_config(config)
    if config["peft_type"] == "LORA":
        config = targets.loadable(config, model.get_base_model())
    config["base_model_name_or_path"] = recipe.model.model_name_or_path
    config["revision"] = recipe.model.revision
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "llmbench.json").write_text(json.dumps(_manifest(job, run), indent=2) + "\n", encoding="utf-8")
    if loaded.grown:
        loaded.tokenizer.save_pretrained(folder)


def _manifest(job: Job, run: Run) -> dict[str, Any]:
    """Where a result comes from; serving refuses an adapter whose base has another fingerprint."""
    recipe = job.recipe
    base = lock.base(recipe, job.loaded.folder)
    return {
        "run": run.name,
        "recipe": recipe.name,
        "method": recipe.method,
        "base_model": base["name"],
        "base_revision": base.get("revision"),
        "base_fingerprint": base["fingerprint"],
        "stop_token_ids": list(job.rows.train_report.turn_ends),
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
        if is_full(error):
            raise LlmbenchError(
                f"{run.folder}: cannot be written (disk full). Free some space, then continue with --resume."
            ) from error
        raise


@contextmanager
def whole(part: Path, target: Path) -> Iterator[None]:
    """Writes a folder under a name for the time being; whatever goes wrong meanwhile, nothing of it stays.

    Raises:
        LlmbenchError: the disk is full.
    """
    try:
        yield
    except BaseException as error:
        written.drop(part)
        if isinstance(error, Exception) and is_full(error):
            raise LlmbenchError(
                f"{target}: cannot be written (disk full). Free some space, or choose another disk with --output"
            ) from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that there is no space (safetensors and torch say it in words only)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        text = str(error)
        if "No space left" in text or "os error 28" in text or "os error 27" in text or "PytorchStreamWriter failed" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
