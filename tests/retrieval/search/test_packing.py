"""Passages of a prompt: put together from the store, within a budget of real tokens, in an order, with their citations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbench.assets import TINY, model_folder
from llmbench.errors import LlmbenchError
from llmbench.recipe.rag import ContextSpec
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document, Heading
from llmbench.retrieval.search.packing import Count, ordered, pack, place, render, tokenizer_count
from llmbench.retrieval.search.passages import Passage, cut, from_hits, merged, with_neighbours, with_parents

TEMPLATE = "[{n}] {text}"
STORY = " ".join(f"Sentence {i} of the story tells what happened on day {i}." for i in range(1, 11))


@dataclass(frozen=True)
class Found:
    chunk: Chunk
    score: float
    rank: int


class Store:
    """Documents cut at their sentences, as a store would hand them out."""

    def __init__(self, **texts: str) -> None:
        self.documents = {name: Document(name, name, name.title(), text, "text") for name, text in texts.items()}
        self.fetched: list[str] = []
        self.chunks: dict[str, list[Chunk]] = {}
        for name, document in self.documents.items():
            spans = [match.span() for match in re.finditer(r"[^.\s][^.]*\.", document.text)]
            self.chunks[name] = [
                Chunk(f"{name}-{i}", name, document.title, document.text[a:b], a, b, None, document.line(a))
                for i, (a, b) in enumerate(spans)
            ]

    def document(self, source: str) -> Document:
        self.fetched.append(source)
        return self.documents[source]

    def around(self, chunk_id: str, before: int, after: int) -> list[Chunk]:
        name, i = chunk_id.rsplit("-", 1)
        return self.chunks[name][max(0, int(i) - before) : int(i) + after + 1]

    def hits(self, *ids: str) -> list[Found]:
        """So many hits, best first."""
        return [Found(self.around(name, 0, 0)[0], 1 - rank / 10, rank) for rank, name in enumerate(ids, 1)]

    def check(self, passages: list[Passage]) -> None:
        """What holds for every passage."""
        for passage in passages:
            text = self.documents[passage.source].text
            assert passage.text == text[passage.start : passage.end]
            for part in passage.parts:
                assert passage.start <= part.start < part.end <= passage.end
                assert part.hit in passage.hits


@pytest.fixture
def store() -> Store:
    return Store(story=STORY, other="Other one. Other two. Other three.")


@pytest.fixture(scope="module")
def count() -> Count:
    return tokenizer_count(Path(model_folder(TINY)))


def test_neighbours_come_with_a_hit_and_never_from_another_document(store: Store) -> None:
    found = with_neighbours(store.hits("story-9", "other-0"), 2, store)
    store.check(found)
    assert [(p.source, p.hits, len(p.parts)) for p in found] == [("story", (1,), 3), ("other", (2,), 3)]
    assert found[0].text == STORY[STORY.index("Sentence 8") :]
    assert STORY[slice(*found[0].core)].startswith("Sentence 10 ")


def test_hits_whose_neighbours_meet_become_one_passage_that_names_both(store: Store) -> None:
    [passage] = with_neighbours(store.hits("story-5", "story-2"), 1, store)
    store.check([passage])
    assert passage.hits == (1, 2) and passage.score == 0.9
    assert passage.text == STORY[STORY.index("Sentence 2") : STORY.index(" Sentence 8")]
    assert [part.hit for part in passage.parts] == [2, 2, 2, 1, 1, 1]


def test_a_hit_that_is_also_the_neighbour_of_a_better_one_keeps_its_name(store: Store) -> None:
    [passage] = with_neighbours(store.hits("story-5", "story-6"), 1, store)
    store.check([passage])
    assert [(part.hit, part.found) for part in passage.parts] == [(1, False), (1, True), (2, True), (2, False)]
    assert cut(passage, *passage.core).hits == (1, 2)


def test_a_gap_of_words_keeps_passages_apart_and_a_heading_does_not() -> None:
    text = "First part ends.\n\n## Second\n\nSecond part begins. Third stands. Fourth ends."
    store = Store(page=text)
    second = text.index("Second part")
    store.chunks["page"][1] = Chunk("page-1", "page", "Page", "Second part begins.", second, second + 19, None, 5)
    hits = store.hits("page-0", "page-1", "page-3")
    assert [p.hits for p in merged(from_hits(hits), store)] == [(1,), (2,), (3,)]
    at = text.index("## Second")
    headings = (Heading(at, at + 9, 2, "Second"),)
    store.documents["page"] = Document("page", "page", "Page", text, "markdown", headings=headings)
    joined = merged(from_hits(hits), store)
    store.check(joined)
    assert [p.hits for p in joined] == [(1, 2), (3,)]


def test_a_parent_replaces_its_hits_once(store: Store) -> None:
    end = STORY.index(" Sentence 5")
    found = with_parents(store.hits("story-3", "story-8", "story-1"), [(0, end), None, (0, end)], store)
    store.check(found)
    assert (found[0].start, found[0].end, found[0].hits) == (0, end, (1, 3))
    assert found[1].hits == (2,) and found[1].text.startswith("Sentence 9 ")
    assert [part.hit for part in found[0].parts] == [3, 1]


def test_a_document_is_fetched_once_for_the_parents_of_its_hits(store: Store) -> None:
    spans = [(0, STORY.index(" Sentence 5")), (STORY.index("Sentence 7"), len(STORY)), (0, len(store.documents["other"].text))]
    found = with_parents(store.hits("story-3", "story-8", "other-1"), spans, store)
    assert [(p.start, p.end) for p in found] == spans
    assert store.fetched.count("other") == 1 and store.fetched.count("story") == 2  # and once to see whether the two meet


@pytest.mark.parametrize("template", [TEMPLATE, "Passage {n} of {source} ({title}):\n{text}\n"])
@pytest.mark.parametrize("room", [1, 7, 20, 33, 60, 61, 62, 100, 150, 1000])
@pytest.mark.parametrize("neighbours", [0, 1])
def test_the_budget_is_never_passed(store: Store, count: Count, template: str, room: int, neighbours: int) -> None:
    hits = store.hits("story-4", "other-1", "story-8", "story-0")
    passages = with_neighbours(hits, neighbours, store)
    packed = pack(passages, ContextSpec(max_tokens=room), template, count=count)
    assert packed.tokens == count(packed.text) <= room
    assert packed.text == render(packed.passages, template)
    store.check(list(packed.passages))
    held = {rank for passage in packed.passages for rank in passage.hits}
    assert held | set(packed.left_out) == {1, 2, 3, 4} and not held & set(packed.left_out)
    if room == 1000:
        assert packed.left_out == () and len(packed.passages) == len(passages) and not packed.cut


def test_the_budget_is_used_up_to_the_sentence_that_no_longer_fits(store: Store, count: Count) -> None:
    document = store.document("story")
    whole = Chunk("story-all", "story", "Story", STORY, 0, len(STORY), None, document.line(0))
    passages = from_hits([Found(whole, 0.9, 1)])
    first = count(f"[1] {STORY[: STORY.index('.') + 1]}") + 1
    for room in range(first, count(STORY), 15):
        packed = pack(passages, ContextSpec(max_tokens=room), TEMPLATE, count=count)
        assert packed.cut and packed.passages[0].text.endswith(".")
        more = STORY[: STORY.index(".", packed.passages[0].end + 1) + 1]
        assert count(f"[1] {more}") > room


def test_neighbours_are_given_up_before_a_hit_is(store: Store, count: Count) -> None:
    [passage] = with_neighbours(store.hits("story-5"), 3, store)
    [hit] = from_hits(store.hits("story-5"))
    room = count(render([hit], TEMPLATE)) + 2
    packed = pack([passage], ContextSpec(max_tokens=room), TEMPLATE, count=count)
    assert [p.text for p in packed.passages] == [hit.text] and not packed.cut


def test_a_passage_without_a_sentence_that_fits_is_left_out(store: Store, count: Count) -> None:
    packed = pack(from_hits(store.hits("story-0")), ContextSpec(max_tokens=5), TEMPLATE, count=count)
    assert (packed.passages, packed.text, packed.tokens, packed.left_out) == ((), "", 0, (1,))


def test_a_cut_passage_names_only_what_is_still_in_it(store: Store) -> None:
    [passage] = with_neighbours(store.hits("story-5", "story-2"), 1, store)
    first = cut(passage, passage.start, passage.start + 60)
    assert first.hits == (2,) and len(first.text) == 60
    assert [(part.start, part.end) for part in first.parts][-1][1] == first.end


def test_orders(store: Store) -> None:
    passages = from_hits(store.hits("story-4", "other-1", "story-2", "other-0"))

    def said(order: str, **more: dict[tuple[str, int], int]) -> list[int]:
        return [passage.hits[0] for passage in ordered(passages, order, **more)]

    assert said("score") == [1, 2, 3, 4]
    assert said("document") == [3, 1, 4, 2]
    assert said("stable") == [4, 2, 3, 1]
    assert said("stable", shared={place(passages[0]): 7}) == [1, 4, 2, 3]


def test_the_stable_order_does_not_know_the_scores(store: Store, count: Count) -> None:
    ids = ["story-4", "other-1", "story-2"]
    texts = {
        pack(from_hits(store.hits(*several)), ContextSpec(order="stable"), TEMPLATE, count=count).text
        for several in (ids, ids[::-1], [ids[1], ids[0], ids[2]])
    }
    assert len(texts) == 1


def test_braces_in_a_passage_are_words(store: Store) -> None:
    braces = Store(page="Write {n} and {text} here.")
    packed = pack(from_hits(braces.hits("page-0")), ContextSpec(), "[{n}] {text}")
    assert packed.text == "[1] Write {n} and {text} here." and packed.tokens is None


def test_a_budget_needs_something_that_counts(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LlmbenchError, match=r"Set context\.tokenizer to a folder"):
        pack(from_hits(store.hits("story-0")), ContextSpec(max_tokens=5), TEMPLATE)
    with pytest.raises(LlmbenchError, match=r"has no tokenizer\.json"):
        tokenizer_count(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LlmbenchError, match="cannot be read as a tokenizer"):
        tokenizer_count(tmp_path)
