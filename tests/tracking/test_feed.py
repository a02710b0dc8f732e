"""What is sent to trackers, out of a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbench.tracking import feed

ROWS = [
    {"step": 0, "epoch": 0.0, "eval_loss": 2.5, "eval_exact_match": 0.25},
    {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-4},
    {"step": 2, "epoch": 1.0, "loss": 1.5, "learning_rate": 1e-4},
    {"step": 2, "epoch": 1.0, "eval_loss": 1.25},
]


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_a_row_is_sent_under_the_names_that_trackers_have() -> None:
    assert feed.figures(ROWS[1]) == ("train", {"train/epoch": 0.5, "train/loss": 2.0, "train/learning_rate": 1e-4})
    assert feed.figures(ROWS[0]) == ("eval", {"train/epoch": 0.0, "eval/loss": 2.5, "eval/exact_match": 0.25})


def test_what_is_no_number_is_not_sent_as_one() -> None:
    assert feed.figures({"step": 1, "loss": 1, "note": "x", "done": True, "worst": None}) == ("train", {"train/loss": 1.0})


@pytest.mark.parametrize(
    ("sent", "left"),
    [({}, ROWS), ({"train": 1}, [ROWS[0], *ROWS[2:]]), ({"train": 2, "eval": 0}, [ROWS[3]]), ({"train": 2, "eval": 2}, [])],
)
def test_no_row_is_sent_twice(metrics: Path, sent: dict[str, int], left: list[dict[str, float]]) -> None:
    assert list(feed.new(metrics, sent)) == left


def test_a_line_that_is_being_written_waits(metrics: Path) -> None:
    with metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    assert list(feed.new(metrics, {"train": 2, "eval": 2})) == []


def test_a_run_that_logged_nothing_yet_has_nothing_to_send(tmp_path: Path) -> None:
    assert list(feed.new(tmp_path / "metrics.jsonl", {})) == []


def test_settings_are_dotted_and_what_is_long_is_cut() -> None:
    found = feed.flat({"a": {"b": 1, "c": None, "d": "x" * 600}, "e": [1, "ä"], "f": True})
    assert found == {"a.b": "1", "a.d": "x" * 499 + "…", "e": '[1, "ä"]', "f": "true"}
