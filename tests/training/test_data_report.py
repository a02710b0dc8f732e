"""Every run begins with the report of its data."""

from __future__ import annotations

from llmbench.cli.train import _plan
from llmbench.data import page
from llmbench.data.report import read_json
from llmbench.runs import Run

from .conftest import Write


def test_a_run_keeps_the_report_of_what_it_learned(trained: Run) -> None:
    report = read_json((trained.folder / "data.json").read_text(encoding="utf-8"))
    assert report.eval is not None
    assert report.train.rows + report.eval.rows == 40
    assert report.train.turns == report.train.turns_ended
    assert (trained.folder / "data.html").read_text(encoding="utf-8") == page.html(report)


def test_the_plan_says_what_the_report_warns_of(write: Write) -> None:
    from llmbench import training

    lines = _plan(training.prepare(write("warned")))
    assert [line for line in lines if line.startswith("  warning data.train: ")] == [
        "  warning data.train: 26 rows (65.0 %) are the same as an earlier row"
    ]
