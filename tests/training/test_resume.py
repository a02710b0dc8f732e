"""A run that goes on ends with the same bytes as one that never stopped, whatever was lost in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run, checkpoints

from .conftest import Write

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
SETTINGS = (
    "training.max_steps=12", "training.save_steps=2", "training.save_total_limit=9", "training.warmup_steps=3",
    "training.gradient_accumulation_steps=2", "training.per_device_train_batch_size=3",
)  # fmt: skip
"""7 steps an epoch, the last of one batch alone; dropout draws random numbers."""


def weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def steps(run: Run) -> list[int]:
    return [checkpoints.step_of(path) for path in checkpoints.every(run.checkpoints)]


def stopped_at(recipe: TrainRecipe, step: int, run: Run | None = None, **more: Any) -> Run:
    """A run that Ctrl-C ended after a step."""
    from llmbench.training.loop import record

    run = run or runs.create(recipe)

    def ask(recorder: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        recorder.stop.asked = state.global_step == step - 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", ask)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe, run, **more)
    return run


def straight(recipe: TrainRecipe) -> Run:
    run = runs.create(recipe)
    training.train(recipe, run)
    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Run]:
    """Two runs of 12 steps that were never stopped: rows in file order, and shuffled."""
    from .conftest import write_recipe

    folder = tmp_path_factory.mktemp("reference")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        for shuffle in (True, False):
            name = f"straight-{shuffle}".lower()
            found[shuffle] = straight(write_recipe(folder, name, *SETTINGS, f"data.shuffle={shuffle}", lora=LORA))
    return found


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The outputs of a run that was stopped after 9 of its 12 steps, to be copied, and its recipe."""
    from .conftest import write_recipe

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        recipe = write_recipe(folder, "again", *SETTINGS, lora=LORA)
        stopped_at(recipe, 9)
    return folder / "outputs", recipe.source


@pytest.fixture
def again(stopped: tuple[Path, Path], home: Path) -> TrainRecipe:
    """The recipe of a stopped run that stands in this test's own outputs."""
    from llmbench import recipe

    shutil.copytree(stopped[0], home)
    return recipe.load(stopped[1], TrainRecipe, SETTINGS)


def go_on(recipe: TrainRecipe, **more: Any) -> Run:
    run = runs.resume(recipe)
    training.train(recipe, run, resume=True, **more)
    return run


def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bytes(
    again: TrainRecipe, reference: dict[bool, Run]
) -> None:
    run = go_on(again)
    assert weights(run) == weights(reference[True])
    assert run.state == "finished" and steps(run) == [12], "for more epochs"
    shown = [{key: row[key] for key in ("step", "loss", "grad_norm", "tokens")} for row in run.metrics()]
    expected = [{key: row[key] for key in ("step", "loss", "grad_norm", "tokens")} for row in reference[True].metrics()]
    assert shown == expected


@pytest.mark.parametrize("step", [7, 11])
def test_rows_in_file_order_go_on_too(write: Write, reference: dict[bool, Run], step: int) -> None:
    """After 7 steps an epoch is over, after 11 one is half done."""
    recipe = write("ordered", *SETTINGS, "data.shuffle=false", lora=LORA)
    stopped_at(recipe, step)
    assert weights(go_on(recipe)) == weights(reference[False])


