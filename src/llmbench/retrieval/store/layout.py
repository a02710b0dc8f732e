"""The folders of an index: its generations, and which of them is searched."""

from __future__ import annotations

import json
import re
from pathlib import Path

from llmbench import workspace, written
from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe

__all__ = [
    "check_claim",
    "claim",
    "current",
    "generations",
    "is_own",
    "next_generation",
    "point",
    "remove",
    "standing",
    "unpointed",
]

_POINTER = "index.json"
_DATABASES = ("index.sqlite", "copy.sqlite")
_OWN = re.compile(
    r"(index|copy)\.sqlite(-wal|-shm|-journal)?|vectors\.bin|nearest\.faiss(\.tmp)?|postings(\.tmp|-[0-9a-f]+\.bin)"
)
"""The files of a generation, by name."""


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
        raise IndexError_(f"{path} is broken or of another version. Move {folder} away and index again.") from error
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
    """Every generation's folder, oldest first. A folder called by a number that holds no index is somebody else's."""
    found = (p for p in _numbered(folder) if any((p / name).is_file() for name in _DATABASES) and not p.is_symlink())
    return sorted(found, key=lambda p: int(p.name))


def next_generation(folder: Path) -> Path:
    """The folder of a generation that is not there yet."""
    return folder / str(max((int(path.name) for path in _numbered(folder)), default=0) + 1)


def point(folder: Path, generation: Path) -> None:
    """Makes a generation the one that searches use. Searches that are open stay on theirs until their next query."""
    workspace.write_json(folder / _POINTER, {"generation": int(generation.name)})
    workspace.to_disk(folder)  # before the generation that it names no more is removed


def unpointed(folder: Path) -> list[Path]:
    """The generations that no search uses."""
    now = current(folder)
    return [path for path in generations(folder) if path != now]


def remove(generation: Path) -> None:
    """Removes a generation: first its database, without which nothing in it can be opened. What is not its own stays."""
    own = [path.name for path in generation.iterdir() if is_own(path.name)] if generation.is_dir() else []
    (generation / "index.sqlite").unlink(missing_ok=True)
    written.remove(generation, own)


def is_own(name: str) -> bool:
    """Whether a generation's file is called as llmbench calls its files."""
    return _OWN.fullmatch(name) is not None


def check_claim(folder: Path, recipe: RagRecipe) -> None:
    """Looks whether a folder may be the index of a pipeline; changes nothing. Two over the same documents may share it.

    Raises:
        LlmbenchError: it holds something that llmbench did not write, or another pipeline of the same name made it.
        IndexError_: index.json is broken.
    """
    written.check_claim(folder, "index", known=_known(folder), by=recipe.origin, of=_places(recipe))


def claim(folder: Path, recipe: RagRecipe) -> None:
    """Notes that a folder is the index of a pipeline, as `check_claim` allows."""
    written.claim(folder, "index", known=_known(folder), by=recipe.origin, of=_places(recipe))


def _places(recipe: RagRecipe) -> list[str]:
    return sorted(str(place.path) for place in recipe.documents)


def _known(folder: Path) -> bool:
    return bool(generations(folder)) or current(folder) is not None


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name.isdecimal()]
