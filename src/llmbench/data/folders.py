"""Which files of a folder are rows, told apart by split as the `datasets` library does it; what is passed over is named.

A folder may hold files (`train.jsonl`, `test.csv.gz`, `train/part-1.parquet`), or be one that `save_to_disk` wrote: Arrow files
with a `state.json`, or a folder for each split with a `dataset_dict.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbench.data.packed import PACKED, ending
from llmbench.errors import DataError

__all__ = ["ENDINGS", "Chosen", "choose", "split_of"]

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc", ".txt")
_NO_TEXT = re.compile(
    r"(licen[cs]e|readme|notice|copying|authors|contributing|change(log|s)|citation|requirements|todo)([._-].*)?", re.IGNORECASE
)
"""Texts that come with data and are none."""
_NO_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json"}
_ROWS_OF_TEXT = (".txt",)
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""As `datasets.data_files` names them."""
_WORD = re.compile(r"[A-Za-z]+")
_NAMED = 5


@dataclass(frozen=True)
class Chosen:
    """The files to read, in order, and a line for each thing that was passed over or decided."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def choose(path: Path, found: Sequence[Path], split: str) -> Chosen:
    """The files of a folder or a pattern that are rows of a split.

    Args:
        path: the folder, or the pattern.
        found: what it holds, hidden names left out. A link to a folder is not followed.
        split: which split is wanted; of no meaning where nothing is named by a split.

    Raises:
        DataError: there is nothing to read, no such split, or files of text beside files of rows.
    """
    saved = _saved(path, split)
    if saved is not None:
        return saved
    data = sorted(file for file in found if file.is_file() and _is_data(file))
    other = sorted({file for file in found if file.is_file() or file.is_symlink()} - set(data))
    notes = [f"not read: {_names(other, path)}"] if other else []
    empty = [file for file in data if file.stat().st_size == 0]
    notes += [f"empty: {_names(empty, path)}"] if empty else []
    if not data:
        what = "is a folder" if path.is_dir() else "is a pattern"
        more = f" It holds {_names(other, path)}." if other else ""
        raise DataError(
            f"{path}: {what} with no file that llmbench reads ({', '.join(ENDINGS)}, also compressed as .gz).{more}"
        )
    data, more_notes = _of_split(path, data, split)
    _one_form(path, data)
    return Chosen(tuple(data), (*notes, *more_notes))


def split_of(file: Path, below: Path) -> str | None:
    """The split that a file's name or one of its folders' names tells, or None: `train-00001.parquet`, `dev/part.jsonl`."""
    parts = file.relative_to(below).parts if file.is_relative_to(below) else (file.name,)
    for part in reversed((*parts[:-1], _stem(file))):
        for word in _WORD.findall(part):
            if word.lower() in _SPLITS:
                return _SPLITS[word.lower()]
    return None


def _stem(file: Path) -> str:
    """A file's name without what says how it is written: `data.train` of `data.train.jsonl.gz`."""
    name = file.with_suffix("") if file.suffix.lower() in PACKED else file
    return name.stem


def _is_data(file: Path) -> bool:
    kind = ending(file)
    return kind in ENDINGS and not (kind == ".txt" and _NO_TEXT.fullmatch(file.name)) and file.name not in _NO_ROWS


def _of_split(path: Path, data: list[Path], split: str) -> tuple[list[Path], list[str]]:
    """The files of a split, where any is named by one."""
    below = _fixed(path)
    told = {file: split_of(file, below) for file in data}
    there = sorted({name for name in told.values() if name is not None})
    if not there:
        if split != "train":  # the default
            raise DataError(f"{path}: no file is named after a split, so there is no split {split}. Leave split out.")
        return data, []
    wanted = _SPLITS.get(split, split)
    if wanted not in there:
        raise DataError(
            f"{path}: has no split {split}. Available: {', '.join(there)}. Write split: {there[0]} next to its path."
        )
    kept = [file for file in data if told[file] == wanted]
    left = [file for file in data if told[file] != wanted]
    return kept, [f"split {wanted} is read; not: {_names(left, path)}"] if left else []


def _one_form(path: Path, data: Sequence[Path]) -> None:
    text = [file for file in data if ending(file) in _ROWS_OF_TEXT]
    rows = [file for file in data if ending(file) not in _ROWS_OF_TEXT]
    if text and rows:
        raise DataError(
            f"{path}: holds texts ({_names(text, path)}) and rows ({_names(rows, path)}). "
            f"Name one: path: {_fixed(path).name}/*{ending(rows[0])}"
        )


def _saved(path: Path, split: str) -> Chosen | None:
    """The Arrow files of a folder that `datasets` saved, in their order; None for any other folder."""
    splits = _json(path / "dataset_dict.json").get("splits")
    if isinstance(splits, list):
        if split not in splits:
            known = ", ".join(map(str, splits))
            raise DataError(f"{path}: has no split {split}. Available: {known}. Write split: {splits[0]} next to its path.")
        left = [str(name) for name in splits if name != split]
        inner = _saved(path / split, split)
        if inner is None:
            raise DataError(f"{path / split}: is not a saved data set (it has no state.json).")
        return Chosen(inner.files, (f"split {split} is read; not: {', '.join(left)}",) if left else ())
    listed = _json(path / "state.json").get("_data_files")
    if not isinstance(listed, list):
        return None
    files = tuple(path / str(entry.get("filename")) for entry in listed if isinstance(entry, dict))
    missing = next((file for file in files if file.parent != path or not file.is_file()), None)
    if missing is not None or not files:
        raise DataError(
            f"{path / 'state.json'}: names {missing.name if missing else 'no file'}, which is missing. Save the data set again."
        )
    return Chosen(files)


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _fixed(path: Path) -> Path:
    """A folder, or of a pattern the part before its first sign: `data` of `data/*/part.jsonl`."""
    if path.is_dir():
        return path
    return next((place for place in reversed(path.parents) if any(sign in place.name for sign in "*?[")), path).parent


def _names(files: Sequence[Path], path: Path) -> str:
    below = _fixed(path)
    shown = [str(file.relative_to(below) if file.is_relative_to(below) else file.name) for file in files[:_NAMED]]
    return ", ".join(shown) + (f" and {len(files) - _NAMED} more" if len(files) > _NAMED else "")
