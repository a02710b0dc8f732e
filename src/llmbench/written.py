"""What llmbench wrote, and so may replace or remove. Nothing else is ever removed, whatever it is called and wherever it lies.

Two kinds of folders:

- one that grows (a run, an index, a comparison, an evaluation) is *claimed* when it is first written to, and its owner knows
  the names of its files;
- one that appears whole (an adapter, a model) is *begun* under another name and *published*; a list of its files lies in it.

Both keep that in a file `.llmbench.json`. A link counts as somebody else's, and so does what it leads to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from llmbench import assets, workspace
from llmbench.errors import LlmbenchError

__all__ = [
    "RECORD",
    "add",
    "begin",
    "check_claim",
    "check_file",
    "claim",
    "drop",
    "files",
    "foreign",
    "made_by",
    "publish",
    "refuse",
    "remove",
    "shows",
    "unfinished",
]

RECORD = ".llmbench.json"
_FIRST = 2000
"""Characters of a file in which its mark is looked for."""
_NAMED = 3
"""Names of foreign files that a message lists."""


def check_claim(folder: Path, kind: str, *, known: bool = False, by: str | None = None, of: Sequence[str] = ()) -> None:
    """Looks whether a folder may become one of this kind, or be used as one; changes nothing.

    Args:
        folder: where the run, index, ... is to be; it may be missing.
        kind: `run`, `index`, `comparison` or `evaluation`.
        known: whether its contents show that it is one, although no record says so.
        by: the origin of the document that is about to use it (`Document.origin`).
        of: what the folder is made from; documents that make it from the same may share it.

    Raises:
        LlmbenchError: it holds something that llmbench did not write, or another document of the same name made it.
    """
    record = _record(folder)
    if known or record.get("kind") == kind:
        if not of or record.get("of") != list(of):
            _refuse_other(folder, kind, str(record.get("by") or ""), by)
        return
    try:
        inside = sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")
    except (FileNotFoundError, NotADirectoryError):
        if found := workspace.in_the_way(folder):
            raise LlmbenchError(f"{found}. Move it, or choose another name with name=...") from None
        return
    except OSError as error:
        raise LlmbenchError(f"{folder} cannot be read ({error.strerror}). Choose another name with name=...") from error
    if inside:
        raise LlmbenchError(
            f"{folder} is not an llmbench {kind}: it contains {_list(inside)}. Nothing was changed. "
            "Move the folder, or choose another name with name=..."
        )


def claim(folder: Path, kind: str, *, known: bool = False, by: str | None = None, of: Sequence[str] = ()) -> None:
    """Notes that a folder is llmbench's and by which document, as `check_claim` allows.

    Raises:
        LlmbenchError: as `check_claim`, or the folder cannot be written.
    """
    check_claim(folder, kind, known=known, by=by, of=of)
    wanted = {"kind": kind} | ({"by": by} if by else {}) | ({"of": list(of)} if of else {})
    if _record(folder) | wanted != _record(folder):
        workspace.write_json(folder / RECORD, _record(folder) | wanted)


def made_by(folder: Path, kind: str) -> str | None:
    """The origin of the document that made a folder of this kind, empty where no record says it; None for any other folder."""
    record = _record(folder)
    return str(record.get("by") or "") if record.get("kind") == kind else None


def _refuse_other(folder: Path, kind: str, before: str, by: str | None) -> None:
    """Raises where another document that is still there made the folder. One that was moved is no other."""
    if not by or not before or by == before:
        return
    old = assets.find(before, Path.cwd())
    if old is not None and assets.find(by, Path.cwd()) != old:
        raise LlmbenchError(
            f"{by}: {kind} {folder.name} belongs to {before}. Nothing was changed. Rename one of the two (name: ...), or "
            f"move {folder}"
        )


def begin(folder: Path) -> Path:
    """An empty folder to fill before it is published; what an interrupted attempt left there is removed, whole or not.

    Raises:
        LlmbenchError: something else has that name.
    """
    _free(folder)
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps({"unfinished": True}) + "\n", encoding="utf-8")
    return folder


def unfinished(folder: Path) -> bool:
    """Whether a folder was begun and not published."""
    return _record(folder).get("unfinished") is True


def drop(folder: Path) -> None:
    """Removes a folder that was begun and not published. Anything else stays."""
    if not folder.is_symlink() and unfinished(folder):
        shutil.rmtree(folder, ignore_errors=True)


def publish(part: Path, target: Path) -> None:
    """Gives a folder that was begun its name, in place of what llmbench published there before.

    Raises:
        LlmbenchError: the folder that has the name holds what llmbench did not write.
    """
    refuse(target)
    listed = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if not path.is_dir())
    usual = (part / RECORD).stat().st_mode  # safetensors makes files that their owner alone may read
    for name in listed:
        if not (part / name).is_symlink():
            (part / name).chmod(usual)
    (part / RECORD).write_text(
        json.dumps({"files": [name for name in listed if name != RECORD]}, indent=1) + "\n", encoding="utf-8"
    )
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        _free(old)
        workspace.write_json(target / RECORD, _record(target) | {"unfinished": True})
        target.replace(old)
    part.replace(target)
    drop(old)


def add(folder: Path, name: str) -> None:
    """Notes that a file is llmbench's own in a folder that was published, before it is written there. Others have no record."""
    found = _record(folder)
    listed = found.get("files")
    if isinstance(listed, list) and name not in listed:
        workspace.write_json(folder / RECORD, found | {"files": sorted([*listed, name])})


