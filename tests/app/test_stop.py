"""Stopping a run from its card: one signal to the process that trains it, and no second."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from llmbench import assets, recipe, runs
from llmbench.errors import RunError
from llmbench.recipe import TrainRecipe

_TRAINS = """
import signal, sys, time
from llmbench import runs
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
with runs.open_run("live").writing():
    print("trains", flush=True)
    while not told:
        time.sleep(0.05)
    time.sleep(0.5)
print(len(told), flush=True)
"""


def test_a_run_is_asked_to_stop_once(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    rows = str(assets.bundle() / "rag" / "train.jsonl")
    (tmp_path / "live.yaml").write_text(json.dumps({"name": "live", "data": {"train": [{"path": rows}]}}), encoding="utf-8")
    run = runs.create(recipe.load(tmp_path / "live.yaml", TrainRecipe))
    stop = importlib.import_module("llmbench_app.runs")._stop
    pressed = SimpleNamespace(_data={"stop": "live"})
    with pytest.raises(RunError, match="not training"):
        run.stop()
    assert "not training" in stop(pressed)
    with subprocess.Popen([sys.executable, "-c", _TRAINS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "trains\n"
        assert run.holder is not None and run.holder.process == process.pid
        card = importlib.import_module("llmbench_app.cards").card(run, "line-1")
        assert 'data-stop="live"' in card
        assert "asked to stop" in stop(pressed)
        assert "already asked" in stop(pressed)
        assert process.stdout.readline() == "1\n", "a second signal would end it without saving"
    assert process.returncode == 0
    assert "There is no run gone" in stop(SimpleNamespace(_data={"stop": "gone"}))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
