"""The metrics of runs, read once: what a training adds is read when it comes, and nothing is read twice."""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbench.runs import Run

__all__ = ["Curves", "curves"]


@dataclass
class Curves:
    """The curves of one run: for each figure the points (step, value), and the last value of each."""

    points: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    last: dict[str, float] = field(default_factory=dict)
    file: int = -1
    """The inode that was read: a run that is resumed writes its metrics into a new file."""
    offset: int = 0

    def read(self, path: Path) -> None:
        """Takes in what the file holds by now."""
        try:
            about = path.stat()
        except OSError:
            return
        if about.st_ino != self.file or about.st_size < self.offset:
            self.points.clear()
            self.last.clear()
            self.file, self.offset = about.st_ino, 0
        if about.st_size == self.offset:
            return
        with path.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, AttributeError):
                continue  # a line cut off by a kill

    def _take(self, row: dict[str, Any]) -> None:
        step = row.get("step")
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if name != "step" and isinstance(step, (int, float)) and math.isfinite(value):
                    self.points[name].append((float(step), float(value)))
                self.last[name] = value


_known: dict[Path, Curves] = {}
_lock = threading.Lock()


def curves(run: Run) -> Curves:
    """The curves of a run, as far as it has come."""
    with _lock:
        found = _known.setdefault(run.folder, Curves())
        found.read(run.folder / "metrics.jsonl")
        return found
