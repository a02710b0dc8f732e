"""Files of JSON, a line each, appended to as things arrive: a kill loses none that was given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["append", "read"]


def append(path: Path, row: Mapping[str, Any], saved: str) -> None:
    """Adds one, on disk when this returns.

    Args:
        path: the file, made with its folder where it is not there.
        row: JSON.
        saved: what the file holds, for people: `answers`.

    Raises:
        LlmbenchError: it cannot be written.
    """
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a kill cut the last line off; this one must not run on from it
                    line = b"\n" + line
            file.write(line)
    except OSError as error:
        raise LlmbenchError(f"{path}: cannot be written ({error.strerror}). The {saved} so far are saved.") from error


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line that is an object; none where there is no file. A line that a kill cut off is left out."""
    # Not splitlines(): JSON strings may hold U+2028, which it would cut at.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row
