"""What a result depends on: the installed versions, and the content of files and model folders."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["adapter_id", "code", "file_hash", "fingerprint", "versions"]

_PACKAGES = (
    "llmbench", "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "safetensors",
)  # fmt: skip
_ROOMS = ("data", "recipe", "tiny", "training")
"""The rooms whose programs decide what a training computes."""


def versions() -> dict[str, str]:
    """The installed versions that a result depends on, with Python's and the platform's."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code() -> str:
    """The first 16 hex digits of the sha256 of llmbench's own programs: what a checkout is, whose version number stays."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n{file_hash(path)}\n".encode())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adapter_id(folder: Path) -> str:
    """What an adapter is, by content: the first 16 hex digits of the sha256 of its configuration's and its weights'."""
    together = "".join(file_hash(folder / name) for name in ("adapter_config.json", "adapter_model.safetensors"))
    return hashlib.sha256(together.encode()).hexdigest()[:16]


def fingerprint(folder: Path) -> dict[str, str]:
    """What a model folder is, by content: sha256 of its weights, tokenizer and chat template (each only if it is there).

    A trained adapter keeps its base's fingerprint in `adapter/llmbench.json`; serving refuses another base.
    """
    found = {}
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        together = "".join(file_hash(path) for path in weights)
        found["weights"] = hashlib.sha256(together.encode()).hexdigest()
    for key, name in (("tokenizer", "tokenizer.json"), ("chat_template", "chat_template.jinja")):
        if (folder / name).exists():
            found[key] = file_hash(folder / name)
    return found
