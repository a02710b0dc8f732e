"""Which adapters vLLM may see.

It answers a bad one with status 500, another base's with nonsense, and dies of one that vanished. So each is checked first,
then copied to a folder that never changes and is named by its content:

    outputs/adapters/SHA256[:16]/{adapter_config.json, adapter_model.safetensors}
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmbench import assets, parity, provenance, runs, scan, workspace
from llmbench.engine import matrices, peft_config
from llmbench.engine import store as stored
from llmbench.engine.matrices import WEIGHTS
from llmbench.engine.peft_config import CONFIG, MANIFEST
from llmbench.errors import EngineError, LlmbenchError, RunError
from llmbench.recipe import ServeRecipe

__all__ = ["Adapter", "admit", "admit_all", "admit_variant", "base_folder"]

_MOST_STOPS = 32
_OF_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""What transformers' trainer leaves in a checkpoint; nobody reads it when the adapter is served."""
_PARTS = {"weights": "weights", "tokenizer": "tokenizer", "chat_template": "chat template"}


@dataclass(frozen=True)
class Adapter:
    """An admitted adapter. `id` is its content's hash, `source` what the recipe called it, `folder` the copy that is served.

    `note` is what its user should know of it, or empty.
    """

    id: str
    source: str
    folder: Path
    rank: int
    stops: tuple[int, ...] = ()
    """The tokens that end the turns it learned, as its training noted them; its base may stop at others."""
    note: str = ""
    certificate: parity.Certificate | None = None
    """What its training wrote beside it."""
    changed: tuple[str, ...] = ()
    """Its files that are no longer those that the certificate was written for."""


def admit_all(recipe: ServeRecipe) -> dict[str, Adapter]:
    """Every adapter that the variants name, checked and stored: name in the recipe -> adapter.

    Raises:
        EngineError: the first one that cannot be served; the message names variant, adapter and reason.
    """
    base = assets.model_folder(recipe.model.model_name_or_path)
    folder = base_folder(base, recipe.model.revision)
    try:
        for place in {folder, recipe.model.tokenizer} - {None}:
            scan.folder(Path(str(place)), trust_remote_code=recipe.model.trust_remote_code)
    except LlmbenchError as error:
        raise EngineError(f"{recipe.source}: {error}") from error
    admitted: dict[str, Adapter] = {}
    for variant in recipe.variants:
        if variant.adapter is not None and variant.adapter not in admitted:
            admitted[variant.adapter] = admit_variant(recipe, variant.name, variant.adapter)
    return admitted


def admit_variant(recipe: ServeRecipe, name: str, reference: str) -> Adapter:
    """The adapter of one variant, checked and stored.

    Args:
        recipe: the serving document, for its base.
        name: the variant's, for the message.
        reference: its adapter.

    Raises:
        EngineError: it cannot be served; the message names variant, adapter and reason.
    """
    base = recipe.model.model_name_or_path
    folder = base_folder(assets.model_folder(base), recipe.model.revision)
    try:
        return admit(reference, base, folder, start=recipe.folder)
    except LlmbenchError as error:
        raise EngineError(f"{recipe.source}: variant {name}: {error}") from error


def admit(reference: str, base: str, base_folder: Path | None, *, start: Path | None = None) -> Adapter:
    """Checks one adapter and copies it to the store.

    Args:
        reference: a run's name, or an adapter's folder (absolute, beside the recipe, or in the working directory).
        base: the served base model as the recipe names it.
        base_folder: its files, when they are on this machine.
        start: the recipe's folder.

    Raises:
        EngineError: it is not there, is no safetensors LoRA, is of a kind that vLLM does not serve, is damaged, or has
            another base.
    """
    folder = _resolve(reference, start or Path.cwd())
    config = peft_config.read(folder)
    _refuse_pickles(folder)
    scan.folder(folder)
    rank = peft_config.check_kind(folder, config)
    tensors = matrices.check(folder, config)
    peft_config.check_scale(folder, config)
    _check_base(folder, config, base, base_folder)
    note = matrices.check_against(folder, tensors, base, base_folder) if base_folder is not None else ""
    note = matrices.check_numbers(reference, folder, config) or note
    certificate = parity.read(folder)
    changed = tuple(certificate.changed(folder)) if certificate is not None else ()
    stored = _store(reference, folder, rank)
    return replace(stored, stops=_stops(folder), note=note, certificate=certificate, changed=changed)


