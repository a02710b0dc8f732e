"""`llmbench replay`: the same bits again, and what was changed on purpose is named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests import warm
from typer.testing import CliRunner, Result

from llmbench import hardware, recipe, runs, training
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.runs.diff import CurvePair
from llmbench.runs.ingredients import Ingredient
from llmbench.training.replaying import check, replay
from llmbench.training.replaying.check import threads
from llmbench.training.replaying.verdict import judge, tolerance
from llmbench.training.replaying.weights import WeightPair, weights

from .conftest import Write, write_recipe
from .judgements import written
from .test_resume import stopped_at

SETTINGS = (
    "training.max_steps=6", "training.save_steps=3", "training.eval_steps=3", "training.eval_on_start=true",
    "data.eval_fraction=0.1", "lora.lora_dropout=0.1", "training.per_device_train_batch_size=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def original(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a base of its own, and the outputs of a finished run of 6 steps."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(tiny, folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        document = write_recipe(folder, "mine", *SETTINGS, model={"model_name_or_path": str(folder / "base")})
        training.train(document, runs.create(document))
    return folder


@pytest.fixture
def recorded(original: Path, home: Path) -> Iterator[Run]:
    """That run in this test's own outputs; its data and its base are as they were when the test is over."""
    shutil.copytree(original / "outputs", home)
    files = [original / "rows.jsonl", original / "base" / "model.safetensors"]
    before = [file.read_bytes() for file in files]
    yield runs.open_run("mine")
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit(run: Run, *places: str, to: Any) -> None:
    """Plants a fault in the lock."""
    values = run.lock
    here = values
    for place in places[:-1]:
        here = here[place]
    here[places[-1]] = to
    run.write_lock(values)


def differing(checked: Any) -> list[str]:
    return [f"{one.part}: {one.name}" for one in checked.ingredients if one.state == "differs"]


def test_a_replay_ends_with_the_same_bits_and_only_reads_the_recording(recorded: Run, home: Path) -> None:
    before = everything(recorded.folder)
    done = replay(check(recorded, "again"))
    assert (done.verdict.word, done.verdict.first, done.whole, done.steps) == ("same bits", None, True, 6)
    assert done.verdict.steps == 6 and {"loss", "grad_norm", "eval_loss"} <= {pair.metric for pair in done.verdict.curves}
    assert done.verdict.weights is not None and done.verdict.weights.what == "adapter" and done.verdict.weights.tensors > 0
    assert done.verdict.changed == () and everything(recorded.folder) == before
    assert done.run.folder == home / "runs" / "again"
    assert json.loads((done.run.folder / "replay.json").read_text(encoding="utf-8"))["of"] == "mine"
    found = runs.diff.diff(recorded, done.run)
    assert found.same_training and found.same_weights


def test_a_replay_of_some_steps_keeps_the_schedule_and_compares_the_checkpoint_of_the_last(recorded: Run) -> None:
    done = replay(check(recorded, "some"), steps=3)
    assert (done.verdict.word, done.steps, done.whole) == ("same bits", 3, False)
    assert done.run.status["state"] == "stopped" and done.run.status["reason"] == "replayed up to step 3"
    assert done.verdict.weights is None, "the recording kept its last checkpoint only"
    edit_checkpoint = recorded.checkpoints / "checkpoint-3"
    shutil.copytree(done.run.checkpoints / "checkpoint-3", edit_checkpoint)
    again = replay(check(recorded, "some"), steps=4, overwrite=True)
    assert again.verdict.weights is not None and again.verdict.weights.what == "checkpoint-3"
    assert again.verdict.word == "same bits"


