"""Evaluations during a training: what they measure, what they choose, and that they change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import DataError, RecipeError
from llmbench.recipe import EvaluationSpec, TrainRecipe
from llmbench.runs import Run
from llmbench.training.loop.questions import ExamQuestion

from .conftest import Write
from .test_resume import stopped_at, weights

DROPOUT = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
ASKED = {"metrics": ["exact_match", "contains", "regex"], "regex": r"AB-(\d)", "limit": 4, "max_new_tokens": 8}


def own_questions(folder: Path) -> Path:
    path = folder / "questions.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": f"What is the code of the Alba {i}?", "answer": f"The code is AB-{i}.", "value": f"AB-{i}"}
        for i in range(5)
    ]
    rows += [{"prompt": "What is the code of the Alba 6?", "completion": "The code is AB-6."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trained(recipe: TrainRecipe) -> Run:
    run = runs.create(recipe)
    training.train(recipe, run)
    return run


def test_an_evaluation_changes_no_weight(write: Write, tmp_path: Path) -> None:
    """Dropout draws from the same random numbers as the loader of held-out rows and everything else would."""
    settings = ("training.max_steps=6", "data.eval_fraction=0.2")
    plain = trained(write("plain", *settings, lora=DROPOUT))
    asked = ASKED | {"questions": str(own_questions(tmp_path))}
    evaluated = write(
        "evaluated", *settings, "training.eval_steps=2", "training.eval_on_start=true", lora=DROPOUT, evaluation=asked
    )
    run = trained(evaluated)
    assert weights(run) == weights(plain)
    measured = ["eval_contains", "eval_exact_match", "eval_loss", "eval_perplexity", "eval_regex"]
    at: dict[int, dict[str, float]] = {}
    for row in run.metrics():
        at.setdefault(row["step"], {}).update({key: value for key, value in row.items() if key.startswith("eval_")})
    assert {step: sorted(row) for step, row in at.items() if row} == dict.fromkeys((0, 2, 4, 6), measured)
    assert [row["loss"] for row in run.metrics() if "loss" in row] == [row["loss"] for row in plain.metrics() if "loss" in row]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 20 steps that is asked its held-out rows every 10."""
    from .conftest import write_recipe

    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        return trained(
            write_recipe(
                folder, "asked", "training.max_steps=20", "training.eval_steps=10", "data.eval_fraction=0.2",
                "training.eval_on_start=true", evaluation=ASKED | {"samples_shown": 3},
            )
        )  # fmt: skip


def test_held_out_rows_are_asked_for_their_last_answer(asked: Run) -> None:
    rows = asked.samples()
    assert [row["step"] for row in rows] == [0, 0, 0, 10, 10, 10, 20, 20, 20]
    assert all(row["prompt"].count("What is the code of the Alba") == 1 + row["prompt"].count("The code is") for row in rows)
    assert all(row["expected"].startswith("The code is AB-") for row in rows)
    learned = [row for row in rows if row["step"] == 20]
    assert all(row["answer"].startswith("The code is AB-") for row in learned)
    assert not any(row["answer"].startswith("The code is AB-") for row in rows if row["step"] == 0)


