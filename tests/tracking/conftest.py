"""A run's folder as a training leaves it, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import workspace
from llmbench.runs import Run

Made = Callable[..., Run]

QUIET = ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE", "TRACKIO_SERVER_URL", "TRACKIO_DIR", "TENSORBOARD_LOGDIR")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of MLflow's for all tests: to make its tables takes longer than most of them."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: str) -> None:
    """No tracker of whoever runs the tests is told of anything."""
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # no ~/.netrc with a key


@pytest.fixture
def made(home: Path) -> Made:
    """Makes a run's folder: `made("one", steps=4, state="finished")`."""

    def make(name: str = "one", *, steps: int = 3, state: str = "finished", **recipe: Any) -> Run:
        run = Run(workspace.runs() / name)
        run.folder.mkdir(parents=True, exist_ok=True)
        document = {"name": name, "method": "sft", "training": {"learning_rate": 0.0002, "seed": 42}} | recipe
        workspace.write_text(run.folder / "recipe.yaml", json.dumps(document))  # which is YAML
        run.drop_metrics_after(-1)
        for step in range(1, steps + 1):
            log(run, step)
        run.mark(state, step=steps, steps=steps, loss=1 / steps if steps else None, eval_loss=0.5)  # type: ignore[arg-type]
        return run

    return make


def log(run: Run, step: int) -> None:
    """A step's figures, and each second step an evaluation."""
    run.log({"step": step, "epoch": step / 10, "loss": 1 / step, "learning_rate": 1e-4})
    if step % 2 == 0:
        run.log({"step": step, "epoch": step / 10, "eval_loss": 2 / step})
