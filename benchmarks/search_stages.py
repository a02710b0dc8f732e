"""What each later stage of a search costs, and how much of a prompt vLLM's prefix cache can use again in each order.

    python benchmarks/search_stages.py PATH/cranfield [--questions 50] [--reranker FOLDER]

30 candidates a query (dense, exact), of documents cut at 120 words. Milliseconds a query: median, and the 10th and 90th
percentile. The prompts of all questions are then cut into blocks of 16 tokens (the bundled model's tokenizer): a block is
shared when an earlier question's prompt had the same tokens from its beginning to that block's end, which is how vLLM
addresses its cache; nothing is ever evicted here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmbench.assets import TINY, model_folder
from llmbench.recipe import EmbedderSpec
from llmbench.recipe.rag import ContextSpec, RerankSpec
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.search.diversity import duplicates, mmr
from llmbench.retrieval.search.expand import feedback
from llmbench.retrieval.search.packing import pack, place, tokenizer_count
from llmbench.retrieval.search.passages import from_hits, with_neighbours
from llmbench.retrieval.search.rerank import Reranker

TEMPLATE = "[{n}] {text}"
BLOCK = 16
CANDIDATES = 30
HANDED_ON = 5


@dataclass(frozen=True)
class Found:
    chunk: Chunk
    score: float
    rank: int
    stages: dict[Any, float]


class Store:
    """A BEIR folder's documents in pieces of 120 words."""

    def __init__(self, path: Path) -> None:
        rows = [json.loads(line) for line in (path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
        self.documents = {
            row["_id"]: Document(row["_id"], row["_id"], row.get("title", ""), row["text"], "rows") for row in rows
        }
        self.chunks: list[Chunk] = []
        self.place: dict[str, int] = {}
        for document in self.documents.values():
            starts = [i for i, c in enumerate(document.text) if not c.isspace() and (i == 0 or document.text[i - 1].isspace())]
            for at in range(0, len(starts), 120):
                a, b = starts[at], starts[at + 120] if at + 120 < len(starts) else len(document.text)
                identity = f"{document.id}-{at}"
                self.place[identity] = len(self.chunks)
                self.chunks.append(Chunk(identity, document.id, document.title, document.text[a:b], a, b, None, None))

    def document(self, source: str) -> Document:
        return self.documents[source]

    def around(self, chunk_id: str, before: int, after: int) -> list[Chunk]:
        at = self.place[chunk_id]
        near = self.chunks[max(0, at - before) : at + after + 1]
        return [chunk for chunk in near if chunk.source == self.chunks[at].source]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=Path)
    arguments.add_argument("--questions", type=int, default=50)
    arguments.add_argument("--reranker", help="a cross-encoder's folder, such as benchmarks/rerank.py trains")
    options = arguments.parse_args()
    store = Store(options.path)
    rows = [json.loads(line) for line in (options.path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    queries = [row["text"] for row in rows][: options.questions]
    embedder = Embedder(EmbedderSpec())
    vectors, asked = embedder.embed([chunk.text for chunk in store.chunks]), embedder.embed(queries)
    runs, near = [], []
    for vector in asked:
        cosines = vectors @ vector
        best = np.argsort(-cosines, kind="stable")[:CANDIDATES]
        scores = [float(cosines[i]) for i in best]
        runs.append(
            [
                Found(store.chunks[i], s, n, {"dense": s, "terms": 4.0})
                for n, (i, s) in enumerate(zip(best, scores, strict=True), 1)
            ]
        )
        near.append(vectors[best])
    print(f"{options.path.name}: {len(store.chunks)} passages, {len(queries)} queries, {CANDIDATES} candidates\n")
    prefixes(runs)
    times(store, queries, runs, near, options.reranker)


def times(store: Store, queries: list[str], runs: list[list[Found]], near: list[Any], reranker: str | None) -> None:
    count = tokenizer_count(Path(model_folder(TINY)))
    late = Reranker(RerankSpec(model_name_or_path="all-MiniLM-L6-v2", kind="late-interaction"))
    texts = [[hit.chunk.text for hit in run] for run in runs]
    spans = [[(hit.chunk.source, hit.chunk.start, hit.chunk.end) for hit in run] for run in runs]
    scores = [np.array([hit.score for hit in run], dtype=np.float32) for run in runs]
    room = ContextSpec(max_tokens=1500)
    stages: dict[str, Callable[[int], object]] = {
        "feedback, words of 3 hits": lambda i: feedback(queries[i], texts[i], 3),
        "duplicates": lambda i: duplicates(texts[i], spans[i]),
        "MMR, 5 of 30": lambda i: mmr(near[i], scores[i], HANDED_ON, 0.5),
        "neighbours 1, merged, 5 hits": lambda i: with_neighbours(runs[i][:HANDED_ON], 1, store),
        "packing, 30 hits into 1,500 tokens": lambda i: pack(from_hits(runs[i]), room, TEMPLATE, count=count),
        "late interaction, all-MiniLM-L6-v2": lambda i: late.judge(queries[i], texts[i]),
    }
    if reranker:
        cross = Reranker(RerankSpec(model_name_or_path=reranker))
        stages[f"cross-encoder, {Path(reranker).name}"] = lambda i: cross.judge(queries[i], texts[i])
    print("\n| stage | ms a query | 10 % to 90 % |\n|---|---|---|")
    for name, stage in stages.items():
        stage(0)  # what is loaded at the first call is no part of it
        spent = []
        slow = name.startswith(("late", "cross"))
        for i in range(min(20, len(queries)) if slow else len(queries)):
            start = time.perf_counter()
            stage(i)
            spent.append((time.perf_counter() - start) * 1000)
        low, middle, high = np.percentile(spent, [10, 50, 90])
        print(f"| {name} | {middle:.3g} | {low:.3g} to {high:.3g} |", flush=True)


def prefixes(runs: list[list[Found]]) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model_folder(TINY)) / "tokenizer.json"))
    often = Counter(place(passage) for run in runs for passage in from_hits(run[:HANDED_ON]))
    orders: list[tuple[str, ContextSpec, dict[Any, int]]] = [
        ("score", ContextSpec(order="score"), {}),
        ("document", ContextSpec(order="document"), {}),
        ("stable", ContextSpec(order="stable"), {}),
        ("stable, most shared first", ContextSpec(order="stable"), dict(often)),
    ]
    print(f"| order, {HANDED_ON} passages a question | prompt tokens | in shared blocks | of all |\n|---|---|---|---|")
    for name, context, shared in orders:
        seen: set[int] = set()
        total = hits = 0
        for run in runs:
            packed = pack(from_hits(run[:HANDED_ON]), context, TEMPLATE, shared=shared)
            ids = tokenizer.encode(f"Answer from the passages.\n\nPassages:\n{packed.text}", add_special_tokens=False).ids
            total += len(ids)
            alike, key = True, 0
            for at in range(0, len(ids) - BLOCK + 1, BLOCK):
                key = hash((key, tuple(ids[at : at + BLOCK])))
                alike = alike and key in seen
                hits += BLOCK if alike else 0
                seen.add(key)
        print(f"| {name} | {total:,} | {hits:,} | {hits / total:.1%} |")


if __name__ == "__main__":
    main()
