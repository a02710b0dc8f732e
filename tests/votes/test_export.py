"""Votes as rows to train on: what makes a row, where it comes from, and that nothing is trained on and tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import votes
from llmbench.compare import Comparison
from llmbench.errors import DataError
from llmbench.votes import Booth, Plan
from llmbench.votes.export import export
from llmbench.votes.values import Choice, Round

Make = Callable[..., Comparison]
Rule = Callable[[Round], Choice]


def best(round: Round) -> Choice:
    """`tuned` over all, `loud` over `base`."""
    worth = {"tuned": 2, "loud": 1, "base": 0}
    a = worth[round.item.model_a] > worth[round.item.model_b]
    return "left" if a == (round.left_is == "a") else "right"


def vote(rule: Rule, count: int = 72, voter: str = "ada", overlap: float = 0.0) -> None:
    booth = Booth("kettles", voter, Plan(overlap, 0.0))
    for _ in range(count):
        round = booth.next()
        if round is not None:
            booth.cast(round, rule(round), reasons=["correct"])


def test_pairs_name_what_was_better_and_where_it_comes_from(compared: Make) -> None:
    compared(count=8)
    vote(best, 24)
    made = export("kettles", "dpo")
    assert (len(made.rows), made.trained, made.held) == (24, 8, 0)
    row = next(row for row in made.rows if {row["chosen_variant"], row["rejected_variant"]} == {"tuned", "base"})
    number = int(row["question_id"][1:])
    assert row["prompt"] == [{"role": "user", "content": f"How heavy is kettle {number}?"}]
    assert row["chosen"] == [{"role": "assistant", "content": f"It weighs {number + 100} grams."}]
    assert "I would not be too sure" in row["rejected"][0]["content"]
    assert (row["comparison"], row["question_split"], row["votes"]["model_b"]) == ("kettles", "train", 1)
    assert row["question_group"] == f"kettle-{number // 3}.md" and row["reasons"] == {"correct": 1} and row["voted"] > 1e9
    assert len(set(row["variants"].values())) == 2
    assert row["voters"] != ["ada"] and export("kettles", "dpo", named=True).rows[0]["voters"] == ["ada"]


def test_each_format_is_what_its_method_reads(compared: Make) -> None:
    compared(count=8)
    vote(best, 24)
    marked, better = export("kettles", "kto"), export("kettles", "sft")
    assert [row["label"] for row in marked.rows] == [True, False] * 24
    assert {row["variant"] for row in marked.rows if not row["label"]} == {"base", "loud"}
    assert [turn["role"] for turn in better.rows[0]["messages"]] == ["user", "assistant"]
    assert len(better.rows) == 24


@pytest.mark.parametrize("format_", ["dpo", "kto", "sft"])
def test_training_reads_the_rows(compared: Make, tmp_path: Path, tiny: Path, format_: Any) -> None:
    from llmbench import data, recipe
    from llmbench.data import preferences
    from llmbench.recipe import TrainRecipe

    compared(count=4)
    vote(best, 12)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in export("kettles", format_).rows), encoding="utf-8")
    document = {"name": "voted", "method": format_, "data": {"train": [{"path": str(file)}]}}
    (tmp_path / "voted.yaml").write_text(json.dumps(document), encoding="utf-8")
    spec = recipe.load(tmp_path / "voted.yaml", TrainRecipe)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny))
    loaded = data.load(spec.data, tokenizer) if format_ == "sft" else preferences.load(format_, spec.data, tokenizer)
    assert len(loaded.train) == (24 if format_ == "kto" else 12)


def test_ties_and_divided_voters_make_no_pair_and_two_bad_answers_are_two_marks(compared: Make) -> None:
    compared(variants=("base", "tuned"))
    vote(lambda round: "tie", 10)
    vote(lambda round: "both_bad", 3, voter="bob")
    with pytest.raises(DataError, match=r"no vote makes a row for dpo .*no voter decided between its answers"):
        export("kettles", "dpo")
    marked = export("kettles", "kto")
    assert [row["label"] for row in marked.rows] == [False] * 6
    vote(best, 11, voter="cy")  # one item is left, and ten others have a tie
    vote(best, 24, voter="di", overlap=1.0)
    vote(lambda round: "right" if best(round) == "left" else "left", 24, voter="ed", overlap=1.0)
    left = export("kettles", "dpo").left
    assert any("divided" in reason or "tie" in reason for reason in left)


def test_questions_of_a_test_split_are_not_trained_on(compared: Make) -> None:
    compared(split="test")
    vote(best)
    with pytest.raises(DataError, match="72 votes are on questions of split test, which are asked to measure"):
        export("kettles", "dpo")
    made = export("kettles", "dpo", hold_out=0.4)
    trained = {row["question_group"] for row in made.rows}
    held = {question["group"] for question in made.questions}
    assert trained and held and not trained & held
    assert made.trained + made.held == 24 and all(question["split"] == "held-out" for question in made.questions)


def test_a_question_that_was_held_out_stays_so(compared: Make) -> None:
    compared()
    vote(best, 30)
    first = export("kettles", "dpo", hold_out=0.4)
    vote(best, 42)
    then = export("kettles", "dpo", hold_out=0.4)
    held = {question["id"] for question in then.questions}
    assert {question["id"] for question in first.questions} <= held
    assert not held & {row["question_id"] for row in first.rows}
    more = export("kettles", "dpo", hold_out=0.6)
    assert held <= {question["id"] for question in more.questions}


def test_the_held_out_questions_can_be_asked(compared: Make, tmp_path: Path) -> None:
    from llmbench import questions

    compared()
    vote(best)
    file = tmp_path / "held.jsonl"
    made = export("kettles", "dpo", hold_out=0.5)
    file.write_text("".join(json.dumps(row) + "\n" for row in made.questions), encoding="utf-8")
    asked = questions.read(file)
    assert len(asked) == made.held and all(one.value and one.group for one in asked)


def test_voters_can_be_left_out_and_more_than_one_asked_for(compared: Make) -> None:
    compared()
    vote(best, 20)
    vote(lambda round: "left", 20, voter="careless")
    assert len(export("kettles", "dpo").rows) == 40
    assert len(export("kettles", "dpo", without=["careless"]).rows) == 20
    with pytest.raises(DataError, match="fewer than 2 voters decided"):
        export("kettles", "dpo", least=2)


def test_votes_outlive_the_comparison_that_they_are_on(compared: Make) -> None:
    from llmbench import compare

    compared()
    vote(best, 10)
    compare.remove("kettles")
    assert len(export("kettles", "dpo").rows) == 10 and votes.result("kettles").counted == 10


def test_votes_on_answers_that_were_replaced_do_not_count(compared: Make) -> None:
    compared()
    vote(best, 10)
    from llmbench.votes.store import VoteStore, path

    with VoteStore(path("kettles")) as store:
        old = store.ballots()[0]
        item = type(old.item)(**{**vars(old.item), "a": "0" * 32})
        store.cast([type(old)(**{**vars(old), "item": item})])
    found = votes.result("kettles")
    assert (found.counted, found.stale) == (10, 1)
    assert "1 vote on answers that have been replaced since" in " ".join(found.notes)
    assert len(export("kettles", "dpo").rows) == 10
