"""How good dense, terms and their fusion are on several BEIR folders, and which fusion to take where nobody judged anything.

    python benchmarks/retrieval_quality.py FOLDER [FOLDER ...] [--vectors CACHE] [--against-sentence-transformers] [--json FILE]

Documents are whole (title and text, cut at the embedder's window), so that the ranking is measured and not the cutting. No
figure is of queries that anything was tuned on: a fusion's setting is chosen on the other collections (leave one out), a tuned
alpha is scored on folds that it did not see.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbench import workspace
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval import evaluation
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.search.fusion import List, convex, rrf
from llmbench.retrieval.store.words import terms
from llmbench.statistics.paired import Values

DEPTH = 100
ALPHAS = tuple(round(0.1 * step, 1) for step in range(1, 10))
FAMILIES = ("min-max", "zero", "theoretical", "rrf")
DEFAULT = "min-max 0.6"
Ways = dict[str, Values]
"""Way of searching -> query -> nDCG@10."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", type=Path, nargs="+", help="BEIR folders")
    arguments.add_argument("--vectors", type=Path, help="a folder to keep vectors in")
    arguments.add_argument("--against-sentence-transformers", action="store_true", help="embed again by its own means")
    arguments.add_argument("--json", type=Path, help="also write the figures there")
    options = arguments.parse_args()
    found = {folder.name: measure(folder, options.vectors, options.against_sentence_transformers) for folder in options.folders}
    figures = summary(found)
    if options.json is not None:
        workspace.write_json(options.json, figures)


def measure(folder: Path, cache: Path | None, against: bool) -> Ways:
    """nDCG@10 of every query in every way."""
    collection = evaluation.read(folder)
    rows = list(evaluation.corpus(folder))
    ids = [identity for identity, _, _ in rows]
    texts = [f"{title}\n{text}".strip() for _, title, text in rows]
    documents, queries = vectors(folder.name, texts, list(collection.queries.values()), cache)
    dense, lexical = nearest(documents, queries), words(rows, list(collection.queries.values()))

    def value(lists: Sequence[List]) -> Values:
        run = {query: [ids[i] for i in one[0]] for query, one in zip(collection.queries, lists, strict=True)}
        return evaluation.measure(run, collection.qrels, ["nDCG@10"])["nDCG@10"]

    ways: Ways = {"dense": value(dense), "terms": value(lexical)}
    if against:
        ways["sentence-transformers"] = value(theirs(texts, list(collection.queries.values())))
    for name, fuse in fusions().items():
        ways[name] = value([fuse(a, b) for a, b in zip(dense, lexical, strict=True)])
    print(folder.name, {name: round(evaluation.mean(dict(values)), 4) for name, values in list(ways.items())[:3]}, flush=True)
    return ways


def fusions() -> dict[str, Callable[[List, List], List]]:
    """Every setting of every family, by name."""
    found: dict[str, Callable[[List, List], List]] = {}
    for alpha in ALPHAS:
        found[f"min-max {alpha}"] = partial(convex, alpha=alpha)
        found[f"zero {alpha}"] = partial(scaled, alpha=alpha, least=0.0)
        found[f"theoretical {alpha}"] = partial(scaled, alpha=alpha, least=-1.0)
    for k in (10, 20, 40, 60):
        found[f"rrf {k}"] = partial(by_rank, k=k)
    return found


def by_rank(dense: List, lexical: List, k: int) -> List:
    """Reciprocal rank fusion of the two."""
    return rrf([dense, lexical], k)


def scaled(dense: List, lexical: List, alpha: float, least: float) -> List:
    """Convex with fixed minima: 0 for terms, `least` for dense (0, or the theoretical -1); who is missing has the minimum."""

    def with_floor(one: List, floor: float) -> List:
        # An id that nobody has carries the minimum into min-max, and is taken out again.
        return np.append(one[0], -1), np.append(one[1], floor)

    ids, scores = convex(with_floor(dense, least), with_floor(lexical, 0.0), alpha)
    return ids[ids >= 0], scores[ids >= 0]


