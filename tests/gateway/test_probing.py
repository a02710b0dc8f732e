"""A pipeline is asked for its own documents before anybody is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe, retrieval
from llmbench.endpoint import Budget
from llmbench.gateway.probing import probe
from llmbench.message import Message
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Grounded, Hit, Retriever, Timings


@pytest.fixture
def document(pipeline: Path) -> RagRecipe:
    found = recipe.load(str(pipeline), RagRecipe)
    retrieval.build(found)
    return found


@pytest.fixture
def retriever(document: RagRecipe) -> Iterator[Retriever]:
    with Retriever.open(document) as found:
        yield found


class Blind(Retriever):
    """Finds the worst passage, as one whose vectors are another model's."""

    def search(
        self, query: str, top_k: int | None = None, *, where: Mapping[str, Any] | None = None, timings: Timings | None = None
    ) -> list[Hit]:
        return [replace(hit, rank=1) for hit in super().search(query, 3, where=where)[-1:]]


class Mixing(Retriever):
    """Gives a conversation other passages than it finds."""

    def ground(
        self, messages: Sequence[Message], *, where: Mapping[str, Any] | None = None, budget: Budget | None = None
    ) -> Grounded:
        other: list[Message] = [{"role": "user", "content": "refunds"}]
        grounded = super().ground(messages)
        return replace(grounded, sources=tuple({**one, "id": "x"} for one in super().ground(other).sources))


def test_a_pipeline_finds_its_own_documents(retriever: Retriever) -> None:
    found = probe(retriever)
    assert (found.asked, found.found, found.problem) == (3, 3, None)
    assert "3 of 3 sampled documents" in found.line()


def test_a_pipeline_that_finds_none_of_its_documents_is_named_with_what_to_do(document: RagRecipe) -> None:
    with Blind.open(document) as blind:
        found = probe(blind)
    assert found.problem is not None and "finds none of 3" in found.problem
    assert "llmbench index build" in found.line()


def test_passages_that_a_search_does_not_find_are_named(document: RagRecipe) -> None:
    with Mixing.open(document) as mixing:
        found = probe(mixing)
    assert found.problem is not None and "does not find" in found.problem and "index verify" in found.line()


def test_passages_that_never_reach_the_model_are_named(document: RagRecipe) -> None:
    narrow = document.model_copy(update={"context": document.context.model_copy(update={"max_tokens": 1})})
    with Retriever.open(narrow) as retriever:
        found = probe(retriever)
    assert found.problem is not None and "gives answers no passage" in found.problem


def test_a_question_that_a_model_words_is_not_asked_before_the_model_runs(document: RagRecipe) -> None:
    expand = {"method": "hyde", "model": "base"}
    search = document.search.model_validate({"expand": expand})
    with Retriever.open(document.model_copy(update={"search": search})) as retriever:
        found = probe(retriever)
    assert found.asked == 0 and found.problem is None and "query expansion" in found.line()
