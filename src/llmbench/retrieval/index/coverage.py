"""What of the documents reached an embedding, and what among the passages is odd: orphans, repetitions, lengths.

Everything is counted in one pass over `(document, its passages)`, which may come from an index as it is read. A passage
costs some 350 bytes of memory, a document its name: 50,000 pages stay within a hundred megabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from typing import Any

from llmbench.retrieval.chunking import Chunk, Tokens, embedded_text
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Reading
from llmbench.retrieval.index.repetition import Repeated, Repetition

__all__ = ["Coverage", "Extreme", "Low", "coverage"]

EXAMPLES = 20
"""How many orphans, strays and warnings are named; all are counted."""
WORST = 10
"""How many documents of least coverage are named."""
BINS = 8
"""Into how many parts the range of lengths is divided."""


@dataclass(frozen=True)
class Low:
    """A document of which little was embedded: its share, and the characters that no embedding saw."""

    source: str
    share: float
    missing: int


@dataclass(frozen=True)
class Extreme:
    """The longest or shortest passage: its tokens, where it is, and how it begins."""

    tokens: int
    place: str
    text: str


@dataclass(frozen=True)
class Coverage:
    """The report. Characters are those that are not white space; shares are from 0 to 1."""

    documents: int
    chunks: int
    characters: int
    reached: int
    """Characters in a passage, or in a heading that is embedded as a title; those in two passages count once."""
    share: float
    worst: tuple[Low, ...]
    """The documents of which the smallest share was embedded, the smallest first; those that are whole are not among them."""
    orphans: int
    """Documents that hold text and have no passage."""
    orphan_sources: tuple[str, ...]
    strays: int
    """Passages that belong to no document, or are not its text where they say."""
    stray_ids: tuple[str, ...]
    warnings: int
    """What reading said of documents: pages of garbage, pages that could not be read."""
    warned: tuple[tuple[str, str], ...]
    same_documents: int
    """Documents whose text is that of an earlier one, but for case and white space."""
    same_chunks: int
    """Passages whose words are those of an earlier one."""
    near_chunks: int
    """Other passages that share, by estimate, four fifths of their runs of five words with an earlier one."""
    repeated: tuple[Repeated, ...]
    unknown: int
    """Characters of passages that the embedder's vocabulary does not know: their words are searched, their meaning is not."""
    unknowing: tuple[Low, ...]
    """The documents of which the embedder knows the smallest share, that first; `missing` are their unknown characters."""
    over: int
    """Passages longer than the embedder reads. Anything but 0 is a fault."""
    limit: int | None
    tokens: int
    median: int
    shortest: Extreme | None
    longest: Extreme | None
    lengths: tuple[tuple[int, int, int], ...]
    """From, to (both included), and how many passages have so many tokens."""
    methods: dict[str, int]
    """How many passages each method cut: `tokens` beside another is what the other could not cut."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON document."""
        return asdict(self)


def coverage(
    indexed: Iterable[tuple[Document | None, Sequence[Chunk]]],
    *,
    limit: int | None = None,
    tokens: Tokens | None = None,
    reading: Callable[[str], Reading] | None = None,
) -> Coverage:
    """Counts what reached an embedding.

    Args:
        indexed: documents with their passages, each once; None in the place of a document is one that is missing.
        limit: the tokens of a passage that the embedder reads beside its title, where that is known.
        tokens: shortens titles as the embedder was given them; without it every heading in a title counts.
        reading: how much of a text the embedder's vocabulary knows; without it nothing counts as unknown.
    """
    count = _Count(limit, tokens, reading)
    for document, chunks in indexed:
        count.add(document, chunks)
    return count.result()


