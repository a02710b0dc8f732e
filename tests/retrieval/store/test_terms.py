"""Words: the same rows and scores however the index came to hold them; scripts without spaces; whatever a question holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from llmbench.recipe import RagRecipe, SearchSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store.words import forms, terms

Make = Callable[..., Document]
VOCABULARY = [f"word{i}" for i in range(60)] + ["running", "runs", "naïve", "Zürich", "東京都", "서울시"]


@pytest.fixture
def search(recipe: RagRecipe, words: Any) -> Callable[..., list[tuple[str, float]]]:
    """Texts and scores by words alone."""

    def by_words(question: str, k: int = 1000) -> list[tuple[str, float]]:
        own = recipe.model_copy(update={"search": SearchSpec(mode="terms", deduplicate=False, candidates=k)})
        with Retriever.open(own, embedder=words) as retriever:
            return [(hit.chunk.id, hit.score) for hit in retriever.search(question, k)]

    return by_words


def test_changed_in_many_steps_is_as_built_at_once(recipe: RagRecipe, words: Any, doc: Make, search: Any) -> None:
    dice = random.Random(20261126)
    held: dict[str, Document] = {}
    with Writer.open(recipe, embedder=words) as writer:
        for _ in range(60):
            names = dice.sample([f"doc{i}" for i in range(40)], dice.randint(1, 6))
            if dice.random() < 0.7:
                new = [
                    doc(name, " ".join(dice.choices(VOCABULARY, k=dice.randint(1, 80))), dice.choice(VOCABULARY))
                    for name in names
                ]
                writer.upsert(new)
                held |= {document.source: document for document in new}
            else:
                writer.delete(sources=names)
                held = {name: document for name, document in held.items() if name not in names}
    questions = [" ".join(dice.choices(VOCABULARY, k=n)) for n in (1, 1, 2, 3, 5, 8)]
    changed = [sorted(search(question)) for question in questions]
    with Writer.open(recipe, rebuild=True, embedder=words) as writer:
        writer.upsert(held.values())
        writer.finish()
    assert [sorted(search(question)) for question in questions] == changed
    assert all(changed) and len(held) > 20


def test_scripts_without_spaces_are_found_by_their_parts(upsert: Any, doc: Make, search: Any, query: Any) -> None:
    upsert(
        doc("jp", "東京都の天気は晴れです。", "日記"),
        doc("kr", "서울시의 날씨는 맑음", "일기"),
        doc("en", "The weather is fine", "Diary"),
    )
    for question, text in (
        ("東京", "東京都の天気は晴れです。"),
        ("天気は", "東京都の天気は晴れです。"),
        ("날씨", "서울시의 날씨는 맑음"),
    ):
        [(identity, _)] = search(question)
        assert query("SELECT text FROM chunks WHERE id = ?", identity) == [(text,)]
    assert search("京東") == []
    assert search("日記") and search("日記帳記")
    [(identity, _)] = search("天")
    assert query("SELECT text FROM chunks WHERE id = ?", identity) == [("東京都の天気は晴れです。",)]


@pytest.mark.parametrize("word", ["İstanbul", "istanbul", "ISTANBUL", "x\u030cyz", "xyz", "Zürich", "zu\u0308rich"])
def test_a_word_is_found_whatever_marks_are_on_it(upsert: Any, doc: Make, search: Any, query: Any, word: str) -> None:
    upsert(
        doc("a", "From İstanbul to Zürich by x\u030cyz."), doc("b", "stanbul yz rich"), doc("c", "something"), doc("d", "else")
    )
    [(identity, _)] = search(word)
    assert query("SELECT text FROM chunks WHERE id = ?", identity)[0][0].startswith("From")


@pytest.mark.parametrize(
    "question",
    [
        '"alpha', 'alpha"beta', "alpha AND", "NOT alpha", "alpha NEAR(beta, 1)", "text: alpha", "alpha*", "^alpha", "-alpha",
        "{alpha} + beta", "alpha' OR 1=1; --", "(alpha", "alpha\0beta", "alpha \ud800 beta", "ALPHA OR OR", "😀 alpha",
    ],
)  # fmt: skip
def test_nothing_in_a_question_is_an_operator(upsert: Any, doc: Make, search: Any, question: str) -> None:
    upsert(doc("a", "alpha one"), doc("b", "beta two"), doc("c", "gamma three"))
    found = search(question)
    assert len(found) == (2 if "beta" in question else 1)


@pytest.mark.parametrize("question", ["the", "what is the", "Is it on?", "who"])
def test_a_question_of_stop_words_alone_asks_for_them(upsert: Any, doc: Make, search: Any, question: str) -> None:
    upsert(doc("a", "The Who is what it is: on the road"), doc("b", "beta gamma"))
    assert len(search(question)) == 1


def test_a_question_without_words_finds_nothing(upsert: Any, doc: Make, search: Any) -> None:
    upsert(doc("a", "alpha"))
    assert search("?! ... 😀 —") == []
    assert terms.query("?! ... — ") == ""


def test_words_are_stemmed_and_lose_their_accents(upsert: Any, doc: Make, search: Any) -> None:
    upsert(doc("a", "He was RUNNING through Zürich"), doc("b", "beta"))
    for question in ("runs", "run", "zurich", "ZÜRICH"):
        assert len(search(question)) == 1, question


def test_a_title_counts_twice(upsert: Any, doc: Make, search: Any, query: Any) -> None:
    upsert(doc("in text", "kettle and more", "Other words"), doc("in title", "other and words", "Kettle more"))
    best = search("kettle")[0][0]
    assert query("SELECT source FROM documents JOIN chunks ON document = number WHERE id = ?", best) == [("in title",)]


@pytest.mark.parametrize(
    ("written", "question"),
    [
        ("AL-4417", "AL4417"), ("AL-4417", "al 4417"), ("AL4417", "AL-4417"), ("AL4417", "4417"), ("R2-D2", "R2D2"),
        ("XR/200.B", "xr200b"), ("part_no_77", "partno77"), ("v2.3.1", "v231"), ("978-3-16", "978316"),
        ("maxRetryCount", "retry"), ("max_retry_count", "maxRetryCount"), ("max_retry_count", "maxretrycount"),
        ("XMLParser", "parser"), ("Kündigungsfrist", "Kuendigungsfrist"), ("Kündigungsfrist", "Kundigungsfrist"),
        ("Straße", "Strasse"), ("Strasse", "Straße"), ("łódź", "lodz"), ("smørrebrød", "smoerrebroed"),
        ("ค่าจอดเรือ สัญญายกเลิกได้", "ยกเลิกสัญญา"), ("ພາສາລາວ", "ລາວ"), ("ភាសាខ្មែរ", "ខ្មែរ"), ("မြန်မာစာ", "မြန်မာ"),
        ("人々の車輪", "人々"), ("हिन्दी भाषा", "भाषा"), ("كِتَابٌ", "كتاب"), ("flag 🚩 means", "🚩"),
    ],
)  # fmt: skip
def test_a_word_is_found_however_it_is_written(
    upsert: Any, doc: Make, search: Any, query: Any, written: str, question: str
) -> None:
    upsert(doc("right", f"It says {written} here."), doc("wrong", "It says AL-4471 and nothing else here, เรือ 東京都."))
    [best, *_] = search(question)
    assert query("SELECT source FROM documents JOIN chunks ON document = number WHERE id = ?", best[0]) == [("right",)]


@pytest.mark.parametrize(
    "text", ["a 17-year old", "the 1960s", "state-of-the-art", "DNA and Berlin", "at 3.5 or 12:30", "x" * 500]
)
def test_english_prose_has_no_other_forms(text: str) -> None:
    assert forms.indexed(text) == text


def test_a_long_file_of_one_word_is_read_at_once() -> None:
    assert len(forms.indexed("x1" * 200_000)) == 400_000


def test_an_accent_counts_once_in_a_question() -> None:
    assert terms.words("Kündigungsfrist") == ["kündigungsfrist"]
