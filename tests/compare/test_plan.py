"""What is said before anything is asked: power, the questions that it takes, and tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.cli.main import main
from llmbench.compare import plan, run
from llmbench.errors import RecipeError
from llmbench.recipe import CompareRecipe
from llmbench.statistics import power

Doc = Callable[..., CompareRecipe]
PLAN = "preregistration={metric: contains_value, margin: 0.1, baseline: base-rag, candidate: adapter-rag}"


def test_without_an_earlier_comparison_several_rates_and_margins_are_looked_at(document: Doc) -> None:
    found = plan.plan(document())
    assert (found.questions, found.variants, found.pairs, found.known) == (16, 4, 6, False)
    assert len(found.rows) == 16 and {row.differ for row in found.rows} == {0.02, 0.05, 0.1, 0.2}
    for row in found.rows:
        of = power.Assumed((row.differ or 0) / 2, (row.differ or 0) / 2, deff=row.deff, size=16 / found.pages)
        assert row.power == power.passes(16, row.margin, 0.05, of)
        assert row.needed is not None and power.passes(row.needed, row.margin, 0.05, of) >= 0.8
    assert found.tokens == {"read": 338, "written_at_most": 4 * 16 * 64, "as_earlier": None}
    assert any("is not known yet" in note for note in found.notes)


def test_an_earlier_comparison_tells_how_often_two_differ(fake: Any, document: Doc) -> None:
    earlier = run(document(), endpoint=fake)
    found = plan.plan(document(PLAN), earlier)
    (row,) = found.rows
    assert found.known and (row.margin, row.differ) == (0.1, 1 / 12), "none differs, which is counted as one"
    assert found.tokens["as_earlier"] == 4 * 16 * 13
    assert "Assumed from the earlier comparison (adapter-rag and base-rag, 12 questions)" in " ".join(found.notes)
    (row, *_) = plan.plan(document("metrics=[contains_value]"), earlier).rows
    assert row.differ == 1.0, "of all pairs the one that differs most"


def test_amounts_and_scores_have_their_own(fake: Any, document: Doc) -> None:
    assert {row.spread for row in plan.plan(document("metrics=[squad_f1]")).rows} == {0.1, 0.2, 0.3}
    latency = PLAN.replace("contains_value, margin: 0.1", "latency, margin: 10%")
    found = plan.plan(document(latency))
    assert found.rows == () and "latency varies is not known before the first comparison" in " ".join(found.notes)
    (row,) = plan.plan(document(latency), run(document(), endpoint=fake)).rows
    assert row.relative and row.spread is not None


def test_exclusions_count_and_a_promise_that_cannot_be_kept_is_refused(document: Doc) -> None:
    left = PLAN.replace("margin: 0.1", "margin: 0.1, exclude: [{ids: [q1], reason: misprint}], stop: sequential")
    found = plan.plan(document(left))
    assert (found.questions, found.excluded) == (15, 1) and "confidence sequence" in " ".join(found.notes)
    with pytest.raises(RecipeError, match="no variant best"):
        plan.plan(document(PLAN.replace("base-rag", "best")))


def test_the_verb_asks_nobody(
    tmp_path: Path, document: Doc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document()
    begin = ["llmbench", "compare", str(tmp_path / "compare.yaml"), "endpoint.base_url=http://127.0.0.1:1/v1", "--plan"]
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*begin, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr().out
        assert not ended.value.code
        assert json.loads(out)["questions"] == 16 if more else out.startswith("16 questions x 4 variants = 64 answers\n")
    assert not (tmp_path / "outputs").exists()