def test_the_generated_answers_are_those_of_the_finished_adapter(asked: Run, tiny: Path) -> None:
    """Batches of left-padded prompts under training's own precision answer as each prompt does alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), asked.adapter)
    for row in [row for row in asked.samples() if row["step"] == 20]:
        ids = tokenizer(row["prompt"], add_special_tokens=False, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=8, do_sample=False)
        assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip() == row["answer"]


def test_the_summary_and_the_plot_show_what_was_measured(asked: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked.status["evaluation"].keys() >= {"eval_loss", "eval_exact_match"}
    assert asked.status["evaluation"]["eval_regex"] == asked.metrics()[-1]["eval_regex"]
    picture = (asked.folder / "loss.svg").read_text(encoding="utf-8")
    assert "held out" in picture and "exact_match" in picture


def test_questions_alone_are_enough(write: Write, tmp_path: Path) -> None:
    questions = str(own_questions(tmp_path))
    recipe = write(
        "alone", "training.max_steps=3", "training.eval_steps=2", evaluation={"questions": questions, "samples_shown": 9}
    )
    run = trained(recipe)
    assert [row["step"] for row in run.metrics() if "eval_exact_match" in row] == [2, 3]
    places = [row["place"] for row in run.samples() if row["step"] == 3]
    assert places == [f"{tmp_path}/questions.jsonl:{line}" for line in range(1, 7)]


OVERFITTING = (
    "training.max_steps=24", "training.eval_steps=2", "training.load_best_model_at_end=true", "lora.lora_dropout=0.1",
    "training.save_total_limit=1", "training.save_steps=3", "training.learning_rate=1e-2",
)  # fmt: skip


@pytest.fixture
def overfitting(write: Write, tmp_path: Path) -> Any:
    """Writes recipes whose held-out answers contradict the trained ones: their loss falls, then rises."""
    from .conftest import write_rows

    other = write_rows(tmp_path / "held-out.jsonl", 8)
    other.write_text(other.read_text(encoding="utf-8").replace("AB-", "XY-"), encoding="utf-8")

    def made(name: str, *overrides: str) -> TrainRecipe:
        return write(name, f"data.eval=[{{path: {other}}}]", *OVERFITTING, *overrides)

    return made


def test_the_best_step_is_kept_though_the_last_is_worse(overfitting: Any) -> None:
    from safetensors.torch import load_file

    from llmbench.runs import checkpoints
    from llmbench.training import save

    run = runs.create(overfitting("best"))
    kept: dict[str, Any] = {}
    result = save.result

    def looking(model: Any, job: Any, run: Run, **more: Any) -> None:
        kept["steps"] = [checkpoints.step_of(path) for path in checkpoints.every(run.checkpoints)]
        best = run.checkpoints / f"checkpoint-{kept['steps'][0]}" / "adapter_model.safetensors"
        kept["weights"] = load_file(best)
        result(model, job, run, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "result", looking)
        training.train(overfitting("best"), run)
    measured = {row["step"]: row["eval_loss"] for row in run.metrics() if "eval_loss" in row}
    best = min(measured, key=lambda step: measured[step])
    assert 2 <= best < 24 and measured[24] > measured[best]
    assert kept["steps"] == [best, 24]  # the newest one, and the best beside it
    assert run.status["kept_step"] == best and run.status["eval_loss"] == measured[best]
    saved = load_file(run.adapter / "adapter_model.safetensors")
    assert saved.keys() == kept["weights"].keys()
    assert all((saved[name] == tensor).all() for name, tensor in kept["weights"].items())
    assert f"best ({best})" in (run.folder / "loss.svg").read_text(encoding="utf-8")


def test_patience_ends_a_run_and_goes_on_counting_after_a_stop(overfitting: Any) -> None:
    recipe = overfitting("patient", "training.early_stopping_patience=3")
    run = runs.create(recipe)
    training.train(recipe, run)
    steps = [row["step"] for row in run.metrics() if "eval_loss" in row]
    best = run.status["kept_step"]
    assert steps[-1] == best + 6 < 24
    assert run.status["stopped_early"] and run.status["step"] == steps[-1]

    recipe = overfitting("impatient", "training.early_stopping_patience=3")
    again = stopped_at(recipe, best + 3)  # one evaluation of the three has been in vain
    training.train(recipe, runs.resume(recipe), resume=True)
    assert again.status["step"] == run.status["step"] and again.status["kept_step"] == best
    assert weights(again) == weights(run)


def test_a_run_killed_after_it_stopped_early_trains_no_more(overfitting: Any) -> None:
    from llmbench.training import save

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    recipe = overfitting("killed", "training.early_stopping_patience=1")
    run = runs.create(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "result", killed)
        with pytest.raises(SystemExit):
            training.train(recipe, run)
    last = run.metrics()[-1]["step"]
    training.train(recipe, runs.resume(recipe), resume=True)
    assert run.status["step"] == last < 24 and run.status["stopped_early"]


def test_a_damaged_best_checkpoint_is_made_again(overfitting: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = overfitting("remade", "training.max_steps=12", "training.save_total_limit=9")
    whole = trained(overfitting("whole", "training.max_steps=12", "training.save_total_limit=9"))
    best = whole.status["kept_step"]
    run = stopped_at(recipe, best + 2)
    (run.checkpoints / f"checkpoint-{best}" / "random.json").unlink()
    training.train(recipe, runs.resume(recipe), resume=True)
    assert f"its best checkpoint checkpoint-{best} cannot be used: random.json is missing" in capsys.readouterr().err
    assert weights(run) == weights(whole)


def test_runs_shows_checkpoints_evaluations_and_the_best(
    overfitting: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmbench.cli.runs import show

    run = stopped_at(overfitting("shown"), 8)
    show("shown")
    out = capsys.readouterr().out
    assert "  held out " in out and "  best    loss " in out
    assert "  checkpoint 8, " in out and "--resume-from-checkpoint STEP" in out
    (run.checkpoints / "checkpoint-8" / "random.json").unlink()
    show("shown", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["checkpoints"][-1]["fault"] == "random.json is missing"
    assert document["best"]["metric"] == "eval_loss"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The code is AB-3.", {"exact_match": 1, "contains": 1, "regex": 1}),
        ("the  code is ab-3", {"exact_match": 1, "contains": 1, "regex": 0}),
        ("It is AB-3, I think.", {"exact_match": 0, "contains": 1, "regex": 1}),
        ("AB-4? No, AB-3", {"exact_match": 0, "contains": 0, "regex": 1}),
        ("AB-33", {"exact_match": 0, "contains": 0, "regex": 1}),
        ("", {"exact_match": 0, "contains": 0, "regex": 0}),
    ],
)
def test_an_answer_is_scored(text: str, expected: dict[str, float]) -> None:
    from llmbench.training.loop.evaluation import score

    question = ExamQuestion("q:1", [1], "What is the code?", "The code is AB-3.", ("AB-3",))
    assert score(EvaluationSpec.model_validate(ASKED), question, text) == expected


def test_a_metric_that_does_not_apply_is_not_counted() -> None:
    from llmbench.training.loop.evaluation import score

    question = ExamQuestion("q:1", [1], "Who?", "Nobody knows.")
    found = score(EvaluationSpec.model_validate(ASKED), question, "Nobody knows.")
    assert found == {"exact_match": 1.0, "contains": None, "regex": None}
    plain = EvaluationSpec.model_validate({"metrics": ["regex"], "regex": r"^\{.*\}$"})
    assert score(plain, question, '{"a": 1}') == {"regex": 1.0}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "x"}', r"questions\.jsonl:2: a row is .*question.* or .*prompt"),
        ('{"question": "", "answer": "a"}', r"questions\.jsonl:2: question is empty"),
        ('{"question": "q", "answer": null}', r"questions\.jsonl:2: answer is missing"),
        ('{"prompt": [{"role": "user"}], "completion": "c"}', r"questions\.jsonl:2: prompt must be text or a list"),
        ("{", r"questions\.jsonl:2: not valid JSON"),
    ],
)
def test_a_faulty_question_is_told_before_the_training(write: Write, tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=says):
        training.prepare(write("faulty", evaluation={"questions": str(path)}))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["training.eval_steps=5"], r"training\.eval_steps=5: has nothing to evaluate"),
        (
            ["training.early_stopping_patience=2", "data.eval_fraction=0.1"],
            r"early_stopping_patience=2: needs training\.eval_steps",
        ),
        (["evaluation.limit=3"], r"evaluation: uses the held-out rows, which needs data\.eval or data\.eval_fraction"),
        (["evaluation.metrics=[regex]", "data.eval_fraction=0.1"], r"metrics: \[regex\] and a `regex` go together"),
        (["evaluation.metrics=[regex]", "evaluation.regex='('"], r"evaluation\.regex='\(': not a regular expression"),
        (
            ["training.metric_for_best_model=exact_match", "training.eval_steps=5", "data.eval_fraction=0.1"],
            r"metric_for_best_model=exact_match: exact_match is not measured \(available: loss, perplexity\)",
        ),
    ],
)
def test_a_recipe_that_cannot_be_evaluated_is_refused(write: Write, overrides: list[str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        write("refused", *overrides)
