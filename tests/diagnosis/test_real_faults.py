"""Faults of data, precision and judged answers in real trainings of the bundled model, beside ones of their kind without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmbench import diagnosis, runs
from llmbench.diagnosis import Finding
from llmbench.runs import Run

from .conftest import WORDS, written

Fit = Callable[..., Run]


def alarms(run: Run) -> dict[str, Finding]:
    return {one.name: one for one in diagnosis.diagnose(run).alarms}


def chats(path: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    lines = (
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]} for asked, said in pairs
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def fit(home: Path) -> Fit:
    """Trains a recipe over rows that a test makes."""

    def trained(name: str, rows: Iterable[tuple[str, str]], *overrides: str, **sections: Any) -> Run:
        from llmbench import training

        document = written(home, name, chats(home / f"{name}.jsonl", rows), *overrides, **sections)
        run = runs.create(document)
        training.train(document, run)
        return run

    return trained


def last_two(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Questions whose answers follow from them."""
    random = Random(seed)
    drawn = [random.sample(WORDS, 4) for _ in range(count)]
    return [(f"Say the last two of {' '.join(words)}, the last one first.", f"{words[3]} {words[2]}") for words in drawn]


# What is learned


def long_questions(answer: Callable[[list[str]], str]) -> list[tuple[str, str]]:
    random = Random(3)
    drawn = [[random.choice(WORDS) for _ in range(150)] for _ in range(60)]
    return [(" ".join(words), answer(words)) for words in drawn]


LONG = ("data.max_length=1024", "training.max_steps=24")


def test_answers_of_a_word_behind_long_prompts(fit: Fit) -> None:
    found = alarms(fit("masked", long_questions(lambda words: "yes"), *LONG))
    assert set(found) == {"labels mostly masked"}, found
    assert float(found["labels mostly masked"].figures["learned"]) < 0.01


def test_answers_of_some_words_behind_them_are_no_fault(fit: Fit) -> None:
    assert not alarms(fit("told", long_questions(lambda words: " ".join(words[-12:])), *LONG))


def test_answers_that_the_length_cuts_off(fit: Fit) -> None:
    """Two of five questions are longer than what is read."""
    random = Random(5)
    pairs = [
        (f"{' '.join(random.choice(WORDS) for _ in range(40 if i % 5 < 2 else 4))}, please.", f"{random.choice(WORDS)} it is")
        for i in range(100)
    ]
    run = fit("cut", pairs, "data.max_length=48", "data.over_length=truncate", "training.max_steps=8")
    one = alarms(run)["rows cut"]
    assert "40 of 100 rows are not trained on" in one.evidence and one.rows[0].endswith("cut.jsonl:1")
    assert int(one.change[0].partition("=")[2]) > 100


# Copies


def codes(numbers: Iterable[int]) -> list[tuple[str, str]]:
    """Questions whose answers nobody can tell from them."""
    random = Random(7)
    drawn = [(random.sample(WORDS, 3), f"{random.randrange(10**6):06}") for _ in range(200)]
    return [(f"What is the code of {' '.join(words)}?", code) for words, code in (drawn[n] for n in numbers)]


def test_copies_that_are_learned_by_heart(fit: Fit, home: Path) -> None:
    """Twenty rows, eight times each, beside forty that are held out."""
    held = chats(home / "held.jsonl", codes(range(100, 140)))
    settings = (
        "training.max_steps=100", "training.eval_steps=20", "training.learning_rate=1e-2", f"data.eval=[{{path: {held}}}]",
    )  # fmt: skip
    found = alarms(fit("copies", codes([n for n in range(20) for _ in range(8)]), *settings))
    assert set(found) <= {"duplicates learned by heart", "overfitting"}
    assert "140 of 160 training rows" in found["duplicates learned by heart"].evidence


def test_some_copies_of_what_is_understood_are_no_fault(fit: Fit, home: Path) -> None:
    held = chats(home / "others.jsonl", last_two(40, seed=9))
    rows = last_two(140) + last_two(20)
    settings = ("training.eval_steps=10", f"data.eval=[{{path: {held}}}]")
    assert not alarms(fit("understood", rows, *settings))


# Order


def two_kinds() -> list[tuple[str, str]]:
    random = Random(11)
    drawn = [[random.randrange(10, 99) for _ in range(4)] for _ in range(120)]
    other = [(f"Der Reihe nach: {a} {b} {c} {d}?", f"Erst {a}, dann {b}, zuletzt {d}.") for a, b, c, d in drawn]
    return last_two(120) + other


IN_ORDER = ("data.shuffle=false", "training.max_steps=60", "training.lr_scheduler_type=constant", "training.logging_steps=1")


def test_rows_of_one_kind_after_the_other(fit: Fit) -> None:
    one = alarms(fit("sorted", two_kinds(), *IN_ORDER))["data order"]
    assert abs(one.steps[0] - 31) <= 2 and one.change == ("data.shuffle=true",)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_same_rows_mixed_are_no_fault(fit: Fit, shuffled: bool) -> None:
    rows = two_kinds()
    if not shuffled:
        Random(1).shuffle(rows)
    assert not alarms(fit("shuffled" if shuffled else "mixed", rows, *IN_ORDER, *(["data.shuffle=true"] if shuffled else [])))


