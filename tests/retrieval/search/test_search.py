"""Searching and grounding, on the real embedder and the real FAISS."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench import recipe as recipes
from llmbench import retrieval
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.message import ImagePart, Message, text_of
from llmbench.recipe import RagRecipe, RerankSpec, SearchSpec
from llmbench.retrieval import Retriever
from llmbench.retrieval.embedding import Embedder, locate
from llmbench.retrieval.search.prompt import fill
from llmbench.retrieval.search.retriever import asked


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ("How heavy is the Alba kettle?", "kettle.md"),
        ("What is the Borin lamp made of?", "lamp.md"),
        ("How long until I get my money back?", "refunds.html"),
        ("When can I come and buy something?", "shop/hours.txt"),
    ],
)
def test_a_question_finds_its_page_first(recipe: RagRecipe, query: str, source: str) -> None:
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever:
        hits = retriever.search(query)
    assert hits[0].chunk.source == source
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and 1 >= scores[0] > scores[-1] >= -1


@pytest.mark.parametrize("mode", ["dense", "terms", "hybrid"])
def test_hundreds_of_copies_of_one_passage_leave_room_for_the_others(recipe: RagRecipe, pages: Path, mode: Any) -> None:
    for number in range(500):
        (pages / f"copy-{number}.txt").write_text("The Alba kettle is red and boils water.", encoding="utf-8")
    (pages / "other.txt").write_text("An old water tower stands by the harbour.", encoding="utf-8")
    recipe = recipe.model_copy(update={"search": SearchSpec(mode=mode, candidates=20)})
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever:
        hits = retriever.search("Does the Alba kettle boil water?", 3)
    assert len({hit.chunk.text for hit in hits}) == 3


def test_search_agrees_with_sentence_transformers_own_exact_search() -> None:
    recipe = recipes.load("rag/handbook.yaml", RagRecipe, ["search.mode=dense", "search.deduplicate=false"])
    retrieval.build(recipe)
    questions = ["How long is the warranty?", "Who looks after the plan?", "Where is the shop?", "What does it cost?"]

    from sentence_transformers import SentenceTransformer, util

    model = SentenceTransformer(str(locate("all-MiniLM-L6-v2")), device="cpu")
    with Retriever.open(recipe) as retriever:
        every = {hit.chunk.id: hit.chunk for hit in retriever.search("x", 1000)}
        texts = model.encode([f"{chunk.title}\n{chunk.text}" for chunk in every.values()], convert_to_tensor=True)
        exact = util.semantic_search(model.encode(questions, convert_to_tensor=True), texts, top_k=len(every))
        for question, expected in zip(questions, exact, strict=True):
            scores = {list(every)[int(hit["corpus_id"])]: hit["score"] for hit in expected}
            found = retriever.search(question, 10)
            # The index may hold bfloat16's vectors: near the same score, passages may change places.
            assert all(abs(hit.score - scores[hit.chunk.id]) < 0.01 for hit in found)
            assert found[-1].score > expected[9]["score"] - 0.01
            assert np.argmax([scores[hit.chunk.id] for hit in found]) == 0 or expected[0]["score"] - expected[1]["score"] < 0.01


def test_top_k_and_min_score_bound_what_is_found(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    strict = recipe.model_copy(update={"search": SearchSpec(mode="dense", top_k=2, min_score=0.5)})
    recipe = recipe.model_copy(update={"search": SearchSpec(mode="dense")})
    with Retriever.open(recipe) as retriever, Retriever.open(strict) as bounded:
        assert [hit.score > 0.5 for hit in retriever.search("The Borin lamp is made of brass", 3)] == [True, False, False]
        assert [hit.chunk.source for hit in bounded.search("The Borin lamp is made of brass")] == ["lamp.md"]
        assert bounded.search("quantum chromodynamics") == []
        assert len(retriever.search("lamp", 100)) == 4
        with pytest.raises(LlmbenchError, match="query is empty"):
            retriever.search(" \n")


def test_passages_that_repeat_take_no_other_ones_place(recipe: RagRecipe, pages: Path) -> None:
    for i in range(40):
        (pages / f"copy{i}.md").write_text("# Borin lamp\n\nThe Borin lamp is made of brass. Its bulb lasts for ten years.\n")
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever:
        hits = retriever.search("What is the Borin lamp made of?", 4)
        assert len({hit.chunk.text for hit in hits}) == len(hits) == 4
        assert [hit.rank for hit in hits] == [1, 2, 3, 4] and "brass" in hits[0].chunk.text


@pytest.mark.parametrize("top_k", [0, -1, 5.5, "3", True])
def test_a_top_k_that_is_no_number_of_passages_is_one_line(recipe: RagRecipe, top_k: Any) -> None:
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever, pytest.raises(LlmbenchError, match=r"^top_k is .+\. It must be a whole number"):
        retriever.search("lamp", top_k)


def test_openai_parts_of_text_are_read_as_text_and_nothing_else_is(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    parts: Any = [{"type": "text", "text": "What is the Borin"}, {"type": "text", "text": "lamp made of?"}]
    with Retriever.open(recipe) as retriever:
        grounded = retriever.ground([{"role": "user", "content": parts}])
        assert text_of(grounded.messages[-1]).endswith("Question: What is the Borin\nlamp made of?")
        assert grounded.sources[0]["source"] == "lamp.md"
        others: tuple[Any, ...] = (None, 5, [*parts, {"type": "input_audio"}], [{"type": "text"}], [*parts, "text"])
        for content in others:
            with pytest.raises(LlmbenchError, match=r"^A user message's content is not text\."):
                retriever.ground([{"role": "user", "content": content}])


def test_a_message_with_an_image_is_searched_by_its_text_and_keeps_the_image(recipe: RagRecipe) -> None:
    own = recipe.model_copy(update={"prompt": "P:\n{passages}\n\nQ: {question}", "system": "Be brief."})
    retrieval.build(own)
    image: ImagePart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    question: Message = {"role": "user", "content": [image, {"type": "text", "text": "What is the Borin lamp made of?"}]}
    system: Message = {"role": "system", "content": [{"type": "text", "text": "Speak German."}]}
    with Retriever.open(own) as retriever:
        plain = retriever.ground([{"role": "user", "content": text_of(question)}])
        found = retriever.ground([system, question])
        assert found.sources == plain.sources and found.sources[0]["source"] == "lamp.md"
        assert found.messages == [
            {"role": "system", "content": "Be brief.\n\nSpeak German."},
            {"role": "user", "content": [{"type": "text", "text": plain.messages[-1]["content"]}, image]},
        ]
        assert question["content"][0] == image, "the client's message stays as it was"
        with pytest.raises(LlmbenchError, match=r"^A user message has images alone"):
            retriever.ground([{"role": "user", "content": [image]}])


def test_words_that_every_passage_holds_weigh_nothing(recipe: RagRecipe, pages: Path) -> None:
    for path in pages.rglob("*.*"):
        path.unlink()
    for i, thing in enumerate(("candle of wax", "kettle that boils water", "boat on a lake", "electric lamp")):
        (pages / f"{i}.md").write_text(f"# Page\n\nThe product is a {thing}.{' It is a good one.' * i}\n")
    retrieval.build(recipe)
    dense = recipe.model_copy(update={"search": SearchSpec(mode="dense")})
    with Retriever.open(recipe) as both, Retriever.open(dense) as meaning:
        question = "Which product has a bulb?"
        assert [hit.chunk.id for hit in both.search(question)] == [hit.chunk.id for hit in meaning.search(question)]
        assert "terms" in both.search("product wax")[0].stages


def test_an_open_retriever_sees_what_is_written_later(recipe: RagRecipe, pages: Path) -> None:
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever:
        assert retriever.search("pump", 1)[0].chunk.source != "pump.md"
        (pages / "pump.md").write_text("# Pump\n\nThe pump is loud.")
        (pages / "lamp.md").unlink()
        retrieval.build(recipe)
        assert retriever.search("pump", 1)[0].chunk.text == "The pump is loud."
        assert [source for source, _, _ in retriever.sources()] == ["kettle.md", "pump.md", "refunds.html", "shop/hours.txt"]
        with pytest.raises(IndexError_, match=r"no document lamp\.md"):
            retriever.document("lamp.md")


def test_many_threads_may_search_at_once(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    queries = ["kettle", "lamp", "money back", "opening hours"] * 8
    with Retriever.open(recipe) as retriever, ThreadPoolExecutor(8) as pool:
        alone = [retriever.search(query)[0].chunk for query in queries]
        assert [hits[0].chunk for hits in pool.map(retriever.search, queries)] == alone


def test_an_index_that_is_not_built_says_how(recipe: RagRecipe) -> None:
    with pytest.raises(IndexError_, match=r"index pages is not built\. Run: llmbench index build recipe\.yaml"):
        Retriever.open(recipe)


def test_grounding_puts_passages_into_the_last_question(recipe: RagRecipe) -> None:
    own = {"prompt": "P:\n{passages}\n\nQ: {question}", "system": "Be brief.", "search": SearchSpec(top_k=2)}
    recipe = recipe.model_copy(update=own)
    retrieval.build(recipe)
    earlier: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    question: Message = {"role": "user", "content": "What is the Borin lamp made of?"}
    with Retriever.open(recipe) as retriever:
        found = retriever.ground([*earlier, question])
        [first, second] = found.sources
        system, *rest, last = found.messages
        assert (system, rest) == ({"role": "system", "content": "Be brief."}, earlier)
        assert last["content"] == f"P:\n[1] {first['text']}\n[2] {second['text']}\n\nQ: {question['content']}"
        assert first["text"] == "The Borin lamp is made of brass. Its bulb lasts for ten years."
        assert {key: first[key] for key in ("n", "source", "title", "start", "end", "page", "line")} == {
            "n": 1, "source": "lamp.md", "title": "Borin lamp", "start": 14, "end": 76, "page": None, "line": 3,
        }  # fmt: skip
        assert question["content"] == "What is the Borin lamp made of?"
        with_system = retriever.ground([{"role": "system", "content": "Speak German."}, question])
        assert [m["role"] for m in with_system.messages] == ["system", "user"]
        assert with_system.messages[0]["content"] == "Be brief.\n\nSpeak German."
        with pytest.raises(LlmbenchError, match="no user message"):
            retriever.ground([{"role": "assistant", "content": "Hello."}])


def test_braces_in_documents_and_questions_are_left_as_they_are(recipe: RagRecipe, pages: Path) -> None:
    text = "The template reads {question} and {passages}\nand {n} and {text} and {0}."
    (pages / "template.md").write_text(f"# Template\n\n{text}\n")
    recipe = recipe.model_copy(update={"prompt": "{passages}|{question}|{question}", "search": SearchSpec(top_k=1)})
    retrieval.build(recipe)
    with Retriever.open(recipe) as retriever:
        question = "What does the template {passages} read?"
        [message] = retriever.ground([{"role": "user", "content": question}]).messages
    assert message["content"] == f"[1] {text}|{question}|{{question}}".replace("\n", " ")


PASTED = {
    "a soft hyphen": "How long does the bu\u00adlb last?",
    "a ligature": "How long does the bulb last when it is o\ufb00?",
    "full width": "\uff28ow long does the bulb last?",
    "nothing that is seen": "How long does the \u200bbulb\ufeff \u2060last?",
    "reversed writing": "How long does \u202ethe bulb\u202c last?",
    "a space that does not break": "How long\u00a0does the bulb\u202flast?",
    "an accent of its own": "How long does the bulb last in the cafe\u0301?",
    "a tag": "How long does the bulb last?\U000e0041\U000e0042",
}
PLAIN = {
    "a ligature": "How long does the bulb last when it is off?",
    "an accent of its own": "How long does the bulb last in the café?",
}


@pytest.mark.parametrize("mode", ["dense", "terms", "hybrid"])
def test_a_pasted_question_finds_what_a_typed_one_does(recipe: RagRecipe, embedder: Embedder, mode: str) -> None:
    own = recipe.model_copy(update={"search": recipe.search.model_copy(update={"mode": mode})})
    retrieval.build(own, embedder=embedder)
    with Retriever.open(own, embedder=embedder) as retriever:
        for what, query in PASTED.items():
            typed = PLAIN.get(what, "How long does the bulb last?")
            pasted, plain = retriever.search(query), retriever.search(typed)
            assert [(hit.chunk, hit.score) for hit in pasted] == [(hit.chunk, hit.score) for hit in plain], what
            assert plain[0].chunk.source == "lamp.md"
            assert retriever.explain(query, plain[0]) == retriever.explain(typed, plain[0])
        with pytest.raises(LlmbenchError, match="query is empty"):
            retriever.search("\u200b\u00ad")
        question: Message = {"role": "user", "content": PASTED["a soft hyphen"]}
        assert text_of(question) in text_of(retriever.ground([question]).messages[-1])  # the model reads what was asked


def test_an_ascii_question_is_searched_with_as_it_is() -> None:
    for query in ("How long does it last?", "  a-b_c  x^2 {n}\t'q'\n\"r\" ~ 10%", "".join(map(chr, range(32, 127)))):
        assert asked(query) == query


def test_filling_replaces_each_place_once() -> None:
    assert fill("{a} {b} {a} {c}", {"a": "{b}", "b": "{a}"}) == "{b} {a} {a} {c}"


def test_a_reranker_named_after_opening_reads_the_candidates(recipe: RagRecipe, embedder: Embedder) -> None:
    retrieval.build(recipe, embedder=embedder)
    with Retriever.open(recipe, embedder=embedder) as retriever:
        assert {hit.kind for hit in retriever.search("What is the lamp made of?")} == {"fused"}
        late = RerankSpec(model_name_or_path="all-MiniLM-L6-v2", kind="late-interaction")
        retriever.recipe = recipe.model_copy(update={"search": recipe.search.model_copy(update={"rerank": late})})
        hits = retriever.search("What is the lamp made of?")
        assert {hit.kind for hit in hits} == {"rerank"}
        assert hits[0].chunk.source == "lamp.md"
        assert "mean MaxSim" in retriever.explain("What is the lamp made of?", hits[0])
