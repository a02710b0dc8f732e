"""Where outputs live, what they may be called, and how a file is written so that a kill leaves the old one or the new one.

LLMBENCH_HOME, else ./outputs
├── runs/NAME/          llmbench train
├── indexes/NAME/       llmbench index
├── comparisons/NAME/   llmbench compare
├── votes/NAME/         llmbench vote
├── sweeps/NAME/        llmbench sweep
├── evaluations/NAME/   llmbench evaluate rag
├── ablations/NAME/     llmbench ablate
├── exports/NAME/       llmbench export
├── adapters/HASH/      copies of what is served
├── made/SHA256.json    what data files were made by, such as llmbench raft
├── serving/NAME.sock   where running servers are asked to change
├── rollouts/SERVER/    what was decided about canaries, and by what evidence
├── tracking/           what TensorBoard, W&B, MLflow and Trackio keep on this machine
├── shadows/SERVER/     what shadows of routes answered
└── cache/              prepared rows and embedders; may be removed at any time (LLMBENCH_CACHE, if set, is used instead)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmbench.errors import LlmbenchError

__all__ = [
    "atomic",
    "cache",
    "cached",
    "check_name",
    "comparisons",
    "evaluations",
    "exports",
    "held",
    "home",
    "in_the_way",
    "indexes",
    "lock",
    "runs",
    "short_name",
    "sweeps",
    "votes",
    "write_json",
    "write_text",
]

_GLANCE_SECONDS = 0.3
"""How long a lock is tried for: longer than anybody takes to see whether it is held."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def home() -> Path:
    """The folder of all outputs; it may be missing.

    Raises:
        LlmbenchError: something else than a folder has that name.
    """
    folder = Path(os.environ.get("LLMBENCH_HOME") or "outputs").expanduser().absolute()
    if not folder.is_dir() and (found := in_the_way(folder)):
        raise LlmbenchError(f"{found}. Move it, or set LLMBENCH_HOME to a folder.")
    return folder


def in_the_way(folder: Path) -> str | None:
    """What keeps a folder from being one: it, or one that it is in, is a file or a link to nothing; None where nothing does."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return None
        if path.is_symlink() and not path.exists():
            return f"{path} is a broken link"
        if path.exists() and not path.is_dir():  # asked once more: another process may have made it meanwhile
            return f"{path} is a file, not a folder"
    return None


def runs() -> Path:
    """The folder of all runs."""
    return home() / "runs"


def indexes() -> Path:
    """The folder of all indexes."""
    return home() / "indexes"


def comparisons() -> Path:
    """The folder of all comparisons."""
    return home() / "comparisons"


def votes() -> Path:
    """The folder of people's votes."""
    return home() / "votes"


def sweeps() -> Path:
    """The folder of all sweeps."""
    return home() / "sweeps"


def evaluations() -> Path:
    """The folder of what evaluations of pipelines found."""
    return home() / "evaluations"


def exports() -> Path:
    """The folder of what was exported from runs."""
    return home() / "exports"


def cached(*parts: str) -> Path:
    """Where something lies in the cache, which may not be there: for who only reads, also where nothing can be written."""
    return _cache_folder().joinpath(*parts)


def cache() -> Path:
    """The folder of what can be made again, made when it is asked for, closed to other users.

    Raises:
        LlmbenchError: it cannot be made, or is another user's.
    """
    folder = _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _cache_folder() -> Path:
    given = os.environ.get("LLMBENCH_CACHE")
    return Path(given).expanduser().absolute() if given else home() / "cache"


def check_name(name: str, what: str = "name") -> str:
    """Returns the name when it is fit for a folder and for a model id.

    Raises:
        LlmbenchError: it holds anything but lower-case letters, digits, `.`, `_` and `-`, or is over 64 characters.
    """
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 100 else f"{name[:97]}..."
        raise LlmbenchError(f"{what} {shown!r} is not allowed: use up to 64 lower-case letters, digits, '.', '_' or '-'.")
    return name


def short_name(origin: str | None) -> str:
    """A name for what belongs to one document: its own, and a hash of where it is; `unsaved-...` without a file."""
    known = origin or "unsaved"
    return f"{Path(known).stem[:40]}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def to_disk(folder: Path) -> None:
    """Waits until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic(path: Path, mode: str = "w", *, private: bool = False) -> Iterator[IO[Any]]:
    """Opens a temporary file that becomes `path` when the block ends well, flushed to disk; else nothing is left.

    A private file can be read by its owner alone.

    Raises:
        LlmbenchError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o600 if private else 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def lock(folder: Path, what: str, *, wait: float = 0) -> Iterator[None]:
    """Holds the one writer's lock of a folder; the kernel lets go of it when the process ends, however it ends.

    Args:
        folder: whose lock.
        what: what it is, for the message.
        wait: seconds to wait for another holder.

    Raises:
        LlmbenchError: another process holds it (the message names its process id), or the folder cannot be written.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with opened as file:
        end = time.monotonic() + max(_GLANCE_SECONDS, wait)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < end:  # it may be somebody who only looks, in `held`
                    time.sleep(0.01)
                    continue
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise LlmbenchError(
                    f"{what} {folder.name} is in use by process {holder}. Wait for it, or stop it first."
                ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def held(folder: Path) -> bool:
    """Whether a process holds a folder's lock. Looking neither takes it nor keeps others from it."""
    import fcntl

    try:
        with (folder / ".lock").open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return False


def _unwritable(path: Path, error: OSError) -> LlmbenchError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if not full and not path.exists() and (found := in_the_way(path)):
        return LlmbenchError(f"{found}. Move it, or choose another folder (LLMBENCH_HOME for all outputs).")
    advice = "Free some space or choose another folder." if full else "Choose another folder (LLMBENCH_HOME for all outputs)."
    return LlmbenchError(f"{path}: cannot be written ({error.strerror}). {advice}")
