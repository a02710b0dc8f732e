"""The learning-rate range test: how its curve is read, and one that trains."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from typer.testing import CliRunner

from llmbench.cli.main import cli
from llmbench.diagnosis.lr_range import picture, read_range

from .conftest import Train


def curve(best: float, *, noise: float = 0.05, steps: int = 100) -> list[tuple[float, float]]:
    """A loss of 3 that falls to 1 around `best` and rises tenfold above it."""
    random = Random(2)
    points = []
    for i in range(steps):
        rate = 10 ** (-6 + 6 * i / (steps - 1))
        fall = 2 / (1 + math.exp(-3 * math.log(rate / (best / 5))))
        rise = 20 / (1 + math.exp(-3 * math.log(rate / (best * 20))))
        points.append((rate, (3 - fall + rise) * (1 + noise * random.gauss(0, 1))))
    return points


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2])
def test_the_suggestion_is_in_the_fall_and_below_the_lowest(best: float) -> None:
    found = read_range(curve(best))
    assert found.suggested is not None and found.falls is not None and found.lowest is not None and found.turns is not None
    assert found.falls <= found.suggested * 2 and found.suggested <= found.lowest / 3.9 and found.lowest < found.turns
    assert best / 30 < found.suggested < best * 2
    assert f"suggested: {found.suggested:g}" in picture("mine", found)


def test_a_loss_that_never_falls_gives_no_rate() -> None:
    random = Random(2)
    found = read_range([(10 ** (-6 + 0.06 * i), 2 + 0.02 * random.gauss(0, 1)) for i in range(100)])
    assert found.suggested is None and "fell at no rate" in found.problem


def test_a_test_that_ends_at_once_says_so() -> None:
    found = read_range([(1e-3, 2.0), (1e-2, 3.0)])
    assert found.suggested is None and "before 20 steps" in found.problem


def test_the_verb_trains_a_copy_and_leaves_the_run_as_it_is(train: Train) -> None:
    run = train("ranged", "training.max_steps=8")
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    done = CliRunner().invoke(cli, ["diagnose", "ranged", "--lr-range", "--steps", "60", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["rates"]) == len(found["losses"]) <= 60
    assert found["rates"][0] == pytest.approx(1e-6) and found["losses"][0] == pytest.approx(run.metrics()[0]["loss"], rel=0.2)
    assert 2e-4 < found["suggested"] < 3e-2, "3e-3 trains well, 3e-1 does not, at 1e-5 nothing moves"
    after = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    assert after.keys() - before.keys() == {"lr-range.json", "lr-range.svg"}
    assert all(after[name] == content for name, content in before.items())
