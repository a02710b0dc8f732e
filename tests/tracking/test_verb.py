"""`llmbench runs track`, and what `llmbench compare` tells the trackers of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tracking import reading
from tests.tracking.conftest import Made
from typer.testing import CliRunner, Result

from llmbench.cli import compare
from llmbench.cli.main import cli
from llmbench.compare import Comparison
from llmbench.errors import LlmbenchError
from llmbench.statistics import Estimate

pytestmark = pytest.mark.filterwarnings("ignore")  # of TensorBoard's reader


def track(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["runs", "track", *arguments])


def test_a_run_is_sent_and_where_it_is_shown_is_said(made: Made, home: Path) -> None:
    made()
    done = track("one", "--to", "tensorboard", "--project", "support bot", "--json")
    assert done.exit_code == 0, done.output
    folder = str(home / "tracking" / "tensorboard" / "support bot" / "one")
    assert json.loads(done.stdout) == [{"name": "one", "shown": {"tensorboard": folder}, "left": {}}]
    assert f"Tracked in tensorboard: {folder}" in done.stderr
    assert reading.tensorboard(Path(folder))["train/loss"][0] == (1, 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one", "--to", "excel"], "--to excel is not a tracker. Choose one of: tensorboard, wandb, mlflow, trackio"),
        (["one"], "The recipe of run one names no tracker. Name one: --to mlflow"),
        (["one", "--to", "mlflow", "--project", "a/b"], "--project 'a/b': use letters, digits, spaces, dots, dashes and"),
        (["none", "--to", "mlflow"], "There is no run none in "),
    ],
)
def test_a_wrong_use_is_one_line(made: Made, arguments: list[str], said: str) -> None:
    run = made()
    failed = track(*arguments).exception
    assert isinstance(failed, LlmbenchError)
    assert str(failed).startswith(said)
    assert not (run.folder / "tracking.json").exists()


def test_a_comparison_tells_the_trackers_of_a_run_how_its_adapter_did(made: Made, home: Path) -> None:
    made()
    track("one", "--to", "tensorboard")
    folder = home / "comparisons" / "words"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>better</p>")
    found = Comparison(
        folder=folder,
        created=0.0,
        endpoint="",
        source="",
        split=None,
        variants=("base", "mine"),
        questions=(),
        headline="exact_match",
        verdict="mine is better than base",
        estimates={"exact_match": {"base": Estimate(0.25, 0.125, 0.5, 8), "mine": Estimate(0.75, 0.5, 0.875, 8)}},
        kinds={},
        differences=(),
        quantiles={},
        grid=None,
        interaction=None,
        missing=0,
        confidence=0.95,
        concurrency=1,
        max_tokens=1,
        listing={"base": {"adapter": None}, "mine": {"adapter": {"name": "one", "id": "a1"}}},
        versions={},
    )
    compare._tell_trackers(found)
    curves = reading.tensorboard(home / "tracking" / "tensorboard" / "llmbench" / "one")
    told = {key: values for key, values in curves.items() if key.startswith("compare/")}
    place = "compare/words/mine/exact_match"
    assert told == {place: [(3, 0.75)], f"{place}_low": [(3, 0.5)], f"{place}_high": [(3, 0.875)]}
