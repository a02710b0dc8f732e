"""The sample world as it ships: enough pages and questions, split by page, true to their pages, and reproducible."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmbench import assets
from llmbench.tiny import handbook
from llmbench.tiny.language import split_of
from llmbench.tiny.lessons import NOT_STATED

PAGES = handbook.draw_pages()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    path = assets.bundled("rag/questions.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_shipped_world_is_what_the_generator_writes(tmp_path: Path) -> None:
    handbook.write(tmp_path)
    shipped = assets.bundled("rag")
    for written in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        assert (shipped / written.relative_to(tmp_path)).read_bytes() == written.read_bytes(), written.name


def test_there_are_enough_pages_in_three_formats(rows: list[dict[str, Any]]) -> None:
    assert len(PAGES) >= 60
    assert {Path(page.path).suffix for page in PAGES} == {".md", ".html", ".pdf"}
    assert sum(row["answerable"] for row in rows) >= 200
    assert sum(not row["answerable"] for row in rows) >= 60


def test_no_page_is_in_two_splits(rows: list[dict[str, Any]]) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row["source"]:
            splits.setdefault(row["source"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "dev", "test"}


def test_every_answer_stands_on_its_page(rows: list[dict[str, Any]]) -> None:
    text = {page.path: page.text for page in PAGES}
    for row in rows:
        if row["answerable"]:
            assert row["value"] in text[row["source"]]
            assert row["value"] in row["answer"]
        else:
            assert row["answer"].endswith(f" is {NOT_STATED}.")


def test_the_adapter_never_sees_a_test_page() -> None:
    shown = assets.bundled("rag/train.jsonl").read_text(encoding="utf-8")
    for page in PAGES:
        if page.split != "train":
            assert page.text not in shown


def test_names_of_the_handbook_are_held_out_from_the_base_model() -> None:
    for page in PAGES:
        if page.thing.kind != "policy":
            assert split_of(page.thing.name.split()[0]) == "held_out"


def test_the_adapters_rows_cite_the_passage_that_tells() -> None:
    cited = abstained = 0
    for row in handbook.adapter_rows(PAGES):
        question, answer = (turn["content"] for turn in row["messages"])
        if NOT_STATED in answer:
            abstained += 1
            continue
        sentence, number = answer.removesuffix("].").rsplit(" [", 1)
        passage = next(line for line in question.splitlines() if line.startswith(f"[{number}] "))
        assert sentence.split(" is ")[1] in passage
        cited += 1
    assert cited > 500
    assert abstained > 200


def test_a_row_about_a_page_shows_pages_of_its_kind_as_a_search_finds_them() -> None:
    kind = {page.text: page.thing.kind for page in PAGES}
    rows = 0
    for row in handbook.adapter_rows(PAGES):
        shown = [line[4:] for line in row["messages"][0]["content"].splitlines() if line.startswith("[")]
        if shown and all(text in kind for text in shown):
            assert len({kind[text] for text in shown}) == 1
            rows += 1
    assert rows > 150


def test_drawn_things_are_alike_and_have_different_names() -> None:
    rng = Random(8)
    shared = products = 0
    for _ in range(200):
        things = handbook.draw_alike(rng, 3, "train")
        assert len({thing.kind for thing in things}) == 1
        assert len({thing.name for thing in things}) == 3
        if things[0].kind == "product":
            words = [word for thing in things for word in thing.name.split()]
            products += 1
            shared += len(set(words)) < len(words)
    assert shared > 0.8 * products > 40


def test_a_page_that_does_not_tell_is_shown_when_it_is_asked() -> None:
    """Else the adapter would learn that a name which is there is always answered."""
    shown = 0
    for row in handbook.adapter_rows(PAGES):
        question, answer = (turn["content"] for turn in row["messages"])
        name = answer.split(" of the ")[-1].split(f" is {NOT_STATED}")[0]
        shown += NOT_STATED in answer and name in question.split("\n\nQuestion: ")[0]
    assert shown > 100
