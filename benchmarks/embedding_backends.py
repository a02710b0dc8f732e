"""What each backend's vectors are worth, and how fast they are made: the table `Embedding backends` of docs/benchmarks.md.

    python benchmarks/embedding_backends.py speed PATH/scifact --documents 128 --rounds 5
    python benchmarks/embedding_backends.py quality PATH/scifact PATH/cranfield PATH/cisi

Every folder is a BEIR folder. `speed` takes turns, one arm after another in each round, all in one process, and counts both the
clock and the process's own CPU seconds, which other work on the machine disturbs less. `--threads 1` is for a crowded machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbench import hardware
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder, locate

MODEL = "all-MiniLM-L6-v2"
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "quality"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=hardware.cores())
    parser.add_argument(
        "--arms", nargs="+", default=["peer", "onnx:float32", "torch:float32", "torch:bfloat16", "onnx:int8"],
        help="`peer` is sentence-transformers as it comes, `peer-bfloat16` its bfloat16; others are BACKEND:PRECISION",
    )  # fmt: skip
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    hardware.cores = lambda: options.threads  # what the sessions of runtime.py ask for their threads
    arms = {name: arm(name) for name in options.arms}
    if options.what == "speed":
        speed(options.folders[0], arms, options.documents, options.rounds)
    else:
        for folder in options.folders:
            quality(folder, arms)


def arm(name: str) -> Embed:
    """One way to embed."""
    if name.startswith("peer"):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(locate(MODEL)), device="cpu")
        model = model.bfloat16() if name.endswith("bfloat16") else model
        return lambda texts: np.asarray(
            model.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32
        )
    backend, precision = name.split(":")
    embedder = Embedder(EmbedderSpec.model_validate({"backend": backend, "precision": precision}))
    embedder.load()
    return embedder.embed_documents


def corpus(folder: Path) -> dict[str, str]:
    """Every document's title and text by its id."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    return {row["_id"]: f"{row.get('title', '')}\n{row['text']}".strip() for row in rows}


def speed(folder: Path, arms: dict[str, Embed], documents: int, rounds: int) -> None:
    """Documents a second, and a CPU second: median [least, most] of the rounds; ratios within each round."""
    texts = random.Random(0).sample(list(corpus(folder).values()), documents)
    for embed in arms.values():
        embed(texts[:2])
    clock: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, embed in arms.items():
            wall, used = time.perf_counter(), time.process_time()
            embed(texts)
            clock[name].append(documents / (time.perf_counter() - wall))
            cpu[name].append(documents / (time.process_time() - used))
    first = next(iter(arms))
    print("| arm | documents a CPU second | ratio | documents a second | ratio |\n| --- | --- | --- | --- | --- |")
    for name in arms:
        ratios = [[x / y for x, y in zip(of[name], of[first], strict=True)] for of in (cpu, clock)]
        print(
            f"| {name} | {spread(cpu[name])} | {spread(ratios[0], 2)} | {spread(clock[name])} | {spread(ratios[1], 2)} |",
            flush=True,
        )


def spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def quality(folder: Path, arms: dict[str, Embed]) -> None:
    """nDCG@10 of exact dense search over whole documents, with the least cosine to the first arm's vectors."""
    documents, judged = corpus(folder), judgements(folder)
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    asked = [key for key in queries if key in judged]
    known, first = list(documents), None
    for name, embed in arms.items():
        passages, questions = embed(list(documents.values())), embed([queries[key] for key in asked])
        first = passages if first is None else first
        scores = questions @ passages.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        value = statistics.fmean(
            ndcg([judged[key].get(known[i], 0.0) for i in row], judged[key]) for key, row in zip(asked, best, strict=True)
        )
        least = float((first * passages).sum(axis=1).min())
        print(f"| {folder.name} | {len(known)} | {len(asked)} | {name} | {value:.4f} | {least:.4f} |", flush=True)


def judgements(folder: Path) -> dict[str, dict[str, float]]:
    """query -> document -> gain, from every file of qrels/; queries without a relevant document are left out."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        for row in csv.DictReader(path.open(encoding="utf-8"), delimiter="\t"):
            if float(row["score"]) > 0:
                found.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
    return found


def ndcg(gains: list[float], judged: dict[str, Any]) -> float:
    """nDCG@10 with linear gain, as trec_eval has it."""

    def dcg(values: list[float]) -> float:
        return sum(float(value) / float(np.log2(i + 2)) for i, value in enumerate(values[:10]))

    return dcg(gains) / dcg(sorted(judged.values(), reverse=True))


if __name__ == "__main__":
    main()
