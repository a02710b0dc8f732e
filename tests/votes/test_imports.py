"""Votes of others: the public sets' columns in every file form, and what is wrong with a row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import votes
from llmbench.errors import DataError, LlmbenchError
from llmbench.votes.export import export
from llmbench.votes.imports import import_votes
from llmbench.votes.store import VoteStore, path


def talk(answer: str, turns: int = 1) -> list[dict[str, str]]:
    return [
        one
        for i in range(turns)
        for one in ({"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"{answer} {i}"})
    ]


def mt_bench(number: int, winner: str, turn: int = 1, judge: str = "expert_0") -> dict[str, Any]:
    return {
        "question_id": 81 + number, "model_a": "alpaca-13b", "model_b": "gpt-4", "winner": winner, "judge": judge,
        "conversation_a": talk("Alpaca", turn), "conversation_b": talk("Four", turn), "turn": turn,
    }  # fmt: skip


def written(tmp_path: Path, rows: list[Any], name: str = "human.jsonl") -> Path:
    file = tmp_path / name
    if file.suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        file.write_text(out.getvalue(), encoding="utf-8")
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["human.jsonl", "human.json", "human.csv", "human.parquet"])
def test_mt_bench_s_human_judgements_are_read_from_every_form(tmp_path: Path, name: str) -> None:
    rows = [mt_bench(i, ("model_b", "tie", "model_a", "model_b")[i % 4], 1 + i % 2, f"expert_{i % 3}") for i in range(24)]
    found = import_votes(written(tmp_path, rows, name), "mt-bench")
    assert (found.votes, found.models, found.voters, found.questions, found.left) == (24, 2, 3, 24, {})
    result = votes.result("mt-bench")
    assert result.rating is not None and result.rating.order == ("gpt-4", "alpaca-13b")
    assert result.rating.untold == ("left",) and "sides were not recorded" in " ".join(result.notes)
    with VoteStore(path("mt-bench")) as store:
        second = next(one for one in store.ballots() if one.item.turn == 2)
        asked = store.questions()[second.item.question]["conversation"]
    assert [role for role, _ in asked] == ["user", "assistant", "user"] and second.item.question == f"{second.item.group}/2"


def test_arena_conversations_are_read_and_model_a_stood_on_the_left(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": f"{i:032x}", "model_a": "vicuna", "model_b": "koala", "judge": f"arena_user_{i}", "turn": 1,
            "winner": ("model_a", "tie (bothbad)", "model_b", "tie")[i % 4], "anony": True, "language": "English",
            "conversation_a": talk("V"), "conversation_b": talk("K"), "tstamp": 1682351591.1 + i,
        }
        for i in range(16)
    ]  # fmt: skip
    import_votes(written(tmp_path, rows), "arena")
    with VoteStore(path("arena")) as store:
        ballots = store.ballots()
    assert {one.shown_left for one in ballots} == {"a"} and ballots[1].winner == "both_bad" and ballots[0].time == 1682351591.1
    assert len(export("arena", "kto").rows) == 8 * 2 + 4 * 2


def test_the_55k_set_has_its_own_columns(tmp_path: Path) -> None:
    row = {
        "id": 30192, "model_a": "gpt-4-1106-preview", "model_b": "gpt-4-0613", "prompt": '["Is it right?", "And now?"]',
        "response_a": '["No.", "Still no."]', "response_b": '["Yes.", null]',
        "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0,
    }  # fmt: skip
    found = import_votes(written(tmp_path, [row], "train.csv"), "kaggle")
    assert found.votes == 1
    with VoteStore(path("kaggle")) as store:
        (one,) = store.ballots()
        assert store.answers()[one.item.a] == "Still no." and store.answers()[one.item.b] == ""
    assert (one.item.turn, one.winner, one.shown_left) == (2, "model_a", "a")


def test_parts_of_messages_are_joined(tmp_path: Path) -> None:
    row = mt_bench(0, "model_a") | {
        "conversation_a": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Good"}, {"type": "text", "text": "day"}]},
        ]
    }
    import_votes(written(tmp_path, [row]), "parts")
    with VoteStore(path("parts")) as store:
        assert "Good\nday" in store.answers().values()


def test_rows_that_are_no_votes_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [mt_bench(0, "model_a"), mt_bench(1, "nobody"), mt_bench(2, "tie") | {"model_b": "alpaca-13b"}, {"winner": "tie"}, 7]
    found = import_votes(written(tmp_path, rows), "some")
    assert found.votes == 1 and sum(found.left.values()) == 4


def test_a_file_without_a_vote_names_its_faults_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"human\.jsonl:1: winner is none of model_a, model_b, tie and both_bad"):
        import_votes(written(tmp_path, [mt_bench(0, "nobody")]), "none")
    assert not path("none").exists()
    for content, words in ((b"", "no vote in it"), (b"\xff\xfe\xfa", "not UTF-8"), (b"{", "model_a, model_b and winner")):
        (tmp_path / "bad.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=words):
            import_votes(tmp_path / "bad.jsonl", "none")
    with pytest.raises(DataError, match="cannot be read"):
        import_votes(tmp_path / "gone.jsonl", "none")


def test_votes_that_are_there_are_not_mixed_with_others(tmp_path: Path) -> None:
    file = written(tmp_path, [mt_bench(0, "model_a")])
    import_votes(file, "once")
    with pytest.raises(LlmbenchError, match="There are votes on once already"):
        import_votes(file, "once")
    with pytest.raises(LlmbenchError, match="is not allowed"):
        import_votes(file, "No Name")
