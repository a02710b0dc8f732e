"""The folders of an index: its generations, and which of them is searched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from llmbench import workspace
from llmbench.errors import IndexError_

__all__ = ["current", "generations", "next_generation", "point", "remove", "standing", "to_disk", "unpointed"]

_POINTER = "index.json"


def current(folder: Path) -> Path | None:
    """The generation that searches use, or None where nothing is built.

    Raises:
        IndexError_: index.json is broken.
    """
    path = folder / _POINTER
    try:
        number = json.loads(path.read_text(encoding="utf-8"))["generation"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IndexError_(f"{path} cannot be read ({error.strerror}). Read it as the user who owns it.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IndexError_(f"{path} is broken or of another version. Remove {folder} and index again.") from error
    return folder / str(int(number))


def standing(folder: Path) -> Path | None:
    """The generation that searches use, when it is there; a writer may go over to the next one between two looks.

    Raises:
        IndexError_: index.json is broken.
    """
    path = current(folder)
    while path is not None and not path.exists():
        again = current(folder)
        if again == path:
            return None
        path = again
    return path


def generations(folder: Path) -> list[Path]:
    """Every generation's folder, oldest first."""
    return sorted((p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def next_generation(folder: Path) -> Path:
    """The folder of a generation that is not there yet."""
    there = generations(folder)
    return folder / str(int(there[-1].name) + 1 if there else 1)


def point(folder: Path, generation: Path) -> None:
    """Makes a generation the one that searches use. Searches that are open stay on theirs until their next query."""
    workspace.write_json(folder / _POINTER, {"generation": int(generation.name)})
    to_disk(folder)  # before the generation that it names no more is removed


def to_disk(folder: Path) -> None:
    """Waits until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unpointed(folder: Path) -> list[Path]:
    """The generations that no search uses."""
    now = current(folder)
    return [path for path in generations(folder) if path != now]


def remove(generation: Path) -> None:
    """Removes a generation: first its database, without which nothing in it can be opened."""
    (generation / "index.sqlite").unlink(missing_ok=True)
    shutil.rmtree(generation, ignore_errors=True)
