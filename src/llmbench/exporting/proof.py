"""proof.json: whether an exported folder is what was trained, by which checks, and which files it speaks of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from llmbench import provenance, workspace
from llmbench.errors import LlmbenchError

__all__ = ["FAILED", "FILE", "Compared", "Proof", "beside_of", "changed", "files_of", "lines", "read", "write"]

FILE = "proof.json"
FAILED = ".failed-proof"
"""What the name of a folder that is not proven ends with."""
_VERSION = 1
_MOST = 8 * 2**20
"""Bytes of a file that is read."""
_OBJECTS = ("source", "reference", "figures", "files", "versions")
_BESIDE = (
    FILE, ".llmbench.json", "README.md", "lineage.json", "certificate.json", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*",
    "USE_POLICY*",
)  # fmt: skip
"""What lies beside the files that a proof is about."""


@dataclass(frozen=True)
class Compared:
    """One thing that was compared."""

    name: str
    """tokens, logits, agreement, greedy, effect, stops, template, tied, size or reading."""
    holds: bool | None
    """None: there was nothing to compare, and `found` says why."""
    found: str
    allowed: str = ""


@dataclass(frozen=True)
class Proof:
    """The verdict on an exported folder."""

    format: str
    precision: str
    source: dict[str, Any]
    """The run, and which of its checkpoints."""
    reference: dict[str, Any]
    """How the trained model was asked: precision, number of texts, positions and rows of the training's own data."""
    checks: tuple[Compared, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    """The numbers behind the checks, unrounded."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Bytes and sha256 of each file, by its path in the folder."""
    versions: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    """sha256 of the licence, the lineage, the certificate and the head of the card; of exports of earlier versions nothing."""

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return all(check.holds is not False for check in self.checks)

    @property
    def failed(self) -> list[Compared]:
        """The checks that failed."""
        return [check for check in self.checks if check.holds is False]

    def as_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"version": _VERSION, "holds": self.holds} | asdict(self)


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of each file that a proof of this folder is about."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: {"bytes": path.stat().st_size, "sha256": provenance.file_hash(path)}
        for name, path in found.items()
        if not any(fnmatch(name, pattern) for pattern in _BESIDE)
    }


def beside_of(folder: Path) -> dict[str, str]:
    """sha256 of each file that lies beside those of the proof. A card's text is for a person to edit, its head is not."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(_head(path)).hexdigest() if name == "README.md" else provenance.file_hash(path)
        for name, path in found.items()
        if name not in (FILE, ".llmbench.json") and any(fnmatch(name, pattern) for pattern in _BESIDE)
    }


def _head(path: Path) -> bytes:
    """What stands between the two lines of dashes: licence, base, tags and results as a hub reads them."""
    parts = path.read_bytes().split(b"---\n", 2)
    return parts[1] if len(parts) == 3 and not parts[0] else b""


def write(proof: Proof, folder: Path) -> None:
    """Writes it into the folder that it is about."""
    workspace.write_json(folder / FILE, proof.as_json())


def read(folder: Path) -> Proof:
    """The proof in an exported folder.

    Raises:
        LlmbenchError: there is none, or it cannot be read.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > _MOST:
            raise ValueError("too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {key: found[key] for key in ("format", "precision", *_OBJECTS)}
        if wrong := next((key for key in _OBJECTS if not isinstance(values[key], dict)), None):
            raise ValueError(f"{wrong} is not an object")
        beside = {str(name): str(sha) for name, sha in dict(found.get("beside") or {}).items()}
        return Proof(**values, checks=tuple(Compared(**check) for check in found["checks"]), beside=beside)
    except FileNotFoundError as error:
        raise LlmbenchError(f"{folder} has no {FILE}, so it is not known whether it is what was trained") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LlmbenchError(f"{path} cannot be read ({str(error).splitlines()[0][:100]}). Export again") from error


def changed(proof: Proof, folder: Path) -> list[str]:
    """Files that are no longer those that a proof is about, or that came or went since.

    Of the card only its head counts, and a card in somebody's own words may have none.
    """
    found, now = _differ(proof.files, files_of(folder)), beside_of(folder)
    if now.get("README.md") == hashlib.sha256(b"").hexdigest():
        now["README.md"] = proof.beside.get("README.md", "")
    beside = _differ(proof.beside, now) if proof.beside else []
    return sorted([*found, *(f"{name} (its head)" if name == "README.md" else name for name in beside)])


def _differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]


def lines(proof: Proof) -> list[str]:
    """A line for each check, for people."""
    words = {True: "yes", False: "NO", None: "-"}
    width = max(len(check.name) for check in proof.checks)
    return [
        f"{check.name:{width}}  {words[check.holds]:3}  {check.found}{f' (allowed: {check.allowed})' if check.allowed else ''}"
        for check in proof.checks
    ]
