"""Finds what travels with the package: recipes/, rag/, app/ and the tiny base model, in a checkout or in a wheel."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from llmbench.errors import LlmbenchError

TINY = "llmbench/tiny"
BUNDLED = "bundled://"
"""How a document names a file that came with llmbench: `bundled://rag/train.jsonl`."""

__all__ = [
    "BUNDLED", "TINY", "bundle", "bundled", "documents", "expanded", "find", "missing", "model_folder", "named", "origin",
    "plain_name",
]  # fmt: skip


@cache
def bundle() -> Path:
    """The folder that holds recipes/, rag/ and app/: the checkout's root, or `llmbench/_bundled` in an installed wheel."""
    package = Path(__file__).resolve().parent
    for root in (package / "_bundled", package.parent.parent):
        if (root / "recipes").is_dir() and (root / "rag").is_dir() and (root / "app").is_dir():
            return root
    raise LlmbenchError(f"The bundled recipes are missing next to {package}. Reinstall llmbench.")


def bundled(relative: str) -> Path:
    """A bundled file or folder by its path from the top, such as `rag/handbook.yaml`.

    Raises:
        LlmbenchError: there is no such file; the message lists what there is.
    """
    path = bundle() / relative.removeprefix(BUNDLED)
    if not path.exists():
        known = ", ".join(documents())
        raise LlmbenchError(f"no bundled file is named {relative}. Available: {known}")
    return path


def documents() -> list[str]:
    """Every bundled YAML document, as `recipes/NAME.yaml` or `rag/NAME.yaml`."""
    root = bundle()
    return sorted(str(p.relative_to(root)) for folder in ("recipes", "rag") for p in (root / folder).glob("*.yaml"))


def find(reference: str, start: Path) -> Path | None:
    """The file or folder that a reference means, or None where it is missing. A reference means one place:

    - `bundled://rag/handbook`: what came with llmbench;
    - an absolute path, or one that begins with `~`;
    - any other: the path from `start`, the folder of the document that names it.
    """
    if reference.startswith(BUNDLED):
        path = bundle() / reference.removeprefix(BUNDLED)
        return path if _is_there(path) and path.resolve().is_relative_to(bundle().resolve()) else None
    path = start / expanded(reference)
    return path.resolve() if _is_there(path) else None


def expanded(reference: str | Path) -> Path:
    """A path with its `~` written out; as it stands where there is no such user."""
    try:
        return Path(reference).expanduser()
    except RuntimeError:
        return Path(reference)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def named(reference: str, start: Path) -> Path | None:
    """As `find`; a bundled document or template may also go by its plain name, such as `recipes/serve.yaml`.

    It may only where `start` has no folder of that name: a file that is missing from a folder of the user's is missing.
    """
    found = find(reference, start)
    path = Path(reference)
    if found is not None or path.is_absolute() or path.suffix not in (".yaml", ".jinja") or len(path.parts) < 2:
        return found
    return None if _is_there(start / path.parts[0]) else find(f"{BUNDLED}{reference}", start)


def origin(file: Path) -> str:
    """A file as `find` finds it from anywhere: `bundled://NAME` for one that came with llmbench, else its absolute path."""
    path, root = file.resolve(), bundle().resolve()
    known = path.suffix == ".yaml" and path.is_relative_to(root) and str(path.relative_to(root)) in documents()
    return f"{BUNDLED}{path.relative_to(root)}" if known else str(path)


def missing(reference: str, start: Path) -> str:
    """What to say of a reference that `find` does not find: where it was looked for, and where one of its name is."""
    if reference.startswith(BUNDLED):
        return f"llmbench has no bundled {reference.removeprefix(BUNDLED)}. List the bundled documents: llmbench new"
    said, path = f"no such file {reference}", expanded(reference)
    if path.is_absolute():
        return said
    said += f" (looked in {start})"
    here = Path.cwd() / path
    if _is_there(here) and start.resolve() != Path.cwd().resolve():
        return f"{said}. It exists in the working directory: write {os.path.relpath(here, start)}"
    if find(f"{BUNDLED}{reference}", start) is not None:
        return f"{said}. A file of this name is bundled: write {BUNDLED}{reference}"
    return said


def model_folder(name: str) -> str:
    """Turns `llmbench/tiny` into the folder of the bundled model; every other name or path stays as it is."""
    if name != TINY:
        return name
    folder = Path(__file__).resolve().parent / "tiny" / "model"
    if not (folder / "model.safetensors").exists():
        raise LlmbenchError(f"{TINY} is not in this installation (no {folder}/model.safetensors). Build it: make tiny")
    return str(folder)


def plain_name(name: str) -> str:
    """A model's or adapter's name without the folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name
