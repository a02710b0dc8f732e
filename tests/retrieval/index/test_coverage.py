"""The report on what was embedded: shares, orphans, strays, repetitions and lengths."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from random import Random

from rich.console import Console

from llmbench.retrieval.chunking import Chunk, chunks
from llmbench.retrieval.documents import Document, Heading
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index.coverage import coverage
from llmbench.retrieval.index.coverage_table import show


def words(seed: int, number: int = 60) -> str:
    rng = Random(seed)
    return " ".join("".join(rng.choices("abcdefgh", k=4)) for _ in range(number))


def document(name: str, text: str, **values: object) -> Document:
    return replace(Document("0", name, name, text, "text"), **values)  # type: ignore[arg-type]


def test_everything_cut_by_the_real_chunker_is_reached(embedder: Embedder) -> None:
    text = f"First\n\n{words(1)}\n\n{words(2)}"
    page = document("a.txt", text, headings=(Heading(0, 5, 1, "First"),))
    found = chunks(page, embedder, max_tokens=64, overlap=10)
    report = coverage([(page, found)], limit=64, tokens=embedder)
    assert (report.share, report.over, report.strays, report.orphans, report.worst) == (1.0, 0, 0, 0, ())
    assert report.reached == report.characters == len("".join(text.split()))
    assert report.tokens == sum(chunk.tokens for chunk in found) and report.methods == {"tokens": len(found)}
    assert sum(number for _, _, number in report.lengths) == report.chunks == len(found)
    assert report.longest and report.shortest and report.longest.tokens >= report.median >= report.shortest.tokens


def test_what_is_missing_is_named_and_overlaps_count_once() -> None:
    page = document("a.txt", "abcde fghij klmno")
    found = [_chunk(page, 0, 11), _chunk(page, 6, 11)]
    report = coverage([(page, found), (document("b.txt", "xyz"), []), (document("c.txt", " "), [])])
    assert (report.characters, report.reached) == (18, 10)
    assert (report.orphans, report.orphan_sources) == (1, ("b.txt",))
    assert [(low.source, low.missing) for low in report.worst] == [("b.txt", 3), ("a.txt", 5)]


def test_a_heading_counts_only_where_it_travels_as_a_title() -> None:
    page = document("a.txt", "Head\nbody\nLast", headings=(Heading(0, 4, 1, "Head"), Heading(10, 14, 1, "Last")))
    report = coverage([(page, [replace(_chunk(page, 5, 9), title="a.txt > Head")])])
    assert (report.characters, report.reached) == (12, 8)


def test_front_matter_is_not_text() -> None:
    page = document("a.txt", "--- x ---\nbody", headings=(Heading(0, 10, 0, ""),))
    assert coverage([(page, [_chunk(page, 10, 14)])]).share == 1.0


def test_passages_over_the_window_and_without_their_document_are_counted() -> None:
    page = document("a.txt", "abcde fghij")
    long, stray = _chunk(page, 0, 11, tokens=10), replace(_chunk(page, 0, 5), text="other", id="s")
    report = coverage([(page, [long, stray]), (None, [replace(long, id="t")])], limit=5)
    assert (report.over, report.strays, report.stray_ids) == (2, 2, ("s", "t"))
    assert report.share == 0.5


def test_passages_that_repeat_exactly_and_nearly() -> None:
    first = words(1, 100)
    near = first.replace(first.split()[50], "changed")
    texts = [first, words(2, 100), first.upper().replace(" ", "\n"), near, words(3, 100)]
    pages = [document(f"{i}.txt", text) for i, text in enumerate(texts)]
    report = coverage((page, [_chunk(page, 0, len(page.text))]) for page in pages)
    assert (report.same_documents, report.same_chunks, report.near_chunks) == (1, 1, 1)
    assert [(pair.place, pair.earlier) for pair in report.repeated] == [("2.txt", "0.txt"), ("3.txt", "0.txt")]
    assert 0.8 <= report.repeated[1].similarity < 1.0


def test_the_report_is_json_and_a_table() -> None:
    page = document("[a].txt", "abcde fghij", warnings=("page 3 is garbage",))
    report = coverage([(page, [_chunk(page, 0, 5)]), (document("lost.txt", "xyz"), [])], limit=9)
    assert json.loads(json.dumps(report.to_json()))["worst"][0]["source"] == "lost.txt"
    out = StringIO()
    show(report, Console(file=out, width=120))
    for text in ("[a].txt", "lost.txt", "page 3 is garbage", f"{report.share:.2%}", "over the window"):
        assert text in out.getvalue()


def test_an_empty_index_has_a_report() -> None:
    report = coverage([])
    show(report, Console(file=StringIO()))
    assert (report.share, report.chunks, report.shortest, report.lengths) == (1.0, 0, None, ())


def _chunk(page: Document, start: int, end: int, tokens: int = 2) -> Chunk:
    return Chunk(f"{page.source} {start}", page.source, page.title, page.text[start:end], start, end, None, None, tokens)


def test_what_the_vocabulary_does_not_know_is_counted_and_named(embedder: Embedder) -> None:
    thai = document("thai.md", "ค่าจอดเรือ ในฤดูหนาว and a pump")
    english = document("pump.md", "The pump is rated at 40 bar.")
    pairs = [(page, chunks(page, embedder, max_tokens=64, overlap=0)) for page in (thai, english)]
    report = coverage(pairs, limit=64, tokens=embedder, reading=embedder.reading)
    assert report.unknown == len("ค่าจอดเรือในฤดูหนาว")
    [low] = report.unknowing
    assert (low.source, low.missing) == ("thai.md", report.unknown) and 0 < low.share < 0.5
    shown = Console(file=StringIO(), width=100)
    show(report, shown)
    assert "thai.md" in shown.file.getvalue() and "not in its vocabulary" in shown.file.getvalue()  # type: ignore[attr-defined]
    assert coverage(pairs).unknown == 0
