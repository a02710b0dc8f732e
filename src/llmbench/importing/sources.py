"""Data sets as another trainer names them, as sources of a recipe's `data` section, and how many rows they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError
from llmbench.importing.draft import Draft
from llmbench.importing.places import found, is_file_name, seen_from

__all__ = ["add", "counted", "origin", "renamed"]

_KINDS = ("json", "csv", "text", "parquet", "arrow")
"""Of files, as `datasets.load_dataset` names them in the place of a data set."""
_COUNTED_BYTES = 200_000_000
"""Files up to this size are read to count their rows."""


def origin(draft: Draft, name: str, files: Any = None) -> dict[str, Any]:
    """`path` or `dataset` of a source.

    Args:
        draft: whose folder the path is seen from, and which is told of files that are left out.
        name: a file, a folder, a hub's name, or the kind of the files (`json`), as `datasets.load_dataset` takes it.
        files: the files of that kind, where they are named apart: one, a list, or a mapping of splits.
    """
    given = files.get("train", next(iter(files.values()), None)) if isinstance(files, dict) else files
    listed = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, str)]
    if listed and name in _KINDS:
        if len(listed) > 1:
            draft.note(f"data_files of {name}", listed, "several files: write a source in data.train for each of the others")
        return origin(draft, listed[0])
    path = found(name, draft.foreign.path.absolute().parent)
    if path is not None and path.is_dir() and listed:
        if len(listed) > 1:
            draft.note(f"data_files of {name}", listed, "several files: write a source in data.train for each of the others")
        return {"path": seen_from(path / listed[0], draft.into)}
    if listed:
        draft.note(f"data_files of {name}", listed, "files of a hub's data set: llmbench reads its split; download others")
    if path is not None:
        return {"path": seen_from(path, draft.into)}
    if "://" in name:
        return {"url": name}
    return {"path": name} if is_file_name(name) else {"dataset": name}


def renamed(columns: Mapping[str, str | None]) -> dict[str, dict[str, str]]:
    """`columns` of a source: standard name -> the file's, where they differ; nothing where none do."""
    different = {ours: theirs for ours, theirs in columns.items() if theirs is not None and theirs != ours}
    return {"columns": different} if different else {}


def add(draft: Draft, source: dict[str, Any], part: str = "train") -> str:
    """Adds a source to the recipe and returns its place, `data.train[0]`."""
    listed = draft.recipe.setdefault("data", {}).setdefault(part, [])
    listed.append(source)
    return f"data.{part}[{len(listed) - 1}]"


def counted(draft: Draft, part: str = "train") -> int | None:
    """The rows of all sources of a part, where they are files on this machine of a moderate size; else None.

    The limit of a source counts, what is held out of it does not.
    """
    from llmbench.data import sources
    from llmbench.recipe import DataSource

    total = 0
    for source in draft.recipe.get("data", {}).get(part, ()):
        path = draft.into / Path(str(source.get("path", "")))
        if "path" not in source or not path.is_file() or path.stat().st_size > _COUNTED_BYTES:
            return None
        plain = {key: source[key] for key in ("path", "field", "encoding", "limit") if key in source}
        try:
            read = DataSource.model_validate(plain, context={"folder": str(draft.into)})
            total += sum(1 for _ in sources.read(read))
        except (ValueError, LlmbenchError):  # a limit that is none, for one
            return None
    return total or None
