"""llm-compressor's own environment: where it is, what it has, and a process in it that ends with this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import engine, workspace
from llmbench.errors import LlmbenchError

__all__ = ["FOLDER", "VARIABLE", "Compressor", "command", "find", "run"]

VARIABLE = "LLMBENCH_COMPRESSOR"
"""The environment variable that names its Python where no option does."""
FOLDER = ".venv-compress"
"""Beside the folder of outputs, where neither does."""
MINIMUM = (0, 14)
_PINS = "llmcompressor==0.14.0.1 torch==2.12.0"
_PROGRAM = Path(__file__).with_name("compressor_program.py")
_SUPERVISOR = Path(engine.__file__).with_name("supervisor.py")
_GRACE = "3"
_POLL = 0.2
_STEP = re.compile(r"llmbench: (.+)|\((\d+)/(\d+)\): (?:Calibrating|Propagating)")
_PROBE = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('llmcompressor', 'torch')}))"


@dataclass(frozen=True)
class Compressor:
    """A Python that has llm-compressor."""

    python: Path
    version: str
    torch: str


def command() -> str:
    """The one line that makes the environment where it is looked for."""
    folder = _folder()
    return f"{sys.executable} -m venv {folder} && {folder}/bin/python -m pip install {_PINS}"


def find(python: Path | None = None) -> Compressor:
    """The interpreter that has llm-compressor, and what it has.

    Args:
        python: as an option names it; else `LLMBENCH_COMPRESSOR`, else `.venv-compress` beside the folder of outputs.

    Raises:
        LlmbenchError: there is none, with the command that makes it; or what is named is none.
    """
    said = f"--compressor {python}" if python else f"{VARIABLE}={os.environ.get(VARIABLE)}" if os.environ.get(VARIABLE) else ""
    there = Path(python or os.environ.get(VARIABLE) or _folder() / "bin" / "python").expanduser().absolute()
    if not said and not there.is_file():
        raise LlmbenchError(f"llm-compressor has an environment of its own, which is not there yet. Run: {command()}")
    there = there / "bin" / "python" if there.is_dir() else there
    try:
        done = subprocess.run([str(there), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise LlmbenchError(f"{said or there}: cannot be run as Python ({error}). Name one that has llm-compressor") from error
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise LlmbenchError(f"{said or there}: has no llm-compressor. Run: {there} -m pip install {_PINS}") from None
    numbers = tuple(int(part) for part in re.findall(r"\d+", found["llmcompressor"])[:2])
    if numbers < MINIMUM:
        raise LlmbenchError(
            f"{said or there}: llm-compressor {found['llmcompressor']} is too old. Run: {there} -m pip install {_PINS}"
        )
    return Compressor(there, found["llmcompressor"], found["torch"])


def run(there: Compressor, task: str, request: dict[str, Any], work: Path, say: Callable[[str], None]) -> None:
    """Runs a task of `compressor_program.py`, and returns when it is done.

    Args:
        there: the interpreter.
        task: `quantise` or `ask`.
        request: what the program's head says.
        work: a folder for the request and for temporary files.
        say: told of each step.

    Raises:
        LlmbenchError: it failed; the log has the rest.
    """
    asked = work / f"{task}.json"
    workspace.write_json(asked, request)
    log = workspace.new_log("compress", "llm-compressor's", task=task)
    temporary = tempfile.mkdtemp(prefix="llmbench-")  # the supervisor removes it
    watch = [sys.executable, "-I", "-S", str(_SUPERVISOR), temporary, _GRACE]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*watch, str(there.python), "-I", str(_PROGRAM), task, str(asked)],
            stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, cwd=work, env=_environment(temporary),
            start_new_session=True,
        )  # fmt: skip
    try:
        _watch(process, log, say)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # the supervisor ends all that it started
        process.wait()
    if process.returncode != 0:
        raise LlmbenchError(f"llm-compressor failed ({_cause(log)}). Its log: {log}")


def _folder() -> Path:
    return workspace.home().parent / FOLDER


def _watch(process: subprocess.Popen[bytes], log: Path, say: Callable[[str], None]) -> None:
    """Tells the steps that the log names until the process ends."""
    told, begun, left = "", "", b""
    with log.open("rb") as file:
        while True:
            ended = process.poll() is not None
            left += file.read()
            for part in re.split(rb"[\r\n]", left):
                if found := _STEP.search(part.decode("utf-8", "replace")):
                    step, at, of = found.groups()
                    begun = step or begun
                    now = begun if step else f"{begun}: part {at} of {of}"
                    if now != told:
                        say(now)
                        told = now
            left = left[max(left.rfind(b"\n"), left.rfind(b"\r")) + 1 :]
            if ended:
                return
            time.sleep(_POLL)


def _cause(log: Path) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in re.split(r"[\r\n]", log.read_text(encoding="utf-8", errors="replace"))]
    return next((line for line in reversed(lines) if line), "it said nothing")[:200]


def _environment(temporary: str) -> dict[str, str]:
    """What the process sees: no network, no telemetry, nothing of this interpreter's."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return env | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HOME": f"{temporary}/hf",
        "HF_DATASETS_CACHE": f"{temporary}/datasets",
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
    }