def base_folder(base: str, revision: str | None) -> Path | None:
    """The files of the base model if they are on this machine: a folder, or a hub model that was fetched before."""
    if Path(base).is_dir():
        return Path(base)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(base, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _resolve(reference: str, start: Path) -> Path:
    folder = assets.find(reference, start) if ("/" in reference or not _is_run(reference)) else None
    if folder is None:
        try:
            run = runs.open_run(reference)
        except RunError as error:
            raise EngineError(f"adapter {reference} is neither a folder nor a run. {error}") from error
        if not run.adapter.is_dir():
            raise EngineError(
                f"run {reference} has no adapter (it is {run.state}). Train it: llmbench train {run.folder}/recipe.yaml"
            )
        folder = run.adapter
    if not folder.is_dir():
        raise EngineError(f"adapter {reference} is a file; name the folder that contains {CONFIG}")
    return folder


def _is_run(name: str) -> bool:
    return (workspace.runs() / name / "state.json").exists()


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl")
        for path in folder.glob(pattern)
        if not path.name.startswith(_OF_TRAINING)
    )
    if pickles:
        raise EngineError(
            f"{folder} contains {pickles[0]}, a pickle that can run code when loaded. Save the adapter as {WEIGHTS}, and "
            f"remove the pickle"
        )
    if not (folder / WEIGHTS).is_file():
        raise EngineError(f"{folder} has no {WEIGHTS}")


def _check_base(folder: Path, config: dict[str, Any], base: str, base_folder: Path | None) -> None:
    """The base must be the one it was trained on: by content where both are known, else by name."""
    named = str(config.get("base_model_name_or_path") or "unknown")
    trained_on = _manifest(folder)
    if trained_on and base_folder is not None:
        served = provenance.fingerprint(base_folder)
        for part, words in _PARTS.items():
            if part in trained_on and part in served and trained_on[part] != served[part]:
                raise EngineError(
                    f"{folder} was trained on {named} ({words} {trained_on[part][:12]}), but the recipe serves {base} "
                    f"({words} {served[part][:12]}). Set model.model_name_or_path to its base, or train it again"
                )
        return
    if not _same_model(named, base, base_folder):
        raise EngineError(
            f"{folder} was trained on {named}, but the recipe serves {base}. "
            "Set model.model_name_or_path to its base, or train it again"
        )


def _manifest(folder: Path) -> dict[str, str]:
    """The base's fingerprint that training wrote beside the adapter; empty when another program trained it."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))["base_fingerprint"] or {}
        return {key: str(value) for key, value in fingerprint.items() if key in _PARTS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _same_model(named: str, base: str, base_folder: Path | None) -> bool:
    if named in (base, assets.model_folder(base)):
        return True
    if base_folder is not None and Path(named).is_dir():
        return Path(named).samefile(base_folder)
    return False


def _store(reference: str, folder: Path, rank: int) -> Adapter:
    """Copies an adapter to its place by content. What stands there already is the same and stays."""
    store = stored.folder()
    temporary = store
    try:
        store.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=store, prefix=".new-"))
        for name in (CONFIG, WEIGHTS, MANIFEST):
            if (folder / name).exists():
                shutil.copyfile(folder / name, temporary / name)
        name = provenance.adapter_id(temporary)
        stored.touch(store / name)
        if not (store / name).is_dir():
            temporary.chmod(0o755)
            try:
                temporary.rename(store / name)
            except OSError:
                if not (store / name).is_dir():
                    raise
    except OSError as error:
        how = "Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Set LLMBENCH_HOME to a writable folder"
        raise EngineError(f"{store}: the adapter cannot be copied there ({error.strerror}). {how}") from error
    finally:
        if temporary != store:
            shutil.rmtree(temporary, ignore_errors=True)
    return Adapter(name, reference, store / name, rank)


def _stops(folder: Path) -> tuple[int, ...]:
    """The stop tokens that an adapter's training noted beside it; none where the file is missing or says something else."""
    try:
        noted = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["stop_token_ids"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()
    known = isinstance(noted, list) and len(noted) <= _MOST_STOPS and all(type(stop) is int and stop >= 0 for stop in noted)
    return tuple(noted) if known else ()
