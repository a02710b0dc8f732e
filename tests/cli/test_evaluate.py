"""`llmbench evaluate rag` on a small index with the real embedder: what is shown, kept and written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llmbench import recipe as recipes
from llmbench import retrieval, workspace
from llmbench.cli.evaluate import _lists
from llmbench.cli.main import cli
from llmbench.errors import DataError, LlmbenchError, RecipeError
from llmbench.recipe import RagRecipe
from llmbench.retrieval.evaluation import read_run

THINGS = {
    "kettle": ("boils water for tea", "How do I get a hot drink?"),
    "lamp": ("lights a dark room", "I cannot see at night."),
    "clock": ("tells the time of day", "Am I late?"),
    "boat": ("floats on a lake", "Crossing rivers dry"),
    "bread": ("is baked of flour", "Food of wheat"),
    "violin": ("is played with a bow", "An instrument with strings"),
    "camera": ("takes pictures", "Photography equipment"),
    "ladder": ("reaches the roof", "Climbing up a house"),
}
"""What each thing does, as its page says it, and a question that shares no word with the page."""
QUESTIONS = ("What {}?", "Which thing {}?", "Tell me about the {name}.", "{other}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with a BEIR folder of 32 questions, indexed once."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "pages").mkdir()
    (folder / "set" / "qrels").mkdir(parents=True)
    queries, qrels = [], ["query-id\tcorpus-id\tscore"]
    for name, (does, other) in THINGS.items():
        (folder / "pages" / f"{name}.md").write_text(f"# {name.title()}\n\nThe {name} {does}.\n", encoding="utf-8")
        for number, words in enumerate(QUESTIONS):
            queries.append(json.dumps({"_id": f"{name}{number}", "text": words.format(does, name=name, other=other)}))
            qrels.append(f"{name}{number}\t{name}\t1")
    (folder / "set" / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    (folder / "set" / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    (folder / "things.yaml").write_text(yaml.safe_dump({"name": "things", "documents": ["pages"]}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        retrieval.build(recipes.load(folder / "things.yaml", RagRecipe))
    return folder


@pytest.fixture(autouse=True)
def home(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(world / "outputs"))


def evaluate(world: Path, *words: str) -> Any:
    arguments = ["evaluate", "rag", str(world / "things.yaml"), "--data", str(world / "set"), *words]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in words else result.stdout


def test_dense_terms_and_fused_stand_beside_one_another(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "fused.run"
    found = evaluate(world, "--json", "--run-file", str(run))
    rows = {row["name"]: row["of"]["nDCG@10"] for row in found["rows"]}
    assert list(rows) == ["dense", "terms", "fused"]
    assert rows["terms"]["mean"] == pytest.approx(0.75, abs=0.01), "words do not find what shares none"
    assert rows["dense"]["mean"] > 0.85
    assert "terms: 8 queries found nothing" in " ".join(found["notes"])
    assert all(0.5 < one["low"] <= one["mean"] <= one["high"] <= 1 for one in rows.values())
    assert (found["queries"], found["documents"], found["reference"]) == (32, 8, "fused")
    assert [one["b"] for one in found["differences"]] == ["dense", "terms"]
    assert all(row["seconds"] > 0 for row in found["rows"])
    ranked = read_run(run)
    assert set(ranked) == {f"{name}{i}" for name in THINGS for i in range(4)}
    assert ranked["kettle2"][0] == "kettle"


def test_a_run_with_blanks_in_its_names_costs_no_figures(world: Path, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for name, (does, _) in THINGS.items():
        (tmp_path / "pages" / f"the {name}.md").write_text(f"# {name}\n\nThe {name} {does}.\n")
    (tmp_path / "blanks.yaml").write_text("name: blanks\ndocuments: [pages]\n")
    retrieval.build(recipes.load(tmp_path / "blanks.yaml", RagRecipe))
    line = {"id": "1", "question": "What lights a dark room?", "source": "the lamp.md"}
    (tmp_path / "asked.jsonl").write_text(json.dumps(line) + "\n")
    words = ("--data", str(tmp_path / "asked.jsonl"), "--run-file", str(tmp_path / "run.txt"))
    result = CliRunner().invoke(cli, ["evaluate", "rag", str(tmp_path / "blanks.yaml"), *words], catch_exceptions=False)
    assert result.exit_code == 0 and "1 judged query, 8 documents" in result.stdout
    assert "spaces in names are written as %20" in result.stderr
    assert read_run(tmp_path / "run.txt")["1"][0] == "the%20lamp.md"


def test_of_two_pipelines_the_one_without_the_judged_documents_is_named(world: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "bare.yaml").write_text("name: bare\ndocuments: [none]\n")
    retrieval.build(recipes.load(tmp_path / "bare.yaml", RagRecipe))
    with pytest.raises(
        DataError, match=r"^index bare, set/test: no relevant document is in the index: .+ indexed is 'nothing'"
    ):
        evaluate(world, "--against", str(tmp_path / "bare.yaml"))


def test_a_grid_may_name_a_field_twice() -> None:
    assert _lists(["search.mode=dense", "search.mode=terms,dense", "search.top_k=5"]) == {
        "search.mode": ["dense", "terms"],
        "search.top_k": ["5"],
    }


def test_people_get_tables_and_a_page(world: Path) -> None:
    shown = evaluate(world)
    for words in (
        "things on set/test: 32 judged queries, 8 documents",
        "nDCG@10",
        "ms/query",
        "fused - dense",
        "can detect a difference",
    ):
        assert words in shown
    page = (world / "outputs" / "evaluations" / "things" / "evaluation.html").read_text(encoding="utf-8")
    assert "<svg" in page and "things on set/test" in page and "http:" not in page and "https:" not in page


def test_another_pipeline_is_compared_by_its_name(world: Path) -> None:
    other = world / "words.yaml"
    other.write_text(yaml.safe_dump({"name": "things", "documents": ["pages"], "search": {"mode": "terms"}}), encoding="utf-8")
    found = evaluate(world, "--json", "--against", str(other))
    rows = {row["name"]: row["of"] for row in found["rows"]}
    assert list(rows) == ["dense", "terms", "fused", "things"]
    assert rows["things"] == rows["terms"]


def test_tuning_reports_what_it_is_worth_on_queries_that_it_did_not_see(world: Path) -> None:
    found = evaluate(world, "--tune", "--json")["tuning"]
    assert 0 <= found["alpha"] <= 1 and len(found["folds"]) == 5
    assert found["held_out"]["mean"] <= found["seen"] + 1e-9
    assert [alpha for alpha, _ in found["curve"]][::20] == [0.0, 1.0]
    ends = dict(found["curve"])
    assert ends[1.0] == pytest.approx(found["dense"]["mean"], abs=1e-9)
    assert ends[0.0] == pytest.approx(found["terms"]["mean"], abs=1e-9)
    from llmbench.retrieval.store import Index
    from llmbench.retrieval.store.layout import current

    generation = current(workspace.indexes() / "things")
    assert generation is not None
    index = Index(generation)
    kept = index.get("alpha")
    index.close()
    assert kept == (found["alpha"] if found["gain"]["mean"] > 0 else None)


def test_what_was_tuned_is_searched_with(world: Path) -> None:
    from llmbench.retrieval.evaluation.tuning import Tuned, keep
    from llmbench.statistics import Estimate
    from llmbench.statistics.paired import difference

    one = Estimate(0.5, 0.4, 0.6, 9)
    nothing = difference("nDCG@10", "a", "b", {"q": 1.0, "r": 0.0}, {"q": 0.0, "r": 0.0}, "score")
    assert nothing is not None
    tuned = Tuned(1.0, (1.0,), one, 0.6, one, one, one, one, nothing, ((1.0, 0.6),))
    keep(workspace.indexes() / "things", tuned, "set/test")
    rows = {row["name"]: row["of"] for row in evaluate(world, "--json")["rows"]}
    assert rows["fused"] == rows["dense"], "alpha 1 is dense alone"
    keep(workspace.indexes() / "things", Tuned(0.6, (1.0,), one, 0.6, one, one, one, one, nothing, ((1.0, 0.6),)), "set/test")


def test_a_grid_names_the_cheapest_good_pipeline_and_writes_it(world: Path) -> None:
    words = ("--grid", "search.mode=dense,terms,hybrid", "--grid", "chunking.max_tokens=200,64", "--json")
    found = evaluate(world, *words)
    assert len(found["pipelines"]) == 6
    chosen = recipes.load(found["pipeline"], RagRecipe)
    assert f"search.mode={chosen.search.mode}" in found["chosen"]["overrides"]
    assert found["chosen"]["as_good_as_best"]
    journal = (world / "outputs" / "evaluations" / "things" / "grid.jsonl").read_text()
    again = evaluate(world, *words)
    assert again["pipelines"] == found["pipelines"]
    assert (world / "outputs" / "evaluations" / "things" / "grid.jsonl").read_text() == journal, "nothing is asked twice"


def test_what_cannot_be_done_is_said(world: Path, tmp_path: Path) -> None:
    pipeline = str(world / "things.yaml")

    def refused(kind: type[LlmbenchError], words: str, *arguments: str) -> None:
        with pytest.raises(kind, match=words):
            CliRunner().invoke(cli, ["evaluate", "rag", pipeline, *arguments], catch_exceptions=False)

    refused(
        DataError,
        "no judged questions. Set questions, or name",
    )
    refused(DataError, "--data: no such file", "--data", str(tmp_path / "none"))
    refused(
        LlmbenchError, "--grid builds its own pipelines", "--data", str(world / "set"), "--grid", "search.top_k=1,2", "--tune"
    )
    refused(RecipeError, "search.mode", "--data", str(world / "set"), "--grid", "search.mode=dense,magic")
    refused(RecipeError, "neither key=first,second nor", "--data", str(world / "set"), "--grid", str(tmp_path / "none.yaml"))
    (world / "set" / "qrels" / "few.tsv").write_text("kettle0\tkettle\t1\n", encoding="utf-8")
    refused(DataError, "1 judged queries are too few", "--data", str(world / "set"), "--split", "few", "--tune")
    (world / "set" / "qrels" / "few.tsv").unlink()
