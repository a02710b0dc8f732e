"""Looking up words among a great many passages: SQLite's FTS5 alone, and with the files of postings that are derived from it.

    python benchmarks/terms_million.py PATH/scifact [--passages 1000000] [--questions 100]

Each passage is a title, sixty words of one abstract and sixty of another, so that words are as frequent as in the abstracts;
what new documents would add to the vocabulary is missing. Both find the 100 best for the first questions of the folder, in
turns, and the rows and scores of each question are compared to the last bit. One question at a time, one process.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmbench.retrieval.store.words import postings, terms
from llmbench.retrieval.store.words.bm25 import Lexical, Stems
from llmbench.retrieval.store.words.postings import Part, Plan, Segment
from llmbench.retrieval.store.words.postings_build import BATCH, cut, merge, to_merge

K = 100


@dataclass
class Times:
    """Milliseconds."""

    fts5: list[float] = field(default_factory=list)
    postings: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        cells = [f"{np.percentile(some, 50):.1f} / {np.percentile(some, 95):.1f}" for some in (self.fts5, self.postings)]
        ratio = np.median(self.fts5) / np.median(self.postings)
        return f"| {name} | {' | '.join(cells)} | {ratio:.0f} |"


def passages(path: Path, count: int) -> Iterator[tuple[str, str]]:
    """Titles and texts."""
    rows = [json.loads(line) for line in (path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    documents = [(row["title"], row["text"].split()) for row in rows]
    dice = random.Random(0)
    for _ in range(count):
        (title, one), (_, other) = dice.choice(documents), dice.choice(documents)
        starts = [dice.randrange(max(1, len(words) - 60)) for words in (one, other)]
        yield title, " ".join(one[starts[0] : starts[0] + 60] + other[starts[1] : starts[1] + 60])


def timed(call: Callable[[], list[tuple[int, float]]], into: list[float]) -> list[tuple[int, float]]:
    began = time.perf_counter()
    found = call()
    into.append((time.perf_counter() - began) * 1e3)
    return found


class Both:
    """The same passages in both forms."""

    def __init__(self, folder: Path, path: Path, count: int) -> None:
        self.folder, self.rows = folder, count
        self.db = sqlite3.connect(folder / "terms.sqlite")
        self.db.executescript(terms.schema("terms") + "CREATE TABLE texts (row INTEGER PRIMARY KEY, title TEXT, text TEXT);")
        with self.db:
            self.db.executemany(
                "INSERT INTO texts VALUES (?, ?, ?)", ((i, *one) for i, one in enumerate(passages(path, count)))
            )
        began = time.perf_counter()
        with self.db:
            texts = self.db.execute("SELECT row, title, text FROM texts")
            self.db.executemany(
                "INSERT INTO terms(rowid, title, text) VALUES (?, ?, ?)", ((i, *terms.columns(t, "", x)) for i, t, x in texts)
            )
        self.fts5_seconds = time.perf_counter() - began
        began = time.perf_counter()
        self.plans: list[Plan] = []
        for first in range(0, count, BATCH):
            self.add(first, min(first + BATCH, count))
        self.seconds = time.perf_counter() - began

    def add(self, first: int, end: int) -> None:
        """As `upkeep` adds them."""
        query = "SELECT row, title, '', text FROM texts WHERE row >= ? AND row < ? ORDER BY row"
        part = cut(self.db.execute(query, (first, end)), first, end)
        keep = len(self.plans) - to_merge([plan.postings for plan in self.plans] + [len(part.rows)]) + 1
        parts: list[Part] = [Segment(self.folder, plan) for plan in self.plans[keep:]]
        self.plans = [*self.plans[:keep], merge([*parts, part], None, self.folder)]

    def size(self) -> float:
        """MB of the files that count."""
        return sum((self.folder / plan.file).stat().st_size for plan in self.plans) / 1e6

    def fts5_size(self) -> float:
        """MB of the pages of the term index."""
        tables = self.db.execute("SELECT sum(length(block)) FROM terms_data").fetchone()
        return float(tables[0]) / 1e6

    def lexical(self, dead: np.ndarray | None = None) -> Lexical:
        gone = np.zeros(0, np.int64) if dead is None else dead
        found = Lexical.load(self.folder, postings.to_json(self.plans), self.rows, gone, Stems(), {})
        assert found is not None
        return found

    def compare(self, lexical: Lexical, questions: list[str], allowed: np.ndarray | None = None) -> Times:
        """Both, in turns."""
        totals = terms.totals(self.db.execute("SELECT block FROM terms_data WHERE id = 1").fetchone()[0])
        inside = "" if allowed is None else "AND +rowid IN (SELECT row FROM temp.allowed)"
        if allowed is not None:
            self.db.execute("CREATE TEMP TABLE allowed (row INTEGER PRIMARY KEY)")
            self.db.executemany("INSERT INTO temp.allowed VALUES (?)", ((int(row),) for row in np.flatnonzero(allowed)))
        query = f"SELECT rowid, -rank FROM terms WHERE terms MATCH ? {inside} ORDER BY rank, rowid LIMIT {K}"
        times = Times()
        for question in questions:
            mine = timed(lambda: lexical.search(question, K, totals, allowed) or [], times.postings)  # noqa: B023 - called here
            theirs = timed(lambda: self.db.execute(query, (terms.query(question),)).fetchall(), times.fts5)  # noqa: B023
            if mine != theirs:
                raise SystemExit(f"not the same: {question}")
        if allowed is not None:
            self.db.execute("DROP TABLE temp.allowed")
        return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=Path)
    arguments.add_argument("--passages", type=int, default=1_000_000)
    arguments.add_argument("--questions", type=int, default=100)
    options = arguments.parse_args()
    lines = (options.path / "queries.jsonl").read_text(encoding="utf-8").splitlines()[: options.questions]
    questions = [json.loads(line)["text"] for line in lines]
    with tempfile.TemporaryDirectory() as name:
        both = Both(Path(name), options.path, options.passages)
        began = time.perf_counter()
        lexical = both.lexical()
        opened = time.perf_counter() - began
        print(f"FTS5: {both.fts5_seconds:.0f} s, {both.fts5_size():.0f} MB")
        print(
            f"postings: {both.seconds:.0f} s, {both.size():.0f} MB in {len(both.plans)} files, opened in {opened * 1e3:.0f} ms"
        )
        print("\n| p50 / p95, ms | FTS5 | postings | times faster |\n|---|---|---|---|")
        print(both.compare(lexical, questions).row("all, each word looked up for the first time"))
        print(both.compare(lexical, questions).row("all, again"))
        rng = np.random.default_rng(0)
        for share, label in ((0.1, "a tenth"), (0.001, "one in a thousand")):
            print(both.compare(lexical, questions, rng.random(options.passages) < share).row(f"a filter leaves {label}"))


if __name__ == "__main__":
    main()
