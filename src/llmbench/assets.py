"""Finds what travels with the package: recipes/, rag/, app/ and the tiny base model, in a checkout or in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llmbench.errors import LlmbenchError

TINY = "llmbench/tiny"

__all__ = ["TINY", "bundle", "bundled", "find", "model_folder"]


@cache
def bundle() -> Path:
    """The folder that holds recipes/, rag/ and app/: the checkout's root, or `llmbench/_bundled` in an installed wheel."""
    package = Path(__file__).resolve().parent
    for root in (package / "_bundled", package.parent.parent):
        if (root / "recipes").is_dir() and (root / "rag").is_dir() and (root / "app").is_dir():
            return root
    raise LlmbenchError(f"The bundled recipes are missing beside {package}. Install llmbench again.")


def bundled(relative: str) -> Path:
    """A bundled file or folder by its path from the top, such as `rag/handbook.yaml`.

    Raises:
        LlmbenchError: there is no such file; the message lists what there is.
    """
    path = bundle() / relative
    if not path.exists():
        known = ", ".join(documents())
        raise LlmbenchError(f"no bundled file is called {relative}. There are: {known}")
    return path


def documents() -> list[str]:
    """Every bundled YAML document, as `recipes/NAME.yaml` or `rag/NAME.yaml`."""
    root = bundle()
    return sorted(str(p.relative_to(root)) for folder in ("recipes", "rag") for p in (root / folder).glob("*.yaml"))


def find(reference: str, start: Path) -> Path | None:
    """Where a file named in a document is: beside the document, in the working directory, or in the bundle; else None."""
    path = Path(reference).expanduser()
    if path.is_absolute():
        return path if path.exists() else None
    for root in (start, Path.cwd(), bundle()):
        if (root / path).exists():
            return (root / path).resolve()
    return None


def model_folder(name: str) -> str:
    """Turns `llmbench/tiny` into the folder of the bundled model; every other name or path stays as it is."""
    if name != TINY:
        return name
    folder = Path(__file__).resolve().parent / "tiny" / "model"
    if not (folder / "model.safetensors").exists():
        raise LlmbenchError(f"{TINY} is not in this installation (no {folder}/model.safetensors). Build it: make tiny")
    return str(folder)
