"""`llmbench runs diff`: what differs between two runs, also where one was recorded by an earlier version."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import recipe, runs
from llmbench.cli.main import cli
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.runs.diff import RunDiff, diff
from llmbench.runs.ingredients import compare

LOCK: dict[str, Any] = {
    "seed": 42,
    "versions": {"torch": "2.13.0", "trl": "1.16.0", "llmbench_code": "aa"},
    "hardware": {"device": "cpu", "dtype": "float32", "processor": "X", "cores": 2, "threads": 2, "memory_bytes": 1},
    "numerics": {"instructions": "AVX2", "environment": {}},
    "data": {
        "train": [{"path": "/rows.jsonl", "sha256": "ab" * 32, "bytes": 3, "files": [{"name": "r", "sha256": "ab" * 32}]}],
        "eval": [],
    },
    "rows": {"train": {"rows": 3, "sha256": "cd" * 32}},
    "model": {"name": "base", "revision": None, "fingerprint": {"weights": "ee" * 32, "tokenizer": "ff" * 32}},
    "template": "12" * 32,
    "questions": None,
    "method": {},
    "settled": {"padding_free": True},
}


@pytest.fixture
def made(tmp_path: Path, home: Path) -> Any:
    """Makes a run of three logged steps, its lock changed by a function and its losses shifted from a step on."""
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "other.jsonl").write_text("{}\n", encoding="utf-8")
    document = tmp_path / "my.yaml"
    document.write_text("name: a\ndata: {train: [{path: rows.jsonl}]}\n", encoding="utf-8")

    def make(name: str, *overrides: str, lock: Any = None, shift: tuple[int, float] = (9, 0.0)) -> Run:
        run = runs.create(recipe.load(document, TrainRecipe, [f"name={name}", *overrides]))
        values = deepcopy(LOCK)
        if lock is not None:
            lock(values)
        run.write_lock(values)
        for step in (1, 2, 3):
            run.log({"step": step, "loss": 3.0 - step / 2 + (shift[1] if step >= shift[0] else 0), "grad_norm": 1.0})
        run.log({"step": 3, "eval_loss": 1.5 + shift[1]})
        run.adapter.mkdir()
        (run.adapter / "adapter_model.safetensors").write_bytes(f"weights {shift}".encode())
        run.mark("finished", step=3, loss=1.5 + shift[1], seconds=2.0, evaluation={"eval_loss": 1.5 + shift[1]})
        return run

    return make


def states(found: RunDiff) -> dict[str, str]:
    return {f"{one.part} {one.name}": one.state for one in found.ingredients if one.state != "same"}


def test_two_runs_of_one_recipe_are_the_same_training_with_the_same_result(made: Any) -> None:
    found = diff(made("a"), made("b"))
    assert found.same_training and found.same_weights and found.parts_at is None
    assert found.settings == () and states(found) == {}
    assert {(pair.metric, pair.steps, pair.largest) for pair in found.curves} == {
        ("loss", 3, 0.0), ("grad_norm", 3, 0.0), ("eval_loss", 1, 0.0),
    }  # fmt: skip


def test_curves_name_the_first_step_that_differs_and_the_largest_difference(made: Any) -> None:
    found = diff(made("a"), made("b", shift=(2, 0.25)))
    loss = next(pair for pair in found.curves if pair.metric == "loss")
    assert (loss.first, loss.largest, loss.at, loss.steps) == (2, 0.25, 2, 3)
    assert found.parts_at == 2 and found.same_training and found.same_weights is False
    assert found.figures["loss (held out)"] == (1.5, 1.75)


@pytest.mark.parametrize(
    ("override", "place", "kind", "same"),
    [
        ("training.learning_rate=0.01", "training.learning_rate", "matters", False),
        ("training.logging_steps=3", "training.logging_steps", "shown", True),
        ("tracking=tensorboard", "tracking.to", "shown", True),
        ("data.train.0.path=other.jsonl", "data.train.0.path", "place", True),
        ("lora=null", "lora", "matters", False),
        ("training.padding_free=true", "training.padding_free", "chosen", True),
        ("training.torch_compile=true", "training.torch_compile", "matters", False),
        ("model.dtype=float32", "model.dtype", "chosen", True),
    ],
)
def test_settings_differ_by_their_dotted_places(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, place: str, kind: str, same: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    found = diff(made("a"), made("b", override))
    assert [(one.place, one.kind) for one in found.settings] == [(place, kind)]
    assert found.same_training is same and found.unlike == (() if same else ("recipe",))


def test_another_path_with_other_content_is_another_training(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(lock: Any) -> None:
        lock["data"]["train"][0]["sha256"] = "00" * 32
        lock["rows"]["train"]["sha256"] = "11" * 32

    monkeypatch.chdir(tmp_path)
    found = diff(made("a"), made("b", "data.train.0.path=other.jsonl", lock=other))
    assert found.unlike == ("recipe", "data", "rows") and found.settings[0].kind == "matters"


def changed(lock: Any, *places: str, to: Any) -> Any:
    values = deepcopy(lock)
    here = values
    for place in places[:-1]:
        here = here[int(place)] if isinstance(here, list) else here[place]
    here[places[-1]] = to
    return values


@pytest.mark.parametrize(
    ("places", "to", "said"),
    [
        (("seed",), 7, "seed: seed: 42 -> 7"),
        (("versions", "torch"), "3.0", "packages: torch: 2.13.0 -> 3.0"),
        (("versions", "llmbench_code"), "bb", "packages: llmbench_code: aa -> bb"),
        (("hardware", "threads"), 1, "hardware: threads: 2 -> 1"),
        (("numerics", "environment"), {"MKL_CBWR": "AVX2"}, "numerics: environment.MKL_CBWR: not set -> AVX2"),
        (("model", "fingerprint", "weights"), "99" * 32, "base: base: eeeeeeeeeeee -> 999999999999"),
        (("template",), None, "template: chat template: 121212121212 -> none"),
        (("rows", "train", "rows"), 2, "rows: train: 3 rows, cdcdcdcdcdcd -> 2 rows, cdcdcdcdcdcd"),
        (("settled", "padding_free"), False, "settled: padding_free: true -> false"),
        (("data", "eval"), LOCK["data"]["train"], "data: eval[0] /rows.jsonl: none -> abababababab"),
        (
            ("changed",),
            [{"step": 4, "recipe": ["training.max_steps: 4 -> 7", "training.logging_steps: 3 -> 1"]}],
            "history: resumed with another recipe: none -> step 4: training.max_steps: 4 -> 7",
        ),
        (("questions",), {"path": "q.jsonl", "sha256": "77" * 32}, "questions: q.jsonl: none -> 777777777777"),
    ],
)
def test_each_ingredient_that_differs_is_named(places: tuple[str, ...], to: Any, said: str) -> None:
    found = [str(one) for one in compare(LOCK, changed(LOCK, *places, to=to)) if one.state != "same"]
    assert found == [said]


@pytest.mark.parametrize("place", ["cores", "memory_bytes"])
def test_memory_and_cores_that_do_not_compute_are_no_difference(place: str) -> None:
    assert all(one.state == "same" for one in compare(LOCK, changed(LOCK, "hardware", place, to=99)))


def test_which_file_of_a_folder_changed_is_named() -> None:
    two = [{"name": "a.jsonl", "sha256": "1"}, {"name": "b.jsonl", "sha256": "2"}]
    one = changed(LOCK, "data", "train", "0", "files", to=two)
    other = changed(one, "data", "train", "0", "files", to=[two[0], {"name": "b.jsonl", "sha256": "3"}])
    assert [i.name for i in compare(one, other) if i.state == "differs"] == ["train[0] /rows.jsonl/b.jsonl"]


def test_what_an_earlier_version_did_not_record_is_no_difference(made: Any) -> None:
    def earlier(lock: Any) -> None:
        for key in ("rows", "template", "questions", "numerics", "settled"):
            del lock[key]
        del lock["versions"]["llmbench_code"], lock["data"]["train"][0]["files"]

    b = made("b", lock=earlier)
    old = b.recipe
    del old["evaluation"], old["training"]["adam_beta2"], old["data"]["train"][0]["weight"]
    (b.folder / "recipe.yaml").write_text(json.dumps(old), encoding="utf-8")
    found = diff(made("a"), b)
    assert found.settings == () and set(states(found).values()) == {"not recorded"} and found.same_training
    assert {"rows train", "packages llmbench_code", "numerics instructions"} <= states(found).keys()


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["runs", "diff", *arguments])


def test_the_verb_says_plainly_whether_it_is_the_same_training(made: Any) -> None:
    made("a")
    made("b", shift=(2, 0.25))
    made("c", "training.seed=7", lock=lambda lock: lock.update(seed=7))
    same, other = typed("a", "b").stdout, typed("a", "c").stdout
    assert "The same training: recipe, data, base, template and seed are equal." in same
    assert "The results differ: the curves part at step 2." in same
    assert "differ from step 2 on; at most 0.25 (0.11 of the value) at step 2, of 3 common steps" in same
    assert "Different trainings: recipe and seed differ." in other
    assert [line.split() for line in other.splitlines() if line.startswith("training.seed")] == [["training.seed", "42", "7"]]


def test_curves_have_one_scale_so_that_they_can_be_compared(made: Any) -> None:
    made("a")
    made("b", shift=(1, 7.0))
    lines = [line for line in typed("a", "b").stdout.splitlines() if line.startswith("  loss ")]
    assert [line.split()[3] for line in lines] == ["▂▁▁", "██▇"]


def test_the_json_of_a_comparison_is_one_document(made: Any) -> None:
    made("a")
    made("b", "training.learning_rate=0.01")
    found = json.loads(typed("a", "b", "--json").stdout)
    assert found["same_training"] is False and found["unlike"] == ["recipe"]
    assert found["settings"] == [{"place": "training.learning_rate", "a": 0.0002, "b": 0.01, "kind": "matters"}]
    assert found["figures"]["seconds"] == {"a": 2.0, "b": 2.0}
