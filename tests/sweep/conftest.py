from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbench import recipe
from llmbench.recipe import SweepRecipe
from llmbench.sweep import process
from llmbench.sweep.trial import Trial

TRAINER = Path(__file__).with_name("trainer.py")
Make = Callable[..., SweepRecipe]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outputs folder, and a training that takes no time."""
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(TRAINER)))
    (tmp_path / "outputs").mkdir()
    rows = [{"prompt": f"How heavy is box {i}?", "completion": f"{i} kg"} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"max_steps": 4, "eval_steps": 1, "learning_rate": 1e-2}
    base = {"name": "base", "data": {"train": [{"path": "rows.jsonl"}], "eval_fraction": 0.1}, "training": training}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    return tmp_path


@pytest.fixture
def make(home: Path) -> Make:
    """Writes and loads a sweep; keywords are its fields."""

    def made(**fields: Any) -> SweepRecipe:
        values: dict[str, Any] = {
            "name": "try",
            "recipe": "base.yaml",
            "space": {"training.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}},
            "trials": 5,
            **fields,
        }
        (home / "sweep.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        return recipe.load(home / "sweep.yaml", SweepRecipe)

    return made


class Quiet:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int, int]] = []
        self.done: list[Trial] = []
        self.cluster = ""
        self.on_running: Callable[[list[Trial]], None] = lambda trials: None

    def placed(self, words: str) -> None:
        self.cluster = words

    def phase(self, words: str, total: int, done: int) -> None:
        self.phases.append((words, total, done))

    def running(self, trials: list[Trial]) -> None:
        self.on_running(trials)

    def ended(self, trial: Trial, best: Trial | None) -> None:
        self.done.append(trial)


@pytest.fixture
def quiet() -> Quiet:
    return Quiet()


@pytest.fixture
def started(home: Path) -> Callable[[], list[dict[str, Any]]]:
    """Every start of a training, in order."""

    def read() -> list[dict[str, Any]]:
        path = home / "outputs" / "started.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read
