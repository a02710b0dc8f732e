"""certificate.json: what the trained model says to the probes, beside the adapter that it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llmbench import provenance, workspace, written
from llmbench.errors import LlmbenchError
from llmbench.parity.said import Said

__all__ = ["FILE", "Certificate", "Probe", "configuration", "read", "template_hash", "write"]

FILE = "certificate.json"
_VERSION = 1
CONFIG = "adapter_config.json"
_OWN = ("adapter_model.safetensors", CONFIG)
_MOST = 8 * 2**20
"""Bytes of a file that is read; 24 probes take 100 kB."""


@dataclass(frozen=True)
class Probe:
    """One conversation, or the words of one for a model without a chat template, and what was said to it.

    `base` is what the same model says with its adapter switched off; None for a model without an adapter. `scaled` are the
    prompt's log-probabilities with the adapter at other strengths, `{"0.5": ...}`, at a few probes.
    """

    messages: tuple[dict[str, str], ...]
    trained: Said
    base: Said | None
    scaled: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Certificate:
    """What a trained model says to the probes. `files` are the sha256 of the adapter's files that it was written for."""

    rendered: Literal["chat", "text"]
    """`chat`: by the chat template that was trained with. `text`: the last message alone, as plain text."""
    dtype: str
    """The precision that it was computed in."""
    quantized: bool
    """Whether the base was in 4 or 8 bits while it was."""
    template: str | None
    """sha256 of the chat template."""
    template_kwargs: dict[str, Any]
    """Variables of the chat template that the training set."""
    base: dict[str, str]
    """The base's fingerprint; see `provenance.fingerprint`."""
    files: dict[str, str]
    config: dict[str, Any]
    """The adapter's configuration, as PEFT writes it."""
    versions: dict[str, str]
    probes: tuple[Probe, ...]

    @property
    def tokens(self) -> int:
        """How many log-probabilities it holds."""
        return sum(len(probe.trained.logprobs) for probe in self.probes)

    def changed(self, folder: Path) -> list[str]:
        """Files of an adapter's folder that are no longer those that it was written for; of a configuration, which fields."""
        found = [name for name, known in self.files.items() if _hash(folder / name) != known]
        now = configuration(folder) if CONFIG in found else {}
        fields = [f"{key} {_short(self.config.get(key))} then, {_short(now.get(key))} now"
                  for key in sorted(self.config.keys() | now.keys()) if self.config.get(key) != now.get(key)]  # fmt: skip
        return [f"{name} ({'; '.join(fields[:3])})" if name == CONFIG and fields else name for name in found]

    def as_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"version": _VERSION} | asdict(self)

    @staticmethod
    def files_of(folder: Path) -> dict[str, str]:
        """The sha256 of the files in an adapter's folder that what it says depends on."""
        return {name: digest for name in _OWN if (digest := _hash(folder / name)) is not None}


def configuration(folder: Path) -> dict[str, Any]:
    """An adapter's configuration; empty where it cannot be read."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str:
    return json.dumps(value)[:40]


def _hash(path: Path) -> str | None:
    return provenance.file_hash(path) if path.is_file() else None


def template_hash(template: str | None) -> str | None:
    """The sha256 of a chat template's text."""
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()


def write(certificate: Certificate, folder: Path) -> Path:
    """Writes it into a folder, whole or not at all; one that is there already is replaced.

    Raises:
        LlmbenchError: something else has its name.
    """
    path = folder / FILE
    if path.exists() and not written.shows(path, "version", "probes"):
        raise LlmbenchError(f"{path} was not written by llmbench. Nothing was changed. Move it, then try again.")
    written.add(folder, FILE)
    workspace.write_text(path, json.dumps(certificate.as_json(), separators=(",", ":"), ensure_ascii=False) + "\n")
    return path


def read(folder: Path) -> Certificate | None:
    """The certificate in an adapter's folder; None where there is none.

    Raises:
        LlmbenchError: the file is damaged, or written by a newer llmbench.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MOST))
        if values["version"] != _VERSION:
            raise LlmbenchError(
                f"{path} has version {values['version']} and this llmbench reads {_VERSION}. Update llmbench, or write it "
                f"again: llmbench certify {folder} --again"
            )
        return _certificate(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LlmbenchError(
            f"{path} is damaged ({type(error).__name__}). Write it again: llmbench certify {folder} --again"
        ) from error


def _certificate(values: dict[str, Any]) -> Certificate:
    probes = tuple(
        Probe(
            tuple({"role": str(m["role"]), "content": str(m["content"])} for m in probe["messages"]),
            _said(probe["trained"]),
            _said(probe["base"]) if probe["base"] is not None else None,
            {str(scale): tuple(map(float, values)) for scale, values in probe["scaled"].items()},
        )
        for probe in values["probes"]
    )
    if not probes or values["rendered"] not in ("chat", "text"):
        raise ValueError("no probes")
    known = {name: dict(values[name]) for name in ("template_kwargs", "base", "files", "config", "versions")}
    return Certificate(
        values["rendered"], str(values["dtype"]), bool(values["quantized"]), values["template"], probes=probes, **known
    )


def _said(values: dict[str, Any]) -> Said:
    said = Said(
        tuple(map(int, values["ids"])), tuple(map(float, values["logprobs"])),
        tuple(map(int, values["greedy"])), tuple(map(float, values["gaps"])),
    )  # fmt: skip
    if len(said.logprobs) != max(len(said.ids) - 1, 0) or len(said.gaps) != len(said.greedy):
        raise ValueError("lengths differ")
    return said
