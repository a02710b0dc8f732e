"""The checkpoints of a run, and which of them are whole. Reads files only, so that listing them loads no trainer.

checkpoints/checkpoint-STEP/manifest.json is written last, beside everything else a checkpoint holds:
{"step": 20, "files": {"optimizer.safetensors": {"bytes": 51200, "sha256": "..."}, ...}}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmbench import scan, written
from llmbench.errors import LlmbenchError, RunError

__all__ = ["MANIFEST", "PICKLES", "choose", "clear", "every", "fault", "own", "remove", "seal", "step_of"]

MANIFEST = "manifest.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
"""Endings of files that run code when they are loaded. llmbench writes none of them and opens none of them."""

_OWN = (
    MANIFEST, "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "config.json",
    "generation_config.json", "model.safetensors", "optimizer.json", "optimizer.safetensors", "random.json",
    "random.safetensors", "running.json", "running.safetensors", "tokenizer.json", "tokenizer_config.json",
    "trainer_state.json",
)  # fmt: skip
"""What a checkpoint holds, for one whose manifest is damaged."""
_NAME = re.compile(r"checkpoint-(\d+)")


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved."""
    return int(checkpoint.name.split("-")[1])


def every(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder of them, oldest first, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def seal(checkpoint: Path) -> None:
    """Writes the manifest: size and sha256 of every file that is there."""
    files = {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in _files(checkpoint).items()}
    text = json.dumps({"step": step_of(checkpoint), "files": files}, indent=1)
    (checkpoint / MANIFEST).write_text(text + "\n", encoding="utf-8")


def fault(checkpoint: Path, *, sizes_only: bool = False) -> str | None:
    """What is wrong with a checkpoint, or None. `sizes_only` leaves out the hashes, which read every byte."""
    found = _files(checkpoint)
    pickle = next((name for name in found if name.lower().endswith(PICKLES)), None)
    if pickle is not None:
        return f"it contains {pickle}, a pickle, which can run code when loaded and was not written by llmbench"
    link = next((path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_symlink()), None)
    if link is not None:
        return f"{link} is a link"
    try:
        scan.folder(checkpoint)
    except LlmbenchError as error:
        return str(error)
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} cannot be read"
    if found.keys() != expected.keys():
        name = sorted(found.keys() ^ expected.keys())[0]
        return f"{name} was not saved with it" if name in found else f"{name} is missing"
    for name, (size, sha256) in expected.items():
        now = found[name].stat().st_size
        if now != size:
            return f"{name} has {now:,} bytes of {size:,}"
        if not sizes_only and _sha256(found[name]) != sha256:
            return f"{name} differs from what was written"
    return None


def choose(
    folder: Path, step: int | None = None, *, needs: Callable[[Path], int | None] = lambda checkpoint: None
) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from: that of a step, or the last one that is whole.

    Args:
        folder: the run's folder of checkpoints.
        step: the one to take; None leaves the choice.
        needs: the step of another checkpoint that one is of no use without, such as the best so far.

    Returns:
        The checkpoint (None: nothing was ever saved), and a line for each damaged one that was passed over.

    Raises:
        RunError: the one that is asked for is not there or is damaged, or none of those there are is whole.
    """
    found = every(folder)
    if step is not None:
        wanted = next((path for path in found if step_of(path) == step), None)
        if wanted is None:
            known = ", ".join(str(step_of(path)) for path in found) or "none"
            raise RunError(f"{folder.parent.name} has no checkpoint of step {step} (available: {known}).")
        wrong = _fault_with(wanted, needs)
        if wrong is not None:
            raise RunError(f"{wanted} is damaged: {wrong}. Choose another one, or let --resume choose.")
        return wanted, []
    damaged: list[str] = []
    for path in reversed(found):
        wrong = _fault_with(path, needs)
        if wrong is None:
            return path, damaged
        damaged.append(f"{path.name} is damaged ({wrong})")
    if damaged:
        raise RunError(f"{folder}: no checkpoint is intact: {'; '.join(damaged)}. Start again with --overwrite.")
    return None, []


def _fault_with(checkpoint: Path, needs: Callable[[Path], int | None]) -> str | None:
    wrong = fault(checkpoint)
    other = None if wrong is not None else needs(checkpoint)
    if other is None or other == step_of(checkpoint):
        return wrong
    best = checkpoint.with_name(f"checkpoint-{other}")
    wrong = fault(best) if best.is_dir() else "it is missing"
    return None if wrong is None else f"its best checkpoint {best.name} cannot be used: {wrong}"


def own(checkpoint: Path) -> list[str]:
    """The files that llmbench writes into a checkpoint: those of its manifest, and those that every checkpoint has."""
    try:
        listed = list(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        listed = []
    return [*listed, *_OWN]


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint: its name first, so that a kill in between leaves no half of it under its name.

    Where somebody has put files of their own into it, those stay where they are.
    """
    away = checkpoint.with_name(f".old-{checkpoint.name}")
    written.remove(away, own(away))
    if checkpoint.is_dir() and not away.exists() and not written.foreign(checkpoint, own(checkpoint)):
        checkpoint.replace(away)
        written.remove(away, own(away))
    else:
        written.remove(checkpoint, own(checkpoint))


def clear(folder: Path) -> None:
    """Removes all checkpoints, and their folder when nothing else is in it."""
    for checkpoint in every(folder):
        remove(checkpoint)
    with suppress(OSError):
        folder.rmdir()


def _files(checkpoint: Path) -> dict[str, Path]:
    """Every file but the manifest, by its path inside the checkpoint."""
    found = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name != MANIFEST}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
