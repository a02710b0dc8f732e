"""Where sentences end, in cases that are hard, and passages of so many of them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llmbench.retrieval.chunking import Chunk, chunks
from llmbench.retrieval.chunking.sentences import sentence_ends
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder

CASES = [
    "Dr. Smith went home. |He slept.",
    "Mr. and Mrs. Jones met Prof. Li at 5 p.m. on Friday. |They talked.",
    "See Fig. 3 and Sec. 4.2 for details. |The value is 3.14.",
    "It works, e.g. with kettles, i.e. metal ones. |Others fail.",
    "The U.S. Government paid. |He lives in the U.S. |She does not.",
    "J. R. R. Tolkien wrote it. |George W. Bush read it.",
    '"Is it red?" she asked. |"Yes!" he said. |Nobody spoke.',
    "Wait... what is that? |No way... |Really?! |A kettle.",
    "他来了。|她走了\uff01|为什么\uff1f|他说\uff1a“今天很好。”|然后走了。",
    "「行きますか\uff1f」と彼は言った。|彼女は笑った。",
    "Items:|\n- red kettle|\n- blue lamp|\n- green fan",
    "Steps:|\n1. Fill the kettle.|\n2. Press the button.",
    "The Co. Ltd. paid approx. 5 million in Jan. 2024. |It was due in Feb. 2023.",
    "No. 5 is alive. |Is the answer no? |No. |It is yes.",
    "Smith et al. (2010) found it. |Others did not.",
    "Das ist z. B. ein Test. |Er kam am 3. Mai an. |Gut.",
    "Он пришёл. |Она ушла. |यह एक वाक्य है। |यह दूसरा है।",
    "iPhone sales rose. |eBay fell. |The end.[1] |A new one.",
    "Net sales were $1.2 billion. |Item 2. Properties are on p. 14. |**Bold.** |`run()` is third.",
    "It ran for 24 h. |E. coli was grown at 37 C.",
    "The line was\nwrapped in the middle. |Then it went\non again.",
    "Visit www.example.com or mail a.b@c.org. |Version 2.0.1 is out.",
]


@pytest.mark.parametrize("case", CASES)
def test_where_sentences_end(case: str) -> None:
    text = case.replace("|", "")
    ends = [0, *sentence_ends(text, 0, len(text)), len(text)]
    found = [text[a:b].strip() for a, b in pairwise(ends)]
    assert found == [part.strip() for part in case.split("|")]


def cut(text: str, embedder: Embedder, *, size: int = 60, overlap: int = 0, number: int = 2) -> list[Chunk]:
    document = Document("0", "a.txt", "A", text, "text")
    return chunks(document, embedder, max_tokens=size, overlap=overlap, method="sentences", sentences=number)


def test_so_many_sentences_make_a_passage(embedder: Embedder) -> None:
    text = "One is here. Two is here. Three is here. Four is here. Five is here."
    assert [chunk.text for chunk in cut(text, embedder)] == [
        "One is here. Two is here.", "Three is here. Four is here.", "Five is here.",
    ]  # fmt: skip


def test_the_overlap_is_of_whole_sentences(embedder: Embedder) -> None:
    text = "One is here. Two is here. Three is here. Four is here."
    assert [chunk.text for chunk in cut(text, embedder, overlap=5)] == [
        "One is here. Two is here.", "Two is here. Three is here.", "Three is here. Four is here.",
    ]  # fmt: skip


def test_sentences_that_do_not_fit_make_shorter_passages(embedder: Embedder) -> None:
    long = "This sentence goes on and on " * 6 + "to its end."
    found = cut(f"Short one. {long} Short two. Short three.", embedder, size=20)
    assert found[0].text == "Short one." and found[-1].text == "Short two. Short three."
    assert len(found) == 4 and max(chunk.tokens for chunk in found) <= 20