class _Count:
    """The sums of one pass."""

    def __init__(self, limit: int | None, tokens: Tokens | None, reading: Callable[[str], Reading] | None) -> None:
        self.limit, self.tokens, self.reading = limit, tokens, reading
        self.unknown, self.unknowing = 0, list[Low]()
        self.documents = self.characters = self.reached = self.orphans = self.strays = self.warnings = self.over = 0
        self.low: list[Low] = []
        self.orphan_sources: list[str] = []
        self.stray_ids: list[str] = []
        self.warned: list[tuple[str, str]] = []
        self.lengths: Counter[int] = Counter()
        self.methods: Counter[str] = Counter()
        self.shortest: Extreme | None = None
        self.longest: Extreme | None = None
        self.repetition = Repetition()

    def add(self, document: Document | None, chunks: Sequence[Chunk]) -> None:
        """One document with its passages."""
        for chunk in chunks:
            self._chunk(document, chunk)
        if document is None:
            return
        self.documents += 1
        self._known(document, chunks)
        self.warnings += len(document.warnings)
        self.warned += [(document.source, words) for words in document.warnings][: EXAMPLES - len(self.warned)]
        whole, reached = self._characters(document, chunks)
        self.characters += whole
        self.reached += reached
        if whole:
            self.repetition.document(document.text)
        if whole and not chunks:
            self.orphans += 1
            self.orphan_sources += [document.source][: EXAMPLES - len(self.orphan_sources)]
        if reached < whole:
            self.low = nlargest(WORST, [*self.low, Low(document.source, reached / whole, whole - reached)], key=_rank)

    def _chunk(self, document: Document | None, chunk: Chunk) -> None:
        self.lengths[chunk.tokens] += 1
        self.methods[chunk.method] += 1
        self.over += self.limit is not None and chunk.tokens > self.limit
        place = _place(chunk)
        extreme = Extreme(chunk.tokens, place, " ".join(chunk.text[:200].split())[:80])
        if self.shortest is None or chunk.tokens < self.shortest.tokens:
            self.shortest = extreme
        if self.longest is None or chunk.tokens > self.longest.tokens:
            self.longest = extreme
        self.repetition.chunk(chunk.text, place)
        if document is None or chunk.source != document.source or document.text[chunk.start : chunk.end] != chunk.text:
            self.strays += 1
            self.stray_ids += [chunk.id][: EXAMPLES - len(self.stray_ids)]

    def _characters(self, document: Document, chunks: Sequence[Chunk]) -> tuple[int, int]:
        """How many there are, and how many were embedded. Front matter is metadata, and neither."""
        text = document.text
        titles = {embedded_text(chunk.title, "", self.tokens) if self.tokens else chunk.title for chunk in chunks}
        spans = [(chunk.start, self._read_to(chunk)) for chunk in chunks]
        apart = [(heading.start, heading.end) for heading in document.headings if not heading.level]
        spans += [(h.start, h.end) for h in document.headings if h.level and any(h.text in title for title in titles)]
        whole = _solid(text, [(0, len(text))])
        return whole - _solid(text, apart), _solid(text, [*spans, *apart]) - _solid(text, apart)

    def _known(self, document: Document, chunks: Sequence[Chunk]) -> None:
        """What of a document's passages the vocabulary knows."""
        if self.reading is None:
            return
        found = [self.reading(chunk.text) for chunk in chunks]
        characters, unknown = sum(one.characters for one in found), sum(one.unknown for one in found)
        self.unknown += unknown
        if unknown:
            low = Low(document.source, 1 - unknown / characters, unknown)
            self.unknowing = nlargest(WORST, [*self.unknowing, low], key=_rank)

    def _read_to(self, chunk: Chunk) -> int:
        """Where the embedder stops reading a passage."""
        if self.limit is None or chunk.tokens <= self.limit:
            return chunk.end
        return chunk.start + len(chunk.text) * self.limit // chunk.tokens

    def result(self) -> Coverage:
        """The report."""
        lengths = sorted(self.lengths.elements())
        repeated = self.repetition.result()
        return Coverage(
            documents=self.documents,
            chunks=len(lengths),
            characters=self.characters,
            reached=self.reached,
            share=self.reached / self.characters if self.characters else 1.0,
            worst=tuple(self.low),
            orphans=self.orphans,
            orphan_sources=tuple(self.orphan_sources),
            strays=self.strays,
            stray_ids=tuple(self.stray_ids),
            warnings=self.warnings,
            warned=tuple(self.warned),
            same_documents=repeated.documents,
            same_chunks=repeated.same,
            near_chunks=repeated.near,
            repeated=repeated.examples,
            unknown=self.unknown,
            unknowing=tuple(self.unknowing),
            over=self.over,
            limit=self.limit,
            tokens=sum(lengths),
            median=lengths[len(lengths) // 2] if lengths else 0,
            shortest=self.shortest,
            longest=self.longest,
            lengths=_bins(self.lengths),
            methods=dict(sorted(self.methods.items())),
        )


def _rank(low: Low) -> tuple[float, int]:
    return -low.share, low.missing


def _place(chunk: Chunk) -> str:
    """`file.pdf, page 3` or `file.md, line 12`."""
    for name, number in (("page", chunk.page), ("line", chunk.line)):
        if number is not None:
            return f"{chunk.source}, {name} {number}"
    return chunk.source


def _solid(text: str, spans: Iterable[tuple[int, int]]) -> int:
    """How many characters of some spans are not white space, each counted once."""
    total = here = 0
    for start, end in sorted(spans):
        start = max(start, here)
        if start < end:
            total += sum(map(len, text[start:end].split()))
            here = end
    return total


def _bins(lengths: Counter[int]) -> tuple[tuple[int, int, int], ...]:
    """The lengths in equal ranges."""
    if not lengths:
        return ()
    low, high = min(lengths), max(lengths)
    width = (high - low) // BINS + 1
    sums = Counter[int]()
    for length, number in lengths.items():
        sums[(length - low) // width] += number
    return tuple((low + i * width, min(low + (i + 1) * width - 1, high), sums[i]) for i in range((high - low) // width + 1))
