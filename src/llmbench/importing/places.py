"""Where the files lie that another trainer's configuration names, and how a recipe in another folder names them."""

from __future__ import annotations

import os
from pathlib import Path

from llmbench import assets

__all__ = ["found", "is_file_name", "seen_from"]

_ROWS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".bz2", ".xz")


def found(name: str, *starts: Path) -> Path | None:
    """The file or folder of this name, looked for in the working directory and then in `starts`."""
    path = assets.expanded(name)
    for start in (Path.cwd(), *starts):
        try:
            if (start / path).exists():
                return (start / path).resolve()
        except OSError:
            continue
    return None


def seen_from(path: Path, folder: Path) -> str:
    """A path as a recipe in `folder` writes it: relative where both are near, else absolute."""
    near = os.path.relpath(path, folder.resolve())
    return near if near.count("..") <= 2 else str(path)


def is_file_name(name: str) -> bool:
    """Whether a name can only be one of a file or folder: its beginning or its end says so."""
    return name.startswith((".", "/", "~")) or name.lower().endswith(_ROWS)