def test_the_loss_between_two_log_steps_is_the_mean_of_all_of_them(write: Write) -> None:
    settings = ("training.max_steps=6", "training.save_steps=4", "training.logging_steps=3")
    whole = straight(write("whole", *settings))
    recipe = write("parts", *settings)
    run = runs.create(recipe)
    from llmbench.training.loop import record

    def die(recorder: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 4:
            raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", die)
        with pytest.raises(SystemExit):
            training.train(recipe, run)
    assert steps(run) == [4]
    go_on(recipe)
    assert [(row["step"], row["loss"]) for row in run.metrics()] == [(row["step"], row["loss"]) for row in whole.metrics()]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: _cut(folder / "adapter_model.safetensors"), "adapter_model.safetensors: is cut off"),
        (lambda folder: _flip(folder / "optimizer.safetensors"), "optimizer.safetensors differs from what was written"),
        (lambda folder: (folder / "trainer_state.json").write_text('{"global_step": '), "trainer_state.json has "),
        (lambda folder: (folder / "random.json").unlink(), "random.json is missing"),
        (lambda folder: (folder / checkpoints.MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / checkpoints.MANIFEST).unlink(), "it has no manifest.json"),
        (lambda folder: (folder / "notes.json").write_text("{}"), "notes.json was not saved with it"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_seen(again: TrainRecipe, damage: Any, says: str) -> None:
    folder = runs.open_run("again").checkpoints
    assert checkpoints.fault(folder / "checkpoint-9") is None
    damage(folder / "checkpoint-9")
    found, named = checkpoints.choose(folder)
    assert found is not None and found.name == "checkpoint-8"
    assert len(named) == 1 and named[0].startswith("checkpoint-9 is damaged (") and says in named[0]


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    again: TrainRecipe, reference: dict[bool, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    _cut(runs.open_run("again").checkpoints / "checkpoint-9" / "optimizer.safetensors")
    run = go_on(again)
    said = capsys.readouterr().err
    assert "checkpoint-9 is damaged (" in said and "optimizer.safetensors: is cut off" in said
    assert weights(run) == weights(reference[True])
    assert [row["step"] for row in run.metrics()] == list(range(1, 13))


def test_nothing_is_begun_anew_when_every_checkpoint_is_damaged(again: TrainRecipe) -> None:
    run = runs.open_run("again")
    for path in checkpoints.every(run.checkpoints):
        (path / "random.json").unlink()
    with pytest.raises(RunError, match=r"no checkpoint is intact: checkpoint-9 is damaged .*Start again with --overwrite"):
        go_on(again)
    assert steps(run) == [2, 4, 6, 8, 9]


def test_a_step_can_be_chosen_and_what_came_after_it_goes(again: TrainRecipe, reference: dict[bool, Run]) -> None:
    run = runs.open_run("again")
    with pytest.raises(RunError, match=r"again has no checkpoint of step 5 \(available: 2, 4, 6, 8, 9\)"):
        go_on(again, resume_from_checkpoint=5)
    (run.checkpoints / "checkpoint-6" / "random.json").unlink()
    with pytest.raises(RunError, match=r"checkpoint-6 is damaged: random\.json is missing"):
        go_on(again, resume_from_checkpoint=6)
    stopped_at(again, 5, run, resume=True, resume_from_checkpoint=4)
    assert steps(run) == [2, 4, 5]
    assert weights(go_on(again)) == weights(reference[True])


def test_a_run_killed_after_its_last_checkpoint_takes_no_step_more(again: TrainRecipe, reference: dict[bool, Run]) -> None:
    """12 steps are not a whole number of epochs: transformers' loop would take a thirteenth."""
    from llmbench.training import save

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "result", killed)
        with pytest.raises(SystemExit):
            go_on(again)
    run = runs.open_run("again")
    assert steps(run)[-1] == 12
    assert weights(go_on(again)) == weights(reference[True])
    assert run.status["step"] == 12 and run.metrics()[-1]["step"] == 12


def test_what_matters_may_not_change_and_what_does_not_may(again: TrainRecipe, write: Write) -> None:
    from llmbench import recipe

    def changed(*overrides: str) -> TrainRecipe:
        return recipe.load(again.source, TrainRecipe, (*SETTINGS, *overrides))

    refused = r"another recipe \(lora\.r: 4 -> 8, training\.learning_rate: 0\.005 -> 0\.001\)"
    with pytest.raises(RunError, match=refused):
        runs.resume(changed("lora.r=8", "training.learning_rate=1e-3", "training.logging_steps=5"))
    with pytest.raises(RunError, match=r"training\.max_steps: 12 -> 10"):
        runs.resume(changed("training.max_steps=10"))
    longer = changed("training.max_steps=14", "training.logging_steps=2")
    run = go_on(longer)
    assert run.status["step"] == 14
    assert run.lock["changed"] == [{"step": 9, "recipe": ["training.logging_steps: 1 -> 2", "training.max_steps: 12 -> 14"]}]
    assert [row["step"] for row in run.metrics() if row["step"] > 9 and "loss" in row] == [10, 12, 14]
    assert Run(run.folder).recipe["training"]["max_steps"] == 14


def test_the_newest_checkpoints_stay(write: Write) -> None:
    run = stopped_at(write("few", "training.save_steps=2", "training.save_total_limit=2"), 9)
    assert steps(run) == [8, 9]
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]


def test_a_manifest_says_what_a_checkpoint_holds(again: TrainRecipe) -> None:
    folder = runs.open_run("again").checkpoints / "checkpoint-9"
    manifest = json.loads((folder / checkpoints.MANIFEST).read_text(encoding="utf-8"))
    assert manifest["step"] == 9
    assert {"adapter_model.safetensors", "optimizer.safetensors", "random.json", "running.json"} <= manifest["files"].keys()
    assert not [name for name in manifest["files"] if name.endswith(checkpoints.PICKLES)]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_finished_run_takes_more_steps_as_a_stopped_one_does(write: Write) -> None:
    """From the state in which it ended: the same as a run that was stopped there and went on with the longer schedule."""
    fewer = tuple(setting for setting in SETTINGS if "max_steps" not in setting)
    one = write("one", *fewer, "training.max_steps=4", "training.lr_scheduler_type=constant", lora=LORA)
    run = straight(one)
    assert steps(run) == [4]
    with pytest.raises(RunError, match=r"is finished \(4 steps\)\. To train it further, raise training\.num_train_epochs"):
        runs.resume(one)
    longer = write("one", *fewer, "training.max_steps=6", "training.lr_scheduler_type=constant", lora=LORA)
    training.train(longer, runs.resume(longer), resume=True)
    assert run.state == "finished" and run.status["step"] == 6 and steps(run) == [6]
    whole = write("whole", *fewer, "training.max_steps=6", "training.lr_scheduler_type=constant", lora=LORA)
    assert weights(run) == weights(straight(whole))
    shutil.rmtree(run.checkpoints)
    still = write("one", *fewer, "training.max_steps=8", "training.lr_scheduler_type=constant", lora=LORA)
    with pytest.raises(RunError, match=r"kept no checkpoint.*name=NEW adapter_name_or_path=one"):
        runs.resume(still)


def test_the_steps_of_a_run_are_told_while_it_trains(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.cli.runs import record as shown
    from llmbench.training.loop import record

    monkeypatch.setattr(record, "_STATE_SECONDS", -1.0)
    seen: list[dict[str, Any]] = []
    told = record.Recorder._tell

    def look(recorder: Any, state: Any) -> None:
        told(recorder, state)
        seen.append(shown(recorder.run))

    monkeypatch.setattr(record.Recorder, "_tell", look)
    straight(write("told", "training.max_steps=3"))
    assert [(one["state"], one["step"], one["steps"]) for one in seen] == [("running", step, 3) for step in range(4)]
    assert seen[0]["seconds_left"] is None and seen[2]["seconds_left"] > 0 and seen[2]["loss"] > 0
