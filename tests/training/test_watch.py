"""A loss, a gradient or a weight that is no number ends the training in its own step, with the rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import runs, training
from llmbench.errors import LlmbenchError
from llmbench.runs import checkpoints

from .conftest import Write

if TYPE_CHECKING:
    import torch

    from llmbench.training import Job

ODD = "The code is ΩΩΩ."
"""An answer with a token that no other row holds."""


def poisoned(write: Write, *overrides: str, row: int = 17) -> Job:
    """Rows in file order, one of which holds a token whose embedding is infinite, so that its batch has no loss."""
    import torch

    recipe = write("poisoned", "data.shuffle=false", "model.dtype=float32", "training.save_steps=2", *overrides)
    path = recipe.data.train[0].path
    assert path is not None
    lines = path.read_text(encoding="utf-8").splitlines()
    turns = [{"role": "user", "content": "Which code?"}, {"role": "assistant", "content": ODD}]
    lines[row - 1] = json.dumps({"messages": turns}, ensure_ascii=False)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    job = training.prepare(recipe)
    tokens = [set(ids) for ids in job.rows.train["input_ids"]]
    [odd, *_] = tokens[row - 1] - set().union(*tokens[: row - 1], *tokens[row:])
    embedding = job.loaded.model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)  # no longer the head's
    embedding.weight[odd] = float("inf")
    if "row" not in job.rows.train.column_names:  # as data writes them
        rows = job.rows.train.add_column("source", [0] * len(job.rows.train))
        object.__setattr__(job.rows, "train", rows.add_column("row", list(range(1, len(rows) + 1))))
    return job


def stopped(job: Job) -> tuple[runs.Run, str]:
    run = runs.create(job.recipe)
    with pytest.raises(LlmbenchError) as caught:
        training.train(job, run)
    return run, str(caught.value)


@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_batch_without_a_loss_is_named_in_its_own_step(write: Write, logging_steps: int) -> None:
    """Row 17 stands in the fifth batch of four; logging does not decide when it is seen."""
    import torch

    job = poisoned(write, f"training.logging_steps={logging_steps}")
    run, said = stopped(job)
    path = job.recipe.data.train[0].path
    assert said.startswith("The loss is nan at step 5: the training has diverged, and this step is not taken.")
    assert f"Its rows: {', '.join(f'{path}:{row}' for row in (17, 18, 19, 20))}." in said
    assert "The last finite loss was " in said and "none yet" not in said
    assert "or lower training.learning_rate (it is 0.005)" in said
    assert said.endswith("Checkpoint 4 is the last good one.")
    assert run.state == "failed" and "step 5" in run.status["reason"]
    assert run.status["diverged"]["rows"] == [f"{path}:{row}" for row in (17, 18, 19, 20)]
    assert not run.adapter.exists()
    last = checkpoints.every(run.checkpoints)[-1]
    assert last.name == "checkpoint-4" and checkpoints.fault(last) is None
    assert all(torch.isfinite(tensor).all() for tensor in _tensors(last / "adapter_model.safetensors").values())


def test_only_the_batch_at_fault_is_named_among_those_that_are_accumulated(write: Write) -> None:
    job = poisoned(write, "training.gradient_accumulation_steps=3", "training.per_device_train_batch_size=2")
    _, said = stopped(job)
    assert "at step 3, batch 3 of 3:" in said
    assert f"Its rows: {job.recipe.data.train[0].path}:17, {job.recipe.data.train[0].path}:18." in said


def test_the_rows_are_right_in_a_later_epoch_of_shuffled_rows(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are poisoned after the first epoch: whatever batch comes then is named by what it held."""
    from llmbench.training.loop import batches, record

    recipe = write("later", "training.max_steps=15")
    seen: list[list[int]] = []
    collate = batches.Collator.__call__

    def noting(self: Any, examples: list[dict[str, Any]]) -> Any:
        seen.append([int(example["row"]) for example in examples])
        return collate(self, examples)

    def poison(recorder: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 12:
            next(p for p in recorder.trainer.model.parameters() if p.requires_grad).data.fill_(float("nan"))

    job = training.prepare(recipe)
    if "row" not in job.rows.train.column_names:  # as data writes them
        rows = job.rows.train.add_column("source", [0] * len(job.rows.train))
        object.__setattr__(job.rows, "train", rows.add_column("row", list(range(1, len(rows) + 1))))
    monkeypatch.setattr(batches.Collator, "__call__", noting)
    monkeypatch.setattr(record.Recorder, "on_step_begin", poison)
    run = runs.create(recipe)
    with pytest.raises(LlmbenchError, match=r"The loss is nan at step 13:"):
        training.train(job, run)
    named = [int(place.rsplit(":", 1)[1]) for place in run.status["diverged"]["rows"]]
    assert named == seen[12]


def test_an_update_that_overflows_is_not_saved(write: Write) -> None:
    recipe = write(
        "overflow", "training.learning_rate=1e39", "training.warmup_steps=0", "training.save_steps=1", "training.max_steps=1"
    )
    run = runs.create(recipe)
    with pytest.raises(LlmbenchError, match=r"The update of step 1 made base_model\.\S+ infinite or NaN"):
        training.train(recipe, run)
    assert run.state == "failed"
    assert not list(run.folder.rglob("*.safetensors"))


def test_a_learning_rate_that_is_far_too_high_is_stopped(write: Write) -> None:
    recipe = write("diverged", "training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.warmup_steps=0")
    run = runs.create(recipe)
    with pytest.raises(
        LlmbenchError, match=r"The (loss|gradient norm) is (nan|inf) at step \d+.*lower training\.learning_rate"
    ):
        training.train(recipe, run)
    assert run.state == "failed"
    assert not run.adapter.exists() and not checkpoints.every(run.checkpoints)


def _tensors(path: Path) -> dict[str, torch.Tensor]:

    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(path)
    return found