def change_a_row(original: Path) -> None:
    rows = (original / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows[11] = rows[11].replace("AB-", "XY-")
    (original / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def drop_rows(original: Path) -> None:
    rows = (original / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (original / "rows.jsonl").write_text("\n".join(rows[:-5]) + "\n", encoding="utf-8")


def change_a_weight(original: Path) -> None:
    path = original / "base" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] += 1.0
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("plant", "part", "also"),
    [(change_a_row, "data", ["rows"]), (drop_rows, "data", ["rows"]), (change_a_weight, "base", [])],
)
def test_changed_data_or_base_is_named_and_refused_and_trained_on_anyway_differs(
    recorded: Run, original: Path, home: Path, plant: Any, part: str, also: list[str]
) -> None:
    plant(original)
    checked = check(recorded, "again")
    assert [one.part for one in checked.content] == [part]
    with pytest.raises(RunError, match=rf"Run mine was trained on something else: {part}: .*--anyway"):
        replay(checked)
    assert not (home / "runs" / "again").exists()
    verdict = replay(checked, anyway=True).verdict
    assert verdict.word == "differs" and verdict.first is not None
    assert list(dict.fromkeys(one.part for one in verdict.changed)) == [part, *also]


def test_another_seed_is_named_and_differs_from_the_first_step(recorded: Run) -> None:
    path = recorded.folder / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["training"]["seed"] = 7
    values["tracking"]["to"] = ["tensorboard"]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    checked = check(recorded, "again")
    assert [str(one) for one in checked.content] == ["seed: seed: 42 -> 7"]
    assert checked.stretches[0].recipe.tracking.to == [], "trackers are told nothing of a replay"
    verdict = replay(checked, anyway=True).verdict
    assert (verdict.word, verdict.first) == ("differs", 0), "the evaluation before the first step, of other rows held out"


def test_rows_that_another_template_or_a_hub_changed_are_refused_although_the_files_are_the_same(recorded: Run) -> None:
    edit(recorded, "rows", "train", "sha256", to="0" * 64)
    checked = check(recorded, "again")
    assert checked.same
    with pytest.raises(RunError, match="trained on something else: rows: train"):
        replay(checked)


def test_other_versions_and_hardware_are_named_and_do_not_keep_from_replaying(recorded: Run) -> None:
    edit(recorded, "versions", "torch", to="1.0.0")
    edit(recorded, "versions", "llmbench_code", to="0")
    edit(recorded, "hardware", "processor", to="Z80")
    edit(recorded, "hardware", "threads", to=4096)
    verdict = replay(check(recorded, "again")).verdict
    assert verdict.word == "same bits"
    assert [f"{one.part}: {one.name}" for one in verdict.changed] == [
        "packages: torch", "packages: llmbench_code", "hardware: processor", "hardware: threads",
    ]  # fmt: skip


def test_as_many_threads_as_recorded_are_used_and_given_back() -> None:
    before = torch.get_num_threads()
    wanted = 2 if before == 1 else 1
    with threads({"hardware": {"device": "cpu", "threads": wanted}}):
        assert torch.get_num_threads() == (wanted if wanted <= hardware.cores() else before)
    assert torch.get_num_threads() == before
    with threads({"hardware": {"device": "cpu", "threads": hardware.cores() + 1}}):
        assert torch.get_num_threads() == before


def test_a_lock_of_an_earlier_version_is_replayed_and_what_it_lacks_is_not_recorded(recorded: Run) -> None:
    old = recorded.lock
    for key in ("rows", "settled", "numerics", "template", "questions"):
        del old[key]
    del old["versions"]["llmbench_code"]
    recorded.write_lock(old)
    verdict = replay(check(recorded, "again")).verdict
    assert verdict.word == "same bits" and verdict.changed == ()
    assert {"rows", "settled", "numerics"} <= {one.part for one in verdict.unknown}


def test_a_killed_replay_leaves_the_recording_as_it_was(recorded: Run, home: Path) -> None:
    before = everything(recorded.folder)
    program = """
        import os, signal
        from llmbench import runs
        from llmbench.training.replaying import check, replay

        def kill(step, steps, figures):
            if step == 4:
                os.kill(os.getpid(), signal.SIGKILL)

        replay(check(runs.open_run("mine"), "again"), progress=kill)
    """
    done = warm.run("training", textwrap.dedent(program), env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode != 0
    assert everything(recorded.folder) == before
    killed = runs.open_run("again")
    assert (killed.status["state"], killed.status["reason"]) == ("stopped", "killed")
    with pytest.raises(RunError, match=r"Run again already exists \(stopped\). Replace it with --overwrite"):
        replay(check(recorded, "again"))
    assert replay(check(recorded, "again"), overwrite=True).verdict.word == "same bits"


def test_a_run_that_took_more_steps_later_is_replayed_with_both_schedules(write: Write) -> None:
    settings = ("training.save_steps=2", "training.logging_steps=3")
    first = write("grown", "training.max_steps=4", *settings)
    run = runs.create(first)
    training.train(first, run)
    longer = recipe.load(
        first.source, TrainRecipe, ["training.max_steps=7", "training.save_steps=2", "training.logging_steps=1"]
    )
    training.train(longer, runs.resume(longer), resume=True)
    checked = check(run, "again")
    assert [(one.until, one.recipe.training.max_steps, one.recipe.training.logging_steps) for one in checked.stretches] == [
        (4, 4, 3), (None, 7, 1),
    ]  # fmt: skip
    done = replay(checked)
    assert (done.verdict.word, done.steps) == ("same bits", 7)
    logged = [row["step"] for row in run.metrics() if "loss" in row]
    assert 4 in logged and max(logged) == 7 and done.verdict.steps == len(logged)


def test_a_run_that_was_stopped_and_resumed_between_two_log_steps_is_replayed_in_one_go(write: Write) -> None:
    document = write("paused", "training.max_steps=6", "training.logging_steps=3", "training.save_steps=10")
    run = stopped_at(document, 4)
    training.train(document, runs.resume(document), resume=True)
    done = replay(check(run, "again"))
    assert done.verdict.word == "same bits" and done.verdict.steps == 4, "steps 1, 3, 4 and 6"


def test_a_run_that_never_ended_is_replayed_as_far_as_it_came(write: Write) -> None:
    document = write("short", "training.max_steps=8")
    done = replay(check(stopped_at(document, 5), "again"))
    assert (done.verdict.word, done.steps, done.whole) == ("same bits", 5, False)
    assert done.verdict.weights is not None and done.verdict.weights.what == "checkpoint-5"


def test_a_model_whose_parameters_are_all_trained_is_compared_tensor_by_tensor(write: Write) -> None:
    document = write("whole", "training.max_steps=2", lora=None, training={"max_steps": 2, "learning_rate": 1e-4})
    run = runs.create(document)
    training.train(document, run)
    verdict = replay(check(run, "again")).verdict
    assert verdict.word == "same bits" and verdict.weights is not None and verdict.weights.what == "model"


@pytest.mark.parametrize("method", ["grpo", "distillation"])
def test_answers_that_a_model_writes_and_the_figures_of_a_teacher_come_out_again(
    tmp_path: Path, home: Path, method: str
) -> None:
    document = written(tmp_path, method, "training.max_steps=2")
    run = runs.create(document)
    training.train(document, run)
    assert replay(check(run, "again")).verdict.word == "same bits"


def without_lock(run: Run) -> None:
    (run.folder / "lock.json").unlink()


def with_vllm(run: Run) -> None:
    values = run.recipe | {"method": "grpo", "grpo": {"use_vllm": True}}
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def without_data(run: Run) -> None:
    Path(run.recipe["data"]["train"][0]["path"]).unlink()


def from_a_hub(run: Run) -> None:
    values = run.recipe
    values["model"]["model_name_or_path"] = "nobody/nothing"
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (without_lock, "has no lock.json"), (with_vllm, "vLLM wrote the answers"), (without_data, "no such file"),
        (from_a_hub, "nobody/nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_says_why(recorded: Run, monkeypatch: pytest.MonkeyPatch, plant: Any, words: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    plant(recorded)
    checked = check(recorded, "again")
    assert len(checked.obstacles) == 1 and words in checked.obstacles[0] and not checked.same
    with pytest.raises(RunError, match="Run mine cannot be replayed: "):
        replay(checked)
    assert typed("mine", "--verify").exit_code == 1


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["replay", *arguments])


def test_the_verb_verifies_without_training(recorded: Run, original: Path, home: Path) -> None:
    same = typed("mine", "--verify")
    assert same.exit_code == 0 and "recorded ingredients are the same here" in same.stdout
    change_a_row(original)
    changed = typed("mine", "--verify")
    assert changed.exit_code == 1 and "differs       data: train[0]" in changed.stdout
    found = json.loads(typed("mine", "--verify", "--json").stdout)
    assert found["same"] is False and found["obstacles"] == []
    assert [one["part"] for one in found["ingredients"] if one["state"] == "differs"] == ["data"]
    assert [path.name for path in (home / "runs").iterdir()] == ["mine"]


def test_the_verb_says_the_verdict_and_ends_with_its_code(recorded: Run, original: Path) -> None:
    same = typed("mine", "--steps", "2")
    assert same.exit_code == 0, same.output
    assert "losses        2 logged steps: equal" in same.stdout and "The same bits. Compared up to step 2." in same.stdout
    change_a_weight(original)
    refused = typed("mine", "--steps", "2", "--overwrite")
    assert isinstance(refused.exception, LlmbenchError) and "base: " in str(refused.exception)
    other = typed("mine", "--steps", "2", "--overwrite", "--anyway")
    assert other.exit_code == 1 and "cause?        base: " in other.stdout and "part at step 1" in other.stdout
    found = json.loads(typed("mine", "--steps", "2", "--overwrite", "--anyway", "--json").stdout)
    assert (found["verdict"], found["same"], found["run"], found["replay"]) == ("differs", False, "mine", "mine-replay")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "7"), "run mine logged 6 steps"), (("--name", "mine"), "a replay has a run of its own"),
        (("--verify", "--steps", "2"), "leave out --steps"), (("--name", "No"), "is not allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(recorded: Run, arguments: tuple[str, ...], words: str) -> None:
    error = typed("mine", *arguments).exception
    assert isinstance(error, LlmbenchError) and words in str(error)


def pair(metric: str, relative: float) -> CurvePair:
    return CurvePair(metric, 5, 3 if relative else None, relative, 4 if relative else None, relative)


def weight(largest: float, unpaired: tuple[str, ...] = ()) -> WeightPair:
    return WeightPair("adapter", 2, int(largest > 0), largest, "a" if largest else None, unpaired)


@pytest.mark.parametrize(
    ("curves", "found", "word"),
    [
        ([pair("loss", 0)], weight(0), "same bits"),
        ([pair("loss", 0), pair("grad_norm", 1e-9)], weight(0), "same within tolerance"),
        ([pair("loss", 1e-5), pair("grad_norm", 0.5)], weight(1e-3), "same within tolerance"),
        ([pair("loss", 1e-5)], None, "same within tolerance"),
        ([pair("loss", 0)], weight(0, ("b",)), "differs"),
        ([pair("loss", 0.2)], weight(0), "differs"),
        ([pair("loss", 0), pair("eval_loss", 0.2)], weight(0), "differs"),
        ([pair("loss", 0)], weight(0.9), "differs"),
        ([], weight(0), "differs"),
    ],
)
def test_the_verdict_of_losses_and_weights(curves: list[CurvePair], found: WeightPair | None, word: str) -> None:
    assert judge(curves, found, tolerance("float32"), []).word == word


def test_rounding_is_no_explanation_where_another_thing_was_trained() -> None:
    near, other = [pair("loss", 1e-6)], Ingredient("data", "train[0]", "a", "b")
    assert judge(near, weight(1e-6), tolerance("float32"), [Ingredient("packages", "torch", "1", "2")]).word != "differs"
    assert judge(near, weight(1e-6), tolerance("float32"), [other]).word == "differs"
    assert judge([pair("loss", 0)], weight(0), tolerance("float32"), [other]).word == "same bits"


def test_the_coarser_precision_decides_what_is_tolerated() -> None:
    assert tolerance("float32", "bfloat16").dtype == "bfloat16"
    assert tolerance("float32", None) == tolerance() == tolerance("float32")
    assert tolerance("bfloat16").loss > tolerance("float32").loss


def test_weights_differ_in_bits_shapes_and_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one = {"same": torch.zeros(2), "signed": torch.zeros(1), "apart": torch.tensor([3.0, 4.0]), "only": torch.ones(1)}
    other = {"same": torch.zeros(2), "signed": -torch.zeros(1), "apart": torch.tensor([3.0, 4.5])}
    save_file(one, tmp_path / "a" / "model-1.safetensors")
    save_file(other, tmp_path / "b" / "model.safetensors")
    found = weights("model", tmp_path / "a", tmp_path / "b")
    assert (found.tensors, found.differing, found.unpaired) == (3, 2, ("only",)) and not found.same_bits
    assert found.worst == "signed" and json.loads(json.dumps(found.as_json(), allow_nan=False))["largest"] is None
