"""Asking an index in every way, and ranking documents by their best passage, on an index that answers by a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmbench.errors import DataError
from llmbench.recipe import MmrSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval.evaluation import Collection, evaluate, report
from llmbench.retrieval.evaluation.arms import arms, documents, passage_depth
from llmbench.retrieval.evaluation.evaluate import reference
from llmbench.retrieval.evaluation.names import naming


@dataclass
class Piece:
    id: str
    source: str


@dataclass
class Found:
    chunk: Piece
    score: float


@dataclass
class Scripted:
    """An index in which each query finds fixed documents, which differ by mode; each has two passages."""

    recipe: RagRecipe
    answers: dict[str, dict[str, list[str]]]
    asked: list[tuple[str, int | None, int]] = field(default_factory=list)

    def search(self, query: str, top_k: int | None = None) -> Sequence[Any]:
        spec = self.recipe.search
        self.asked.append((spec.mode, top_k, spec.candidates))
        names = self.answers[spec.mode].get(query, [])
        return [
            Found(Piece(f"{name}:{part}", f"pages/{name}.md"), 1 / (i + 1)) for i, name in enumerate(names) for part in "ab"
        ]

    def unmet(self) -> list[str]:
        return []

    def weight(self, query: str) -> float:
        return 0.6

    def sources(self) -> list[tuple[str, str, int]]:
        return [(f"pages/{name}.md", name, 2) for name in ("one", "two", "three")]


@pytest.fixture
def recipe(tmp_path: Path) -> RagRecipe:
    (tmp_path / "page.md").write_text("text")
    return RagRecipe(name="pages", documents=[SourceSpec(path=tmp_path / "page.md")])


COLLECTION = Collection(
    "small/test",
    {"q1": "first", "q2": "second", "q3": "third"},
    {"q1": {"one": 1}, "q2": {"two": 1}, "q3": {"gone": 1}},
    nothing_relevant=2,
)
ANSWERS = {
    "dense": {"first": ["one", "two"], "second": ["one", "two"]},
    "terms": {"first": ["two", "one"]},
    "hybrid": {"first": ["one"], "second": ["two"]},
}


def test_every_stage_is_asked_by_itself_and_every_query_counts(recipe: RagRecipe) -> None:
    index = Scripted(recipe, ANSWERS)
    moves: list[tuple[str, int, int]] = []
    found = evaluate(index, COLLECTION, progress=lambda *move: moves.append(move))
    made = report(COLLECTION, found)
    ndcg = {row.name: round(row.of["nDCG@10"].mean, 4) for row in made.rows}
    assert ndcg == {"dense": round((1 + 0.63093) / 3, 4), "terms": round(0.63093 / 3, 4), "fused": round(2 / 3, 4)}
    assert {mode for mode, _, _ in index.asked} == {"dense", "terms", "hybrid"}
    assert {(passages, candidates) for _, passages, candidates in index.asked} == {(200, 200)}
    assert index.recipe == recipe, "the index is left as it was found"
    assert moves[-1] == ("fused", 9, 9)
    assert {row.name: row.empty for row in made.rows} == {"dense": 1, "terms": 2, "fused": 1}
    assert [(one.a, one.b) for one in made.differences] == [("fused", "dense"), ("fused", "terms")]
    notes = " ".join(made.notes)
    assert "2 queries without a relevant document" in notes
    assert "Not in the index, and so not found: 1 of 3 relevant documents, such as gone." in notes
    assert "terms: 2 queries found nothing" in notes
    assert made.to_json()["rows"][0]["of"]["nDCG@10"]["mean"] == pytest.approx(0.54364, abs=1e-4)


def test_several_pipelines_are_called_by_their_names(recipe: RagRecipe) -> None:
    first = evaluate(Scripted(recipe, ANSWERS), COLLECTION)
    other = recipe.model_copy(update={"name": "words", "search": SearchSpec(mode="terms")})
    second = evaluate(Scripted(other, ANSWERS), COLLECTION)
    made = report(COLLECTION, first, second, second)
    assert [row.name for row in made.rows] == ["dense", "terms", "fused", "words", "words (3)"]
    assert [one.b for one in made.differences] == ["dense", "terms", "words", "words (3)"]
    assert made.rows[3].of == made.rows[1].of


def test_a_pipeline_with_more_stages_stands_beside_the_bare_ones() -> None:
    plain, more = SearchSpec(), SearchSpec(mmr=MmrSpec(), top_k=3)
    assert list(arms(plain)) == ["dense", "terms", "fused"]
    assert list(arms(SearchSpec(mode="terms", top_k=7))) == ["dense", "terms", "fused"]
    assert list(arms(more)) == ["dense", "terms", "fused", "pipeline"]
    assert arms(more)["fused"].mmr is None and arms(more)["pipeline"] == more
    assert arms(SearchSpec(min_score=0.3))["dense"].min_score is None


@pytest.mark.parametrize(
    ("search", "name"),
    [(SearchSpec(), "fused"), (SearchSpec(mode="dense"), "dense"), (SearchSpec(neighbours=1), "pipeline")],
)
def test_the_reference_is_the_pipeline_as_its_recipe_has_it(recipe: RagRecipe, search: SearchSpec, name: str) -> None:
    assert reference(recipe.model_copy(update={"search": search})) == name


def test_a_document_stands_where_its_best_passage_stands() -> None:
    found = {"q": [("1", "b", 0.9), ("2", "a", 0.8), ("3", "b", 0.7), ("4", "q", 0.6)]}
    assert documents(found, str) == {"q": ["b", "a", "q"]}
    assert documents(found, str, ignore_identical=True) == {"q": ["b", "a"]}


def test_enough_passages_are_asked_for() -> None:
    assert passage_depth(SearchSpec(), [("a", "", 1), ("b", "", 1)]) == 100
    assert passage_depth(SearchSpec(), [("a", "", 2), ("b", "", 4)]) == 300
    assert passage_depth(SearchSpec(candidates=500), [("a", "", 1)]) == 500
    assert passage_depth(SearchSpec(), [("a", "", 400)]) == 1000
    assert passage_depth(SearchSpec(), []) == 100


def test_queries_that_are_documents_are_said(recipe: RagRecipe) -> None:
    collection = Collection("twins/test", {"one": "first"}, {"one": {"two": 1}})
    index = Scripted(recipe, ANSWERS)
    assert any("--ignore-identical" in note for note in report(collection, evaluate(index, collection)).notes)
    without = evaluate(index, collection, ignore_identical=True)
    assert without.runs["fused"] == {"one": []}
    notes = report(collection, without, ignore_identical=True).notes
    assert any("were left out (--ignore-identical)" in note for note in notes)


@pytest.mark.parametrize("form", ["{}", "corpus.jsonl#{}", "pages/{}.md", "deep/pages/{}.txt"])
def test_judgements_find_documents_however_the_index_calls_them(form: str) -> None:
    name_of, missing = naming([form.format(name) for name in ("4983", "12")], {"4983", "99"}, "small")
    assert name_of(form.format("4983")) == "4983"
    assert missing == ["99"]


def test_judgements_of_other_documents_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"small: no relevant document is in the index: judged is 'x', indexed is 'pages/a\.md'"
    ):
        naming(["pages/a.md"], {"x"}, "small")
