"""Does a second look help? Late interaction, and a cross-encoder trained here, over the best 30 candidates of a search.

    python benchmarks/rerank.py PATH/scifact PATH/cranfield ...                   MaxSim of all-MiniLM-L6-v2's token vectors
    python benchmarks/rerank.py PATH/scifact --cross-encoder FOLDER [--train 400]  trains on half of the queries, asks the rest

Documents are read whole (title, then text), long ones in windows whose best counts. Candidates are the best 30 of dense, or
of dense and BM25 (SQLite's FTS5) fused by reciprocal rank. nDCG@10 with the judgements' own gains, as trec_eval has it; the
interval of a difference is a paired bootstrap over the queries.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbench.recipe import EmbedderSpec
from llmbench.recipe.rag import RerankSpec
from llmbench.retrieval.embedding import Embedder, locate
from llmbench.retrieval.search.rerank import Reranker, maxsim
from llmbench.retrieval.search.windows import windows

CANDIDATES = 30
PACKAGED = "all-MiniLM-L6-v2"


class Collection:
    """A BEIR folder with its candidates."""

    def __init__(self, path: Path) -> None:
        rows = [json.loads(line) for line in (path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
        self.name, self.ids = path.name, [row["_id"] for row in rows]
        self.texts = [f"{row.get('title', '')}\n{row['text']}".strip() for row in rows]
        queries = [json.loads(line) for line in (path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
        self.qrels: dict[str, dict[int, int]] = {}
        place = {identity: i for i, identity in enumerate(self.ids)}
        for file in sorted((path / "qrels").glob("*.tsv")):
            for line in file.read_text(encoding="utf-8").splitlines()[1:]:
                query, document, score = line.split("\t")
                if int(score) > 0 and document in place:
                    self.qrels.setdefault(query, {})[place[document]] = int(score)
        self.queries = {row["_id"]: row["text"] for row in queries if row["_id"] in self.qrels}

    def search(self) -> None:
        """Fills `dense`, `fused`: query -> candidates, best first, and `cosines`."""
        embedder = Embedder(EmbedderSpec())
        documents, asked = embedder.embed(self.texts), embedder.embed(list(self.queries.values()))
        self.cosines = dict(zip(self.queries, asked @ documents.T, strict=True))
        ranked = {query: [int(i) for i in np.argsort(-row, kind="stable")[:100]] for query, row in self.cosines.items()}
        self.dense = {query: best[:CANDIDATES] for query, best in ranked.items()}
        self.fused = {}
        database = sqlite3.connect(":memory:")
        database.execute("CREATE VIRTUAL TABLE terms USING fts5(text, tokenize='porter unicode61')")
        database.executemany("INSERT INTO terms(rowid, text) VALUES (?, ?)", enumerate(self.texts))
        for query, text in self.queries.items():
            words = " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", text.lower())))
            found = database.execute("SELECT rowid FROM terms WHERE terms MATCH ? ORDER BY rank LIMIT 100", (words,)).fetchall()
            points: dict[int, float] = {}
            for best in (ranked[query], [row[0] for row in found]):
                for rank, document in enumerate(best, 1):
                    points[document] = points.get(document, 0) + 1 / (60 + rank)
            self.fused[query] = sorted(points, key=lambda document: -points[document])[:CANDIDATES]


def ndcg(run: dict[str, list[int]], qrels: dict[str, dict[int, int]]) -> NDArray[np.float64]:
    result = []
    for query, best in run.items():
        gains = [qrels[query].get(document, 0) for document in best[:10]]
        ideal = sorted(qrels[query].values(), reverse=True)[:10]
        result.append(
            sum(g / math.log2(i + 2) for i, g in enumerate(gains)) / sum(g / math.log2(i + 2) for i, g in enumerate(ideal))
        )
    return np.array(result)


def line(name: str, of: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    rng = np.random.default_rng(0)
    differences = (of - base)[rng.integers(0, len(of), (10_000, len(of)))].mean(axis=1)
    low, high = np.percentile(differences, [2.5, 97.5])
    return f"| {name} | {of.mean():.3f} | {(of - base).mean():+.3f} [{low:+.3f}, {high:+.3f}] |"


def late(collection: Collection) -> None:
    """Token vectors once for every document that is a candidate, float16; then MaxSim for each pair."""
    reranker = Reranker(RerankSpec(model_name_or_path=PACKAGED, kind="late-interaction"))
    reranker.load()
    model: Any = reranker._model
    _, room, _ = reranker._fit_late("")
    wanted = sorted({i for run in (collection.dense, collection.fused) for best in run.values() for i in best})
    pieces = {i: windows(collection.texts[i], room, reranker._offsets) for i in wanted}
    flat = [(i, piece) for i, several in pieces.items() for piece in several]
    start = time.perf_counter()
    read = model.encode_document([piece for _, piece in flat], batch_size=32, show_progress_bar=False, convert_to_numpy=True)
    seconds = time.perf_counter() - start
    vectors: dict[int, list[NDArray[np.float16]]] = {}
    for (i, _), one in zip(flat, read, strict=True):
        vectors.setdefault(i, []).append(one.astype(np.float16))
    asked = model.encode_query(list(collection.queries.values()), show_progress_bar=False, convert_to_numpy=True)
    print(f"\n{collection.name}: {len(collection.ids)} documents, {len(collection.queries)} queries; {len(flat)} windows of "
          f"{len(wanted)} candidates read in {seconds:.0f} s\n")  # fmt: skip
    print("| candidates, then | nDCG@10 | difference |\n|---|---|---|")
    for name, run in (("dense", collection.dense), ("dense and BM25", collection.fused)):
        base = ndcg(run, collection.qrels)
        print(f"| {name} | {base.mean():.3f} | |")
        scores = {
            query: {i: max(maxsim(tokens, one.astype(np.float32)) for one in vectors[i]) for i in run[query]}
            for query, tokens in zip(collection.queries, asked, strict=True)
        }
        alone = {query: sorted(of, key=lambda i, of=of: -of[i]) for query, of in scores.items()}  # type: ignore[misc]
        print(line(f"{name}, MaxSim", ndcg(alone, collection.qrels), base))
        both = {
            query: sorted(of, key=lambda i, of=of, query=query: -(of[i] + collection.cosines[query][i]))  # type: ignore[misc]
            for query, of in scores.items()
        }
        print(line(f"{name}, MaxSim + cosine", ndcg(both, collection.qrels), base), flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("paths", type=Path, nargs="+", help="BEIR folders")
    arguments.add_argument("--cross-encoder", type=Path, metavar="FOLDER", help="train one there and measure it instead")
    arguments.add_argument("--train", type=int, default=400, help="queries to train on at most, of the first half")
    options = arguments.parse_args()
    for path in options.paths:
        collection = Collection(path)
        collection.search()
        if options.cross_encoder:
            cross(collection, options.cross_encoder, options.train)
        else:
            late(collection)


def cross(collection: Collection, folder: Path, most: int) -> None:
    """Trains on the first half of the queries (shuffled), each right document against five wrong candidates."""
    import torch
    from sentence_transformers import CrossEncoder

    rng = np.random.default_rng(0)
    order = [list(collection.queries)[i] for i in rng.permutation(len(collection.queries))]
    half = len(order) // 2
    rows = []
    for query in order[:half][:most]:
        wrong = [i for i in collection.fused[query] if i not in collection.qrels[query]]
        for right in collection.qrels[query]:
            rows.append((query, right, [wrong[int(i)] for i in rng.choice(len(wrong), 5, replace=False)]))
    torch.manual_seed(0)
    model: Any = CrossEncoder(str(locate(PACKAGED)), num_labels=1, device="cpu", max_length=256)
    start = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=0.01)
    steps, group = len(rows) // 4 * 2, 4
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / (steps + 1)))
    model.train()
    for step in range(steps):
        at = step * group % (len(rows) // group * group)
        if at == 0:
            rng.shuffle(rows)
        batch = rows[at : at + group]
        pairs = [(collection.queries[q], collection.texts[i]) for q, right, wrong in batch for i in (right, *wrong)]
        scores = model(model.preprocess(pairs))["scores"].view(group, 6)
        # The right document against its wrong ones: cross-entropy over each group (localised contrastive estimation).
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(group, dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.perf_counter() - start:.0f} s", flush=True)
    model.eval()
    model.activation_fn = torch.nn.Identity()
    model.save_pretrained(str(folder))
    seconds = time.perf_counter() - start
    reranker = Reranker(RerankSpec(model_name_or_path=str(folder)))
    held = order[half:]
    run = {query: collection.fused[query] for query in held}
    qrels = {query: collection.qrels[query] for query in held}
    base = ndcg(run, qrels)
    ranked, spent = {}, []
    for query, best in run.items():
        judged = reranker.judge(collection.queries[query], [collection.texts[i] for i in best])
        spent.append(judged.seconds)
        ranked[query] = [best[int(i)] for i in np.argsort(-judged.scores, kind="stable")]
    print(f"\n{collection.name}: trained on {min(half, most)} queries in {seconds:.0f} s, asked the other {len(held)}; "
          f"{np.median(spent) * 1000:.0f} ms a query\n")  # fmt: skip
    print("| candidates, then | nDCG@10 | difference |\n|---|---|---|")
    print(f"| dense and BM25 | {base.mean():.3f} | |")
    print(line("dense and BM25, cross-encoder", ndcg(ranked, qrels), base))


if __name__ == "__main__":
    main()
