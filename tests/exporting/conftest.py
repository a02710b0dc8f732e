"""Small finished runs on the bundled model, one of each kind that an export could get wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.training.conftest import FEW, KINDS, write_recipe

from llmbench import runs
from llmbench.runs import Run

EXPORTED: dict[str, dict[str, Any]] = {
    **{name: KINDS[name] for name in ("lora", "rslora", "dora", "whole", "tokens", "qlora", "prompt", "pissa")},
    "full": {"lora": None},
    "stopped": KINDS["lora"],
}
Make = Callable[[str], Run]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Trains a kind once, in float32, three steps with evaluations; `stopped` is stopped after two, with both checkpoints."""
    from llmbench import training

    known: dict[str, Run] = {}

    def trained(name: str) -> Run:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
                sections = {"model": {"dtype": "float32"}} | EXPORTED[name]
                sections = {"lora": None} | sections if "adapter" in sections else sections
                kept = (
                    "training.max_steps=3",
                    "training.save_steps=1",
                    "training.eval_steps=1",
                    "data.eval_fraction=0.25",
                )
                document = write_recipe(folder, name, *FEW, *kept, **sections)
                run = runs.create(document)
                with contextlib.suppress(KeyboardInterrupt):  # which is how `stop_after` ends
                    training.train(document, run, stop_after=2 if name == "stopped" else None)
                known[name] = run
        return known[name]

    return trained


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outputs folder of the test's own."""
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def copied(run: Run, home: Path) -> Run:
    """The run in the test's own outputs folder."""
    return Run(Path(shutil.copytree(run.folder, home / "runs" / run.name)))


@dataclass(frozen=True)
class Seen:
    """What a verb printed and its exit code."""

    code: int
    out: str
    error: str

    @property
    def json(self) -> dict[str, Any]:
        """Its one JSON document."""
        found: dict[str, Any] = json.loads(self.out)
        return found
