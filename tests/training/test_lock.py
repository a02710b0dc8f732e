"""lock.json: what a result depends on, by content, and what it says when a run is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import provenance, runs, training
from llmbench.errors import RunError
from llmbench.runs import Run
from llmbench.training import lock

from .conftest import Write
from .test_resume import stopped_at


def test_a_lock_names_files_rows_and_numerics(trained: Run) -> None:
    found = trained.lock
    [source] = found["data"]["train"]
    assert source["files"] == [{"name": "rows.jsonl", "sha256": source["sha256"]}]
    assert found["rows"]["train"]["rows"] == 36 and found["rows"]["eval"]["rows"] == 4
    assert found["settled"]["padding_free"] is True and found["settled"]["torch_compile"] is False
    assert found["numerics"]["deterministic_algorithms"] is False and found["numerics"]["instructions"]
    assert len(found["template"]) == 64 and len(found["versions"]["llmbench_code"]) == 16


def test_the_hash_of_rows_is_of_what_is_learned(write: Write) -> None:
    def hashed(*overrides: str) -> dict[str, Any]:
        return lock.row_hashes(training.prepare(write("rows", *overrides)).rows)

    one = hashed()
    assert one == hashed("training.learning_rate=1") and one["train"]["rows"] == 40 and "eval" not in one
    assert hashed("data.train_on=all")["train"]["rows"] == 40
    assert len({json.dumps(hashed(f"data.{said}")) for said in ("train_on=all", "train.0.limit=39", "eval_fraction=0.1")}) == 3


def test_a_lock_of_an_earlier_version_still_agrees_when_a_run_is_resumed(write: Write) -> None:
    recipe = write("earlier", "training.max_steps=4")
    run = stopped_at(recipe, 2)
    old = run.lock
    for part in ("rows", "settled", "numerics", "template", "questions"):
        del old[part]
    del old["data"]["train"][0]["files"]
    run.write_lock(old)
    training.train(recipe, runs.resume(recipe), resume=True)
    [then] = run.lock["resumed"]
    assert then["step"] == 2 and then["settled"]["padding_free"] is True and "versions" not in then


def test_rows_that_changed_are_refused_when_a_run_is_resumed(write: Write) -> None:
    recipe = write("changed", "training.max_steps=4")
    run = stopped_at(recipe, 2)
    run.write_lock(run.lock | {"rows": {"train": {"rows": 40, "sha256": "0"}}})
    with pytest.raises(RunError, match="cannot continue: its rows changed"):
        training.train(recipe, runs.resume(recipe), resume=True)


def test_an_adapter_that_is_trained_further_is_in_the_lock_by_its_content(write: Write, trained: Run) -> None:
    recipe = write("further", "training.max_steps=1", lora={}, adapter_name_or_path=str(trained.adapter))
    run = runs.create(recipe)
    training.train(recipe, run)
    found = run.lock["model"]["adapter"]
    weights = trained.adapter / "adapter_model.safetensors"
    assert found["adapter_model.safetensors"] == provenance.file_hash(weights)
    assert Path(recipe.adapter_name_or_path or "") == trained.adapter
