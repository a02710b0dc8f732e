"""What identifies a model is its files' content, not its name: SHA-256 over everything that decides a vector.

Hashing 90 MB takes 0.1 to 0.4 seconds, which a search need not wait for each time: a file's hash is kept in the workspace's
cache by path, size, times and inode.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from threading import Lock

from llmbench import workspace
from llmbench.errors import LlmbenchError

__all__ = ["of_file", "of_folder"]

_ENDINGS = (".safetensors", ".json", ".txt", ".model")
_YOUNG_NS = 2_000_000_000
"""A file changed so recently may change again within the resolution of its times: its hash is not kept."""
_known: dict[str, list[str]] = {}
_lock = Lock()


def of_folder(folder: Path) -> str:
    """SHA-256 over weights, tokenizer, pooling, window and prompts, by name and content; a copy elsewhere has the same."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in _ENDINGS):
        name = path.relative_to(folder)
        if name.name == "data_config.json" or name.parts[0] in ("onnx", "openvino"):
            continue  # a list of training sets; other formats of the same weights
        digest.update(f"{name.as_posix()} {of_file(path)}\n".encode())
    return digest.hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file; large ones are read once, as long as they stay what they are."""
    path = path.resolve()
    stat = path.stat()
    mark = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    if stat.st_size < 1_000_000:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with _lock:
        if not _known:
            _known.update(_read())
        if (found := _known.get(str(path))) and found[0] == mark:
            return found[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _YOUNG_NS:
        with _lock:
            _known[str(path)] = [mark, digest]
            _write()
    return digest


def _read() -> dict[str, list[str]]:
    """What earlier processes hashed; nothing where that cannot be read, since it can be made again."""
    try:
        kept = json.loads(workspace.cached("hashes.json").read_text(encoding="utf-8"))
        return {str(path): [str(mark), str(digest)] for path, (mark, digest) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write() -> None:
    """Keeps the hashes, where the workspace can be written; two processes at once cost one of them its entry."""
    try:
        workspace.write_json(workspace.cache() / "hashes.json", _read() | _known)
    except LlmbenchError:
        pass