def files(folder: Path) -> list[str]:
    """The files that llmbench published in a folder, by their paths inside it; none where it published nothing."""
    listed = _record(folder).get("files")
    return [*listed, RECORD] if isinstance(listed, list) and all(isinstance(name, str) for name in listed) else []


def foreign(folder: Path, ours: Collection[str] | None = None) -> list[str]:
    """What a folder holds beside llmbench's own files: paths inside it, sorted.

    Args:
        folder: may be missing.
        ours: the paths of llmbench's own files; those that its record lists, if not given.
    """
    if folder.is_symlink():
        return ["."]
    own = set(files(folder) if ours is None else ours)
    found = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        empty = [name for name in folders if name not in links and not any((here / name).iterdir())]
        inside = [(here / name).relative_to(folder).as_posix() for name in (*names, *links, *empty)]
        found += [name for name in inside if name not in own or (folder / name).is_symlink()]
    return sorted(found)


def refuse(folder: Path, ours: Collection[str] | None = None) -> None:
    """Raises where `foreign` finds something.

    Raises:
        LlmbenchError: with the names of what was found; or it is a file.
    """
    found = foreign(folder, ours)
    if not found and folder.is_file():
        raise LlmbenchError(f"{folder} is a file. Nothing was changed. Move it elsewhere, or choose another name.")
    if found == ["."]:
        raise LlmbenchError(
            f"{folder} is a link that llmbench did not create. Nothing was changed. Remove the link, or move it."
        )
    if found:
        raise LlmbenchError(
            f"{folder} contains files that llmbench did not write ({_list(found)}). Nothing was changed. "
            "Move them elsewhere, or choose another name."
        )


def remove(folder: Path, ours: Collection[str] | None = None) -> None:
    """Removes llmbench's own files from a folder, and the folder when nothing else is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    others = set(foreign(folder, ours))
    if not others:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in files(folder) if ours is None else ours:
        if name not in others:
            (folder / name).unlink(missing_ok=True)


def shows(file: Path, *keys: str) -> bool:
    """Whether a JSON file is an object with these keys, such as only llmbench writes them together."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() >= set(keys)


def check_file(path: Path, mark: str) -> None:
    """Looks whether a file may be written: there is none, it is empty, or its beginning has llmbench's mark.

    Args:
        path: a file that the user names.
        mark: a regular expression.

    Raises:
        LlmbenchError: something else has that name.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.read(_FIRST)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LlmbenchError(f"{path} cannot be written ({error.strerror}). Name another file.") from error
    if first.strip() and not re.search(mark, first):
        raise LlmbenchError(f"{path} already exists and was not written by llmbench. Nothing was changed. Name another file.")


def _free(folder: Path) -> None:
    """Makes sure that nothing has this name: what an interrupted attempt left goes, anything else is an error."""
    if not folder.is_symlink() and not folder.exists():
        return
    whole = not folder.is_symlink() and bool(files(folder)) and not foreign(folder)  # killed before it got its name
    if folder.is_symlink() or not (unfinished(folder) or whole or _is_empty(folder)):
        raise LlmbenchError(f"{folder} was not written by llmbench. Nothing was changed. Move it, then try again.")
    shutil.rmtree(folder)


def _is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder but a record, perhaps half-written: it was begun and at once killed."""
    return folder.is_dir() and all(entry.name == RECORD for entry in folder.iterdir())


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _list(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_NAMED])
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED} more"