def vectors(name: str, texts: list[str], queries: list[str], cache: Path | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vectors of documents and queries, from the cache where they are."""
    digest = hashlib.sha256("\0".join([*texts, *queries]).encode()).hexdigest()[:16]
    path = cache / f"{name}-{digest}.npz" if cache else None
    if path is not None and path.exists():
        kept = np.load(path)
        return kept["d"], kept["q"]
    embedder = Embedder(EmbedderSpec(), dtype="float32")
    found = embedder.embed(texts), embedder.embed(queries)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, d=found[0], q=found[1])
    return found


def nearest(documents: NDArray[Any], queries: NDArray[Any]) -> list[List]:
    """Exact search by inner product."""
    found = []
    for products in queries @ documents.T:
        rows = np.lexsort((np.arange(len(products)), -products))[:DEPTH]
        found.append((rows, products[rows].astype(np.float64)))
    return found


def theirs(texts: list[str], queries: list[str]) -> list[List]:
    """sentence-transformers' own encoding and exact search."""
    from sentence_transformers import SentenceTransformer, util

    from llmbench.retrieval.embedding import locate

    model = SentenceTransformer(str(locate("all-MiniLM-L6-v2")), device="cpu", local_files_only=True)
    hits = util.semantic_search(
        model.encode(queries, convert_to_tensor=True), model.encode(texts, convert_to_tensor=True), top_k=DEPTH
    )
    return [(np.array([h["corpus_id"] for h in one]), np.array([h["score"] for h in one])) for one in hits]


def words(rows: Sequence[tuple[str, str, str]], queries: Sequence[str]) -> list[List]:
    """BM25 with the store's own table and query."""
    db = sqlite3.connect(":memory:")
    db.executescript(terms.schema("terms"))
    pairs = [(i, *terms.columns(title, "", text)) for i, (_, title, text) in enumerate(rows)]
    db.executemany("INSERT INTO terms(rowid, title, text) VALUES (?, ?, ?)", pairs)
    ask = "SELECT rowid, -bm25(terms, 2.0, 1.0) AS score FROM terms WHERE terms MATCH ? ORDER BY score DESC, rowid LIMIT ?"
    found = []
    for query in queries:
        expression = terms.query(query)
        hits = db.execute(ask, (expression, DEPTH)).fetchall() if expression else []
        found.append((np.array([row for row, _ in hits], dtype=np.int64), np.array([score for _, score in hits], dtype=float)))
    return found


def summary(found: Mapping[str, Ways]) -> dict[str, Any]:
    """Prints the table and what follows from it; returns the figures."""
    means = {name: {way: evaluation.mean(dict(values)) for way, values in ways.items()} for name, ways in found.items()}
    shared = [way for way in next(iter(means.values())) if all(way in one for one in means.values())]
    table = {way: [means[name][way] for name in means] for way in shared}
    table["better of dense and terms"] = [max(one["dense"], one["terms"]) for one in means.values()]
    for family in FAMILIES:
        table[f"{family}, chosen on the other sets"] = [left_out(means, name, family) for name in means]
    table["min-max, alpha tuned by folds"] = [held_out(ways) for ways in found.values()]
    print("\n| nDCG@10 | " + " | ".join(means) + " | mean |\n|" + "---|" * (len(means) + 2))
    for way, values in table.items():
        print(f"| {way} | " + " | ".join(f"{value:.4f}" for value in values) + f" | {np.mean(values):.4f} |")
    low, high = gain(found, DEFAULT, "dense")
    print(f"\n{DEFAULT} minus dense: {np.mean(table[DEFAULT]) - np.mean(table['dense']):+.4f} [{low:+.4f}, {high:+.4f}]")
    return {"table": table, "default minus dense": [low, high]}


def left_out(means: Mapping[str, Mapping[str, float]], name: str, family: str) -> float:
    """A collection's figure with the setting that is best on the others."""
    settings = [way for way in means[name] if way.startswith(f"{family} ")]
    others = [one for other, one in means.items() if other != name] or [means[name]]
    return means[name][max(settings, key=lambda way: sum(one[way] for one in others))]


def held_out(ways: Ways, folds: int = 5) -> float:
    """Alpha by five-fold cross-validation over a collection's queries."""
    settings = [way for way in ways if way.startswith("min-max ")]
    queries = sorted(ways["dense"])
    table = np.array([[ways[way][query] for query in queries] for way in settings])
    fold = np.random.default_rng(0).permutation(len(queries)) % folds
    found = np.zeros(len(queries))
    for one in range(folds):
        found[fold == one] = table[table[:, fold != one].mean(axis=1).argmax(), fold == one]
    return float(found.mean())


def gain(found: Mapping[str, Ways], a: str, b: str, resamples: int = 5000) -> tuple[float, float]:
    """The interval of the mean over collections of a - b: queries are drawn anew within each collection."""
    rng, total = np.random.default_rng(0), np.zeros(resamples)
    for ways in found.values():
        d = np.array([ways[a][query] - ways[b][query] for query in sorted(ways[a])])
        total += d[rng.integers(0, len(d), (resamples, len(d)))].mean(axis=1) / len(found)
    low, high = np.quantile(total, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