def test_epochs_that_go_up_and_down_alike(fit: Fit) -> None:
    """Rows that get harder in a file, read five times in its order."""
    random = Random(13)
    rows = [(f"Repeat {n}: " + (text := " ".join(random.choice(WORDS) for _ in range(1 + n // 6))), text) for n in range(48)]
    hard = [
        (asked, said if n < 24 else "".join(random.choice("⌘☂Ω§ÞЖ") for _ in range(8))) for n, (asked, said) in enumerate(rows)
    ]
    found = alarms(fit("harder", hard, *IN_ORDER, "data.max_length=96"))
    assert "data order" in found


# Precision


@pytest.fixture
def in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that holds the trained weights in 16 bits, which llmbench's own never does."""
    from dataclasses import replace

    import torch

    from llmbench.training import stages

    before = vars(stages)["load_model"]
    monkeypatch.setattr(
        stages, "load_model", lambda recipe: replace(found := before(recipe), model=found.model.to(torch.bfloat16))
    )


WHOLE = ("lora=null", "model.dtype=bfloat16", "training.lr_scheduler_type=constant", "training.optim=adamw_torch")


def test_updates_that_are_rounded_away(fit: Fit, in_halves: None) -> None:
    found = alarms(fit("rounded", last_two(160), *WHOLE, "training.learning_rate=2e-5"))
    one = found["updates lost to rounding"]
    assert one.severity == "error" and one.change == ("model.dtype=float32",)


def test_the_same_rate_on_weights_in_float32_is_no_such_fault(fit: Fit) -> None:
    assert "updates lost to rounding" not in alarms(fit("kept", last_two(160), *WHOLE, "training.learning_rate=2e-5"))


@pytest.mark.gpu
def test_steps_that_float16_skips(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that is doubled after every step overflows again and again."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *given, **more: scaler(*given, **more | {"growth_interval": 1}))
    found = alarms(fit("skipped", last_two(160), "model.dtype=float16", "model.device=cuda"))
    assert "skipped steps" in found


# Judged answers


def judged(home: Path, name: str, method: str, *overrides: str, wrong: float = 0.0, **section: Any) -> Run:
    """Of two answers the right one is chosen; a share of the pairs is marked the wrong way round."""
    from llmbench import training

    random, lines = Random(17), []
    for asked, said in last_two(160):
        other = " ".join(reversed(said.split()))
        good, bad = (other, said) if random.random() < wrong else (said, other)
        match method:
            case "kto":
                right = random.random() < 0.5
                lines.append({"prompt": asked, "completion": good if right else bad, "label": right})
            case "grpo":
                lines.append({"prompt": asked, "answer": said})
            case _:
                lines.append({"prompt": asked, "chosen": good, "rejected": bad})
    path = home / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    sections: dict[str, Any] = {"method": method, method: section}
    document = written(home, name, path, "training.logging_steps=2", *overrides, **sections)
    run = runs.create(document)
    training.train(document, run)
    return run


def test_pairs_that_are_told_apart_are_no_fault(home: Path) -> None:
    run = judged(home, "pairs", "dpo")
    assert not alarms(run)


def test_pairs_marked_by_chance(home: Path) -> None:
    assert set(alarms(judged(home, "chance", "dpo", wrong=0.5))) == {"accuracy at chance"}


def test_chosen_answers_that_become_unlikely(home: Path, fit: Fit) -> None:
    """A model that knows the answers, torn away from them."""
    base = fit("base", last_two(160), "lora=null", "training.learning_rate=1e-3", "training.max_steps=60")
    settings = (f"model.model_name_or_path={base.model}", "training.learning_rate=1e-2")
    assert set(alarms(judged(home, "collapse", "dpo", *settings, beta=0.01))) == {"chosen answers become unlikely"}


@pytest.mark.parametrize(
    ("method", "settings"),
    [("orpo", ("training.learning_rate=1e-2", "training.max_steps=80")), ("reward", ()), ("kto", ())],
    ids=["orpo", "reward", "kto"],
)
def test_other_judged_trainings_with_nothing_wrong(home: Path, method: str, settings: tuple[str, ...]) -> None:
    assert not alarms(judged(home, f"well-{method}", method, *settings))


def test_kto_that_drifts_from_its_reference(home: Path) -> None:
    assert "drift from the reference" in alarms(judged(home, "drift", "kto", "training.learning_rate=2e-2", beta=0.1))


def test_kto_whose_answers_all_become_unlikely(home: Path) -> None:
    """Its divergence is 0 throughout: the answers that it is estimated on became as unlikely."""
    run = judged(home, "sunk", "kto", "training.learning_rate=5e-2", beta=0.001)
    assert set(alarms(run)) == {"chosen answers become unlikely"} and not any(row.get("kl") for row in run.metrics())


DRAWN: dict[str, Any] = {
    "num_generations": 4, "max_completion_length": 6,
    "reward_functions": [{"regex": {"pattern": "[aeiou]n"}}, {"regex": {"pattern": "e"}}],
}  # fmt: skip


def test_answers_that_are_all_rewarded_alike(home: Path) -> None:
    never: dict[str, Any] = DRAWN | {"reward_functions": [{"regex": {"pattern": "no such text"}}]}
    found = alarms(judged(home, "alike", "grpo", "training.max_steps=24", **never))
    assert "rewards all alike" in found and found["rewards all alike"].severity == "error"


def test_answers_of_which_some_are_rewarded_are_no_fault(home: Path) -> None:
    assert not alarms(judged(home, "some", "grpo", "training.max_steps=24", **DRAWN))
