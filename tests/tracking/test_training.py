"""Trainings that are tracked: they learn the same, and what happens to them is told."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests import warm

from llmbench import recipe, runs, training
from llmbench.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' readers, which run in this process to look at the result

RECIPE = """
name: NAME
model: {model_name_or_path: llmbench/tiny, dtype: float32}
data: {train: [{path: bundled://rag/train.jsonl, limit: 32}], eval_fraction: 0.25}
training: {max_steps: STEPS, per_device_train_batch_size: 4, logging_steps: 1, eval_steps: 2, save_steps: 2}
"""
CLOCKED = {"seconds", "tokens_per_second", "peak_memory"}


def document(folder: Path, name: str, steps: int) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.replace("NAME", name).replace("STEPS", str(steps)), encoding="utf-8")
    return path


def curve(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCKED} for row in run.metrics()]


def test_a_tracked_training_learns_bit_by_bit_what_an_untracked_one_does(tmp_path: Path, home: Path) -> None:
    found = {}
    for name, tracking in (("none", "none"), ("all", "[tensorboard, wandb, mlflow, trackio]")):
        asked = recipe.load(document(tmp_path, name, 3), recipe.TrainRecipe, [f"tracking={tracking}"])
        run = runs.create(asked)
        training.train(asked, run)
        found[name] = run
    assert curve(found["all"]) == curve(found["none"])
    weights = [(found[name].adapter / "adapter_model.safetensors").read_bytes() for name in found]
    assert weights[0] == weights[1]
    assert not (found["none"].folder / "tracking.json").exists()
    told = json.loads((found["all"].folder / "tracking.json").read_text())
    assert {name: (entry["sent"], entry["closed"]) for name, entry in told.items()} == dict.fromkeys(
        ("tensorboard", "wandb", "mlflow", "trackio"), ({"train": 3, "eval": 3}, "finished")
    )


def test_a_killed_training_is_shown_as_killed_and_goes_on_in_the_same_run(tmp_path: Path, home: Path) -> None:
    from mlflow.tracking.client import MlflowClient

    asked, run = document(tmp_path, "killed", 500), Run(home / "runs" / "killed")
    process = warm.Process("training", warm.LLMBENCH, "train", str(asked), "tracking=mlflow")
    try:
        wait(lambda: len(run.metrics()) > 3)
        process.kill()  # -9
    finally:
        process.kill()
        process.communicate()
    wait(lambda: told(run).get("closed"))
    known = told(run)["known"]
    client = MlflowClient(tracking_uri=known["uri"])
    assert client.get_run(known["run_id"]).info.status == "KILLED"
    steps = len({row["step"] for row in run.metrics() if "loss" in row}) + 2
    again = recipe.load(asked, recipe.TrainRecipe, ["tracking=mlflow", "training.max_steps=500"])
    process = warm.Process("training", warm.LLMBENCH, "train", str(asked), "tracking=[mlflow]", "--resume")
    try:
        wait(lambda: (run.metrics() or [{"step": 0}])[-1]["step"] >= steps)
        process.send_signal(signal.SIGINT)
        process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert again.tracking.to == ["mlflow"]
    assert told(run)["known"] == known
    history = [metric.step for metric in client.get_metric_history(known["run_id"], "train/loss")]
    assert history == list(range(1, max(history) + 1))
    assert max(history) >= steps


def told(run: Run) -> dict[str, Any]:
    path = run.folder / "tracking.json"
    found: dict[str, Any] = json.loads(path.read_text()).get("mlflow", {}) if path.exists() else {}
    return found


def wait(until: Any) -> None:
    end = time.monotonic() + 240
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)
