"""Filters, against the same words evaluated in Python over random documents; and what is refused."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.errors import LlmbenchError
from llmbench.recipe import ColumnsSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]

BIG = 2**60 + 1
VALUES: dict[str, list[Any]] = {
    "year": [1999, 2020, 2024, 2024.5, -1, 0],
    "team": ["blue", "red", "Blue", "", "o'brien", "x\ny", "日本"],
    "flag": [True, False, 1, 0],
    "mixed": ["1", 1, 1.0, "one", 0.1, 1e-9],
    "big": [BIG, BIG + 1, BIG - 1, -BIG],
    "a b'; DROP TABLE documents; --": ["x", 1],
    "key": ["blue"],
    "number": [1],
}
PATTERNS = ["*", "b*", "?lue", "doc1*", "*'*", ""]


def documents(dice: random.Random, count: int, doc: Make) -> list[Document]:
    return [
        doc(
            f"doc{i}",
            f"text {i}",
            dice.choice(["T", "U"]),
            **{k: dice.choice(v) for k, v in VALUES.items() if dice.random() < 0.6},
        )
        for i in range(count)
    ]


def words(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    """A random filter."""
    kind = dice.random()
    if depth < 4 and kind < 0.45:
        key = dice.choice(["$and", "$or", "$not"])
        return {key: words(dice, depth + 1) if key == "$not" else [words(dice, depth + 1) for _ in range(dice.randint(1, 3))]}
    result: dict[str, Any] = {}
    for _ in range(dice.randint(1, 2)):
        field = dice.choice([*VALUES, "source", "title", "kind", "never"])
        text: dict[str, list[Any]] = {
            "source": ["doc1", "doc7", "doc200"],
            "title": ["T", "U"],
            "kind": ["text", "pdf"],
            "never": ["x", 2],
        }
        some = text.get(field) or VALUES[field]
        operator = dice.choice(["", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$glob"])
        operand: Any = dice.choice(some)
        if operator in ("$in", "$nin"):
            operand = dice.sample(some, dice.randint(0, len(some)))
        elif operator == "$exists":
            operand = dice.random() < 0.5
        elif operator == "$glob":
            operand = dice.choice(PATTERNS)
        result[field] = {operator: operand} if operator else operand
    return result


def fits(document: Document, condition: dict[str, Any]) -> bool:
    """What a filter means."""
    fields = {**document.metadata, "source": document.source, "title": document.title, "kind": document.kind}

    def one(key: str, value: Any) -> bool:
        match key:
            case "$and":
                return all(fits(document, part) for part in value)
            case "$or":
                return any(fits(document, part) for part in value)
            case "$not":
                return not fits(document, value)
        tests = value if isinstance(value, dict) else {"$eq": value}
        return all(compare(fields.get(key), operator, operand) for operator, operand in tests.items())

    def compare(has: Any, operator: str, operand: Any) -> bool:
        match operator:
            case "$exists":
                return bool((has is not None) == operand)
            case "$ne":
                return not compare(has, "$eq", operand)
            case "$nin":
                return not compare(has, "$in", operand)
            case "$in":
                return any(compare(has, "$eq", each) for each in operand)
        if has is None or isinstance(has, str) != isinstance(operand, str):
            return False
        match operator:
            case "$eq":
                return bool(has == operand)
            case "$gt":
                return bool(has > operand)
            case "$gte":
                return bool(has >= operand)
            case "$lt":
                return bool(has < operand)
            case "$lte":
                return bool(has <= operand)
        return bool(fnmatch.fnmatchcase(str(has), str(operand)))

    return all(one(key, value) for key, value in condition.items())


def test_300_random_filters_mean_what_they_say(upsert: Any, doc: Make, folder: Any) -> None:
    dice = random.Random(20261126)
    given = documents(dice, 300, doc)
    upsert(*given)
    path = current(folder)
    assert path is not None
    index, sizes = Index(path), set()
    try:
        source = dict(index._rows("SELECT row, source FROM chunks JOIN documents ON document = number"))
        for _ in range(300):
            condition = words(dice)
            found = sorted(source[row] for row in index.matching(Filter.of(condition)).tolist())
            assert found == sorted(document.source for document in given if fits(document, condition)), condition
            sizes.add(len(found))
        for n in (BIG - 1, BIG, BIG + 1):  # 64 bits, where a float tells no neighbours apart
            assert len(index.matching(Filter.of({"big": n}))) == sum(d.metadata.get("big") == n for d in given) > 0
        many = {"source": {"$in": [f"doc{i}" for i in range(0, 50_000, 2)]}}
        assert len(index.matching(Filter.of(many))) == 150
        wide = {"$or": [{"source": f"doc{i}"} for i in range(3000)]}
        assert len(index.matching(Filter.of(wide))) == 300
        assert index.document_count() == 300
    finally:
        index.close()
    assert len(sizes) > 60 and {0, 300} <= sizes


def deep(levels: int) -> dict[str, Any]:
    result: dict[str, Any] = {"year": 1}
    for _ in range(levels):
        result = {"$not": result}
    return result


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"year": {"$regex": "x"}}, r"year\.\$regex is not an operator\. Available: \$eq"),
        ({"year": {}}, "year has no condition"),
        ({"year": None}, "takes text, a number, true or false, not None"),
        ({"year": {"$gt": [1]}}, r"takes text, a number, true or false, not \[1\]"),
        ({"year": float("nan")}, "not nan"),
        ({"year": 10**400}, "takes text, a number"),
        ({"year": {"$in": "2024"}}, r"\$in takes a list"),
        ({"year": {"$exists": 1}}, r"\$exists takes true or false"),
        ({"year": {"$glob": 1}}, "takes a pattern"),
        ({"source": 1}, "source contains text, but 1 is a number"),
        ({"$or": {"a": 1}}, r"\$or takes a list of filters"),
        ({"$and": []}, r"\$and takes a list of filters"),
        ({"$nor": [{"a": 1}]}, r"\$nor is not an operator here"),
        ({"$not": [1]}, "is not a mapping of fields"),
        (["year"], "is not a mapping of fields"),
        ({"team": "\ud800"}, "unpaired surrogate"),
        ({"\ud800": 1}, "unpaired surrogate"),
        (deep(100), "filters are nested more than 40 deep"),
        ({"$or": [{"year": i} for i in range(20_000)]}, r"over 5000 conditions; \$in takes any number"),
    ],
)
def test_what_no_filter_is_gets_one_line(wrong: Any, message: str) -> None:
    with pytest.raises(LlmbenchError, match=message) as caught:
        Filter.of(wrong)
    assert "\n" not in str(caught.value) and "A filter looks like" in str(caught.value)


@pytest.mark.parametrize("many", [2_000, 20_000])
def test_a_filter_that_leaves_two_of_thousands_finds_all_it_leaves(
    upsert: Any, doc: Make, recipe: RagRecipe, words: Any, many: int
) -> None:
    def text(number: int, count: int) -> str:
        return "\n\n".join(
            f"common words p{number}x{i} " + " ".join(f"w{(number * 31 + i * 7 + j) % 997}" for j in range(16)) + "."
            for i in range(count)
        )

    upsert(*(doc(f"many{n}", text(n, 100), rare=False) for n in range(many // 100)), doc("few", text(999, 2), rare=True))
    for mode in ("dense", "terms", "hybrid"):
        own = recipe.model_copy(update={"search": SearchSpec(mode=mode)})
        with Retriever.open(own, embedder=words) as retriever:
            assert sum(count for _, _, count in retriever.sources()) == many + 2
            for k, expected in ((1, 1), (2, 2), (10, 2), (1000, 2)):
                hits = retriever.search("common words", k, where={"rare": True})
                assert [hit.chunk.source for hit in hits] == ["few"] * expected, (mode, k)
            assert retriever.search("common words", 5, where={"never": 1}) == []
            assert len(retriever.search("common words", 7, where={"rare": {"$ne": True}})) == 7


def test_front_matter_and_rows_are_filtered_by_as_what_they_are(recipe: RagRecipe, words: Any, pages: Any, ask: Any) -> None:
    lines = "title: 2024\nyear: 2025\ndraft: true\nsource: intranet\ncode: 007\nquoted: '1'\n"
    lines += "tags: [red, 'a, b', 3]\nteams:\n  - blue\n- 7"
    (pages / "a.md").write_text(f"---\n{lines}\n---\n\nof the page")
    (pages / "b.csv").write_text("id,text,year,kind\n1,of the row,2023,memo\n")
    place = SourceSpec(path=pages, columns=ColumnsSpec())
    both = recipe.model_copy(update={"documents": [place]})
    retrieval.build(both, embedder=words)
    page, row = "of the page", "of the row"
    for where, found in (
        ({"year": {"$gte": 2024}}, [page]),
        ({"year": {"$lt": 2024}}, [row]),
        ({"title": "2024", "draft": True, "code": "007", "quoted": "1"}, [page]),
        ({"tags": "red"}, [page]),
        ({"tags": {"$in": ["a, b", "never"]}}, [page]),
        ({"tags": {"$ne": "red"}}, [row]),
        ({"tags": {"$gt": 2}, "teams": {"$in": [7]}}, [page]),
        ({"source": "intranet"}, []),
        ({"metadata.source": "intranet"}, [page]),
        ({"metadata.kind": "memo", "kind": "row"}, [row]),
        ({"metadata.kind": {"$exists": False}}, [page]),
        ({"metadata.year": 2025}, [page]),
    ):
        assert ask("page row", where=where) == found, where
    with Retriever.open(both, embedder=words) as retriever:
        document = retriever.document("a.md")
        assert document is not None and document.metadata["tags"] == ["red", "a, b", 3]
        assert document.warnings == ("filter its field source as metadata.source, since every document already has a source",)


def test_fields_of_lists_stand_in_the_index_as_they_were_given(upsert: Any, doc: Make, ask: Any, folder: Any) -> None:
    upsert(doc("a", "alpha", tags=["red", "blue", 1]), doc("b", "beta", tags=[]))
    assert ask("alpha", where={"tags": "blue"}) == ask("alpha", where={"tags": {"$exists": True}}) == ["alpha"]
    assert verify(folder).faults == ()
