"""The language of documents and questions: meaning weighs nothing where the embedder is blind, as usual where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench.recipe import RagRecipe, SourceSpec
from llmbench.retrieval import Retriever, Timings, build
from llmbench.retrieval.embedding import Embedder, Reading
from llmbench.retrieval.search.language import ALPHA, Language, stored, weight

RUSSIAN = (
    "Насос номер {i} стоит в зале {j} и работает с давлением {k} бар.",  # noqa: RUF001
    "Клапан {i} в машинном отделении открывают каждые {k} часов, за ним следит смена {j}.",
)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RagRecipe:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    (tmp_path / "docs").mkdir()
    return RagRecipe(name="docs", documents=[SourceSpec(path=tmp_path / "docs")])


def write(pipeline: RagRecipe, **texts: str) -> None:
    for name, text in texts.items():
        (pipeline.documents[0].path / f"{name}.md").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "blind", "foreign"),
    [
        ("The pump is rated at 40 bar and stands in the machine hall.", False, False),
        ("Mitochondrial thioredoxin reductase and glutathione peroxidase", False, False),
        ("Die Kündigungsfrist beträgt drei Monate zum Ende des Jahres.", False, False),
        ("def get_user_name(self, idx: int) -> str: return self._names[idx].strip()", False, False),
        ("Насос стоит в машинном зале", False, True),  # noqa: RUF001
        ("租户可以提前三个月通知解除合同", True, True),
        ("ยกเลิกสัญญา", True, True),
        ("🚩", True, True),
    ],
)
def test_how_much_of_a_text_the_vocabulary_knows(embedder: Embedder, text: str, blind: bool, foreign: bool) -> None:
    found = embedder.reading(text)
    assert (found.blind, found.foreign) == (blind, foreign), found
    assert found.unknown <= found.characters == len("".join(text.split()))


def test_an_english_index_weighs_as_before(pipeline: RagRecipe, embedder: Embedder) -> None:
    write(pipeline, pump="# Pump\n\nThe pump is rated at 40 bar.", lamp="# Lamp\n\nThe lamp is made of brass.")
    write(
        pipeline, parts="# Parts\n\nAL-4417 | XR-200-B | QK-7\nZW-99 | VV-12 | PT-3\nBJ-55 | LQ-10 | GG-2\nHX-1 | DR-8 | WK-6"
    )
    assert build(pipeline, embedder=embedder).language == ""
    with Retriever.open(pipeline, embedder=embedder) as retriever:
        assert retriever.weight("How is the pump rated?") == ALPHA
        assert retriever.weight("504?") == ALPHA


def test_a_page_that_the_embedder_cannot_read_is_named_and_found_by_its_words_alone(
    pipeline: RagRecipe, embedder: Embedder
) -> None:
    write(
        pipeline,
        thai="# ค่าจอดเรือ\n\nค่าจอดเรือในฤดูหนาวเดือนละสี่ร้อยบาท สัญญายกเลิกได้ล่วงหน้าสามเดือน\n",
        flags="# Flags\n\nA red flag 🚩 means no swimming.\n",
        pump="# Pump AL-4417\n\nThe pump AL-4417 is rated at 40 bar.\n",
        valve="# Valve\n\nThe valve of the pump is opened every day at noon by the watch.\n",
    )
    done = build(pipeline, embedder=embedder)
    assert "thai.md" in done.language and "multilingual" in done.language
    with Retriever.open(pipeline, embedder=embedder) as retriever:
        timings = Timings()
        assert [hit.chunk.source for hit in retriever.search("🚩", timings=timings)] == ["flags.md"]
        assert "does not know the characters" in timings.notes[0]
        assert [hit.chunk.source for hit in retriever.search("ยกเลิกสัญญา")] == ["thai.md"]
        assert retriever.search("swimming is forbidden")[0].chunk.source == "flags.md"
        assert retriever.search("AL4417")[0].chunk.source == "pump.md"


def test_of_a_language_that_is_read_letter_by_letter_the_weight_is_measured(pipeline: RagRecipe, embedder: Embedder) -> None:
    texts = {f"p{i}": RUSSIAN[i % 2].format(i=i, j=i % 7, k=i % 11) for i in range(60)}
    write(pipeline, **texts)
    done = build(pipeline, embedder=embedder)
    with Retriever.open(pipeline, embedder=embedder) as retriever:
        with retriever._now() as view:
            found = stored(view.index)
        assert found is not None and found.share == 1 and found.blind == 0
        assert found.found is not None and found.found < 0.7 and found.alpha == 0
        assert retriever.weight("Где стоит насос номер 8?") == 0
        assert retriever.weight("Where is the pump?") == ALPHA
    assert "most of the text" in done.language
    assert build(pipeline, embedder=embedder).language == done.language  # unchanged: told again, measured once


@pytest.mark.parametrize(
    ("found", "reading", "expected"),
    [
        (None, Reading(10, 0, 10, 10), ALPHA),
        (None, Reading(10, 8, 10, 0), 0.0),
        (Language(10, 1.0, 0.0, 0.8, 0.3), Reading(10, 0, 10, 0), 0.3),
        (Language(10, 1.0, 0.0, 0.8, 0.3), Reading(10, 0, 10, 9), ALPHA),
        (Language(10, 1.0, 0.0, 0.8, 0.3), Reading(3, 0, 0, 0), 0.3),
        (Language(10, 0.2, 0.0, 0.8, 0.3), Reading(3, 0, 0, 0), ALPHA),
        (Language(10, 1.0, 0.0, 0.95, ALPHA), Reading(10, 0, 10, 0), ALPHA),
    ],
)
def test_the_weight_of_a_question(found: Language | None, reading: Reading, expected: float) -> None:
    assert weight(found, reading) == expected


def test_a_filter_in_vain_says_why(pipeline: RagRecipe, embedder: Embedder) -> None:
    write(pipeline, a="---\nyear: 2024\nteam: support\n---\n# A\n\nThe pump is red.", b="# B\n\nThe lamp is green.")
    build(pipeline, embedder=embedder)

    def notes(**where: Any) -> list[str]:
        timings = Timings()
        retriever.search("pump", where=where, timings=timings)
        assert retriever.unmet(where) == timings.notes
        return timings.notes

    with Retriever.open(pipeline, embedder=embedder) as retriever:
        assert notes(yaer=2024) == ["No document has the field 'yaer' that the filter asks for. Fields: team, year."]
        assert notes(year="2024") == ["The field 'year' contains numbers, but the filter asks for text."]
        assert notes(**{"$or": [{"year": {"$gte": 2020}}, {"$not": {"owner": {"$in": ["a", "b"]}}}]})[0].startswith(
            "No document"
        )
        assert notes(year={"$exists": False}, kind="markdown", team="support") == []


def test_an_index_of_an_earlier_version_is_built_again_from_its_own_vectors(
    pipeline: RagRecipe, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbench.errors import IndexError_
    from llmbench.retrieval import Document, Writer
    from llmbench.retrieval.store import contract

    write(pipeline, a="# A\n\nThe pump is red.", b="# B\n\nThe lamp is green.")
    with monkeypatch.context() as earlier:
        earlier.setattr(contract, "_VERSION", 2)
        build(pipeline, embedder=embedder)
        with Writer.open(pipeline, embedder=embedder) as writer:
            writer.upsert([Document("1", "crm/1", "Ticket", "The bell is loud.", "text")])
    with pytest.raises(IndexError_, match=r"earlier version of llmbench.*llmbench index [^-]*$"):
        Retriever.open(pipeline, embedder=embedder)
    with pytest.raises(IndexError_, match="earlier version"), Writer.open(pipeline, embedder=embedder):
        pass  # a program's writer would begin an empty index
    done = build(pipeline, embedder=embedder)
    assert done.embedded == 0 and done.chunks == 3 and "earlier version" in done.notes[-1]
    with Retriever.open(pipeline, embedder=embedder) as retriever:
        assert retriever.search("loud bell")[0].chunk.source == "crm/1"
    assert build(pipeline, embedder=embedder).notes == ()


def test_words_that_every_passage_holds_are_found_where_words_alone_are_searched(
    pipeline: RagRecipe, embedder: Embedder
) -> None:
    text = "港の灯台は毎年九月に点検される\n点検の責任者は北部管理事務所である\n"
    write(pipeline, first=text, second=f"{text}故障の際は電話四一七番に連絡する\n")
    build(pipeline, embedder=embedder)
    with Retriever.open(pipeline, embedder=embedder) as retriever:
        assert {hit.chunk.source for hit in retriever.search("灯台の点検の責任者")} == {"first.md", "second.md"}
