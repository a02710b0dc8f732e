"""Prepared rows on disk: `outputs/cache/data/KEY/`, the key a hash of everything that matters, so that none is ever stale.

A folder is written beside its place and renamed when it is whole. What is found there is checked against the size and hash
of its files and made anew when it does not fit. To throw the cache away, remove `outputs/cache`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from llmbench import own_code, workspace
from llmbench.data.sources import files, hub
from llmbench.data.values import Report, Skipped
from llmbench.errors import LlmbenchError
from llmbench.recipe import DataSource, DataSpec, TokenizerSpec

__all__ = ["Hashes", "grown", "kept", "key", "tokenizer_hash"]

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json",
    "merges.txt", "vocab.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_SETTLED_SECONDS = 2.0
"""A file changed so recently may change again within the same tick of its clock; its hash is not remembered."""


class Hashes:
    """sha256 of files, remembered by path, size and time of change."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hashes.json"
        try:
            self.known: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}
        self.new = False

    def of(self, path: Path) -> str:
        """The hash of a file's bytes."""
        stat = path.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        found = self.known.get(str(path))
        if found is not None and found[:-1] == mark:
            return str(found[-1])
        with path.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        if abs(time.time_ns() - stat.st_mtime_ns) > _SETTLED_SECONDS * 1e9:
            self.known[str(path)] = [*mark, value]
            self.new = True
        return value

    def save(self) -> None:
        """Keeps what was hashed for the next time."""
        if self.new:
            workspace.write_json(self.path, self.known)


def tokenizer_hash(folder: Path) -> str:
    """A tokenizer by the content of its files, the chat template among them."""
    found = [folder / name for name in _TOKENIZER] + sorted(folder.glob("additional_chat_templates/*"))
    text = "".join(f"{path.name} {_sha(path.read_bytes())}\n" for path in found if path.is_file())
    return _sha(text.encode())


def grown(tokenizer: str, added: TokenizerSpec | None, stops: Sequence[int]) -> str:
    """A tokenizer's hash together with what a recipe adds to it, and with the tokens at which its model stops."""
    own = None if added is None else [added.add_tokens, added.special]
    return json.dumps([tokenizer, own, list(stops)])


def key(
    spec: DataSpec,
    sources: Sequence[DataSource],
    tokenizer: str,
    template: str | None,
    fraction: float,
    seed: int,
    hashes: Hashes,
) -> str:
    """The hash of everything that prepared rows follow from."""
    drawn = bool(fraction) or sources[0].weight is not None
    what = {
        "code": _code(),
        "versions": {package: metadata.version(package) for package in ("tokenizers", "jinja2", "pyarrow")},
        "tokenizer": tokenizer,
        "template": template if template is not None else spec.template(),
        "options": spec.model_dump(
            mode="json", include={"max_length", "over_length", "bad_rows", "train_on", "chat_template_kwargs", "reasoning"}
        ),
        "sources": [
            source.model_dump(mode="json") | {"content": _content(source, hashes), "formatting": _formatting(source, hashes)}
            for source in sources
        ],
        "fraction": fraction,
        "seed": seed if drawn else None,
    }
    return _sha(json.dumps(what, sort_keys=True).encode())[:32]


def _content(source: DataSource, hashes: Hashes) -> Any:
    """What stands behind a source now."""
    if source.lessons is not None:
        folder = Path(__file__).parent.parent / "tiny"
        return [_sha(path.read_bytes()) for path in sorted(folder.glob("*.py"))]
    if source.dataset is not None:
        pinned = source.revision is not None and len(source.revision) == 40
        return source.revision if pinned else hub(source)._fingerprint
    return [[str(path), hashes.of(path)] for path in files(source)]


def _formatting(source: DataSource, hashes: Hashes) -> list[str] | None:
    """The user's function by the content of its file. What that imports is not followed."""
    if source.formatting is None:
        return None
    return [source.formatting, hashes.of(own_code.file(source.formatting))]


def _code() -> str:
    """The code that prepares: another version of it may prepare otherwise."""
    room = Path(__file__).parent
    turns = sorted(room.with_name("turns").glob("*.py"))
    return _sha(b"".join(path.read_bytes() for path in [*sorted(room.glob("*.py")), *turns, room.with_name("rows.py")]))


@contextmanager
def kept(name: str, make: Callable[[Path], list[Report]], hashes: Hashes) -> Iterator[tuple[Path, list[Report]]]:
    """The folder of prepared rows and its reports, made by `make` where there is none that is whole.

    A second process that wants the same rows waits for the first.

    Raises:
        LlmbenchError: the disk is full or the folder cannot be written.
    """
    home = workspace.cache() / "data"
    target = home / name
    try:
        with _locked(home / f".{name}.lock"):
            reports, why = _read(target, hashes)
            if reports is None:
                part = home / f".{name}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                try:
                    reports = make(part)
                    if why:
                        note = f"the cache {target} {why} and was rebuilt"
                        reports = [_noted(report, note) for report in reports]
                    _write(part, reports)
                    if target.exists():
                        old = home / f".{name}.old"
                        shutil.rmtree(old, ignore_errors=True)
                        target.rename(old)
                        shutil.rmtree(old, ignore_errors=True)
                    part.rename(target)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
                hashes.save()
    except OSError as error:
        raise LlmbenchError(f"{home}: cannot be written ({error.strerror}). Free some space or set LLMBENCH_HOME.") from error
    yield target, reports


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for its turn; the kernel lets go when the process ends, however it ends. Leaves no file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # the one before has taken the file away
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _write(folder: Path, reports: list[Report]) -> None:
    """The lengths and the reports, last the list of files by which the folder is known to be whole."""
    for i, report in enumerate(reports):
        np.save(folder / f"lengths{i}.npy", np.asarray(report.length_before, dtype=np.int32), allow_pickle=False)
    plain = [asdict(report) | {"length_before": None} for report in reports]
    (folder / "report.json").write_text(json.dumps(plain), encoding="utf-8")
    sizes = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            sizes[path.name] = [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]
            os.fsync(file.fileno())
    (folder / "files.json").write_text(json.dumps(sizes), encoding="utf-8")


def _read(folder: Path, hashes: Hashes) -> tuple[list[Report] | None, str]:
    """The reports of a folder, or why it is of no use (nothing where there is none)."""
    if not folder.exists():
        return None, ""
    try:
        for name, (size, sha) in json.loads((folder / "files.json").read_text(encoding="utf-8")).items():
            path = folder / name
            if path.stat().st_size != size:
                return None, f"was truncated ({name})"
            if hashes.of(path) != sha:
                return None, f"was corrupt ({name})"
        values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return [_report(value, folder / f"lengths{i}.npy") for i, value in enumerate(values)], ""
    except (OSError, ValueError, KeyError, TypeError):
        return None, "was broken"
    finally:
        hashes.save()


def _report(value: dict[str, Any], lengths: Path) -> Report:
    skipped = tuple(Skipped(**row) for row in value["skipped"])
    return Report(
        **value
        | {"skipped": skipped, "notes": tuple(value["notes"]), "turn_ends": tuple(value["turn_ends"])}
        | {"length_before": np.load(lengths, allow_pickle=False)}
    )


def _noted(report: Report, note: str) -> Report:
    from dataclasses import replace

    return replace(report, notes=(*report.notes, note))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
