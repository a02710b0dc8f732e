"""How good a retriever is: nDCG and recall as trec_eval computes them, over all judged queries, with an interval."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbench.errors import DataError

__all__ = ["Beir", "interval", "ndcg_at_k", "read_beir", "recall_at_k"]

Qrels = Mapping[str, Mapping[str, int]]
"""Query -> document -> grade; 0 is judged and not relevant."""
Run = Mapping[str, Sequence[str]]
"""Query -> documents, best first."""


def ndcg_at_k(run: Run, qrels: Qrels, k: int = 10) -> dict[str, float]:
    """nDCG@k of each judged query that has a relevant document, with linear gain: DCG = sum of grade / log2(rank + 1).

    A judged query that the run lacks counts 0, so that an average over the values hides no failure.
    """

    def dcg(grades: Sequence[int]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:k], 1))

    result = {}
    for query, judged in qrels.items():
        best = dcg(sorted((grade for grade in judged.values() if grade > 0), reverse=True))
        if best > 0:
            result[query] = dcg([max(judged.get(document, 0), 0) for document in _once(run.get(query, ()))]) / best
    return result


def recall_at_k(run: Run, qrels: Qrels, k: int = 100) -> dict[str, float]:
    """The share of each query's relevant documents among the first k; queries as in `ndcg_at_k`."""
    result = {}
    for query, judged in qrels.items():
        relevant = {document for document, grade in judged.items() if grade > 0}
        if relevant:
            result[query] = len(relevant.intersection(_once(run.get(query, ()))[:k])) / len(relevant)
    return result


def _once(documents: Sequence[str]) -> list[str]:
    """A document counts at its first place only."""
    return list(dict.fromkeys(documents))


def interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean, over queries."""
    import numpy as np
    from scipy import stats

    if len(values) < 2 or len(set(values)) == 1:
        return (values[0], values[0]) if values else (math.nan, math.nan)
    found = stats.bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=1000,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class Beir:
    """A test collection: documents as (id, title, text), queries by id, judgements."""

    corpus: list[tuple[str, str, str]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_beir(folder: Path, split: str = "test") -> Beir:
    """Reads corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv; queries without a judgement are left out.

    Raises:
        DataError: a file is missing or a line is broken.
    """
    corpus = [(str(row["_id"]), str(row.get("title") or ""), str(row["text"])) for row in _rows(folder / "corpus.jsonl")]
    queries = {str(row["_id"]): str(row["text"]) for row in _rows(folder / "queries.jsonl")}
    path = folder / "qrels" / f"{split}.tsv"
    qrels: dict[str, dict[str, int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter="\t"), 1):
                if number > 1 and row:
                    qrels.setdefault(row[0], {})[row[1]] = int(row[2])
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.tsv"))) or "none"
        raise DataError(f"no such file {path}. Splits there: {there}") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}:{number}: not query-id, corpus-id, score separated by tabs") from error
    return Beir(corpus, {query: text for query, text in queries.items() if query in qrels}, qrels)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the error below tells it
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict) or not {"_id", "text"} <= row.keys():
                        raise ValueError("a row without _id and text")
                    yield row
    except FileNotFoundError as error:
        raise DataError(f"no such file {path}. A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/.") from error
    except ValueError as error:
        raise DataError(f"{path}:{number}: {error}") from error
