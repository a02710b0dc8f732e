"""Judged questions: what is asked, and which documents answer it. Read from BEIR folders, TREC files and question files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import questions
from llmbench.errors import DataError
from llmbench.retrieval.evaluation import trec

__all__ = ["Collection", "Qrels", "corpus", "read"]

Qrels = Mapping[str, Mapping[str, int]]
"""Query -> document -> grade; 0 is judged and not relevant."""


@dataclass(frozen=True)
class Collection:
    """Queries that are judged and have a relevant document; what had to be left out is counted.

    `queries` and `qrels` have the same keys. `unjudged` counts queries that no line of the judgements names, `nothing_relevant`
    those whose documents are all graded 0 or less, `unknown` judged queries whose words are not in the file of queries.
    `unanswerable` counts questions of a question file that no document answers.
    """

    name: str
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    unjudged: int = 0
    nothing_relevant: int = 0
    unknown: int = 0
    unanswerable: int = 0

    @property
    def documents(self) -> set[str]:
        """Every document that is relevant to some query."""
        return {document for judged in self.qrels.values() for document, grade in judged.items() if grade > 0}

    @property
    def pages(self) -> dict[str, str]:
        """What each query is about: its relevant documents, as one key. Queries about the same ones are not independent."""
        return {query: "\n".join(sorted(d for d, grade in judged.items() if grade > 0)) for query, judged in self.qrels.items()}

    @property
    def identical(self) -> list[str]:
        """Queries that bear the name of a document that is judged for them, as in ArguAna, where each query is a document."""
        return sorted(query for query, judged in self.qrels.items() if query in judged)


def read(path: Path, split: str | None = None) -> Collection:
    """Reads a collection by its form.

    Args:
        path: a BEIR folder (queries.jsonl, qrels/SPLIT.tsv), a folder with TREC judgements (queries.tsv or queries.jsonl
            beside qrels.txt or SPLIT.qrels), or a question file (JSONL with question and source, as a
            comparison reads it).
        split: which of the splits; null takes `test`, or the only one there is. A question file's null takes all its lines.

    Raises:
        DataError: nothing of the kind is there, a line is broken, or no query is left.
    """
    if not path.exists():
        raise DataError(f"no such file or folder {path}. Name a BEIR folder, TREC qrels with queries, or a question file.")
    if path.is_file():
        found = _questions(path, split)
    elif (path / "qrels").is_dir():
        chosen = _split(path / "qrels", split)
        found = _judged(f"{path.name}/{chosen.stem}", _queries(path), _beir_qrels(chosen))
    else:
        file = _trec_file(path, split)
        found = _judged(f"{path.name}/{file.stem}", _queries(path), trec.read_qrels(file))
    if not found.queries:
        raise DataError(f"{path}: no query is left that has its words and a relevant document. Look at its judgements.")
    return found


def corpus(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The documents of a BEIR folder as (id, title, text), line by line, so that millions need no memory.

    Raises:
        DataError: corpus.jsonl is missing, or a line is broken.
    """
    for row in _rows(folder / "corpus.jsonl", "_id", "text"):
        yield str(row["_id"]), str(row.get("title") or ""), str(row["text"])


def _judged(name: str, queries: Mapping[str, str], qrels: Qrels) -> Collection:
    """Queries beside their judgements; what lacks either is counted."""
    relevant = {query: dict(judged) for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())}
    kept = [query for query in queries if query in relevant]
    return Collection(
        name,
        {query: queries[query] for query in kept},
        {query: relevant[query] for query in kept},
        unjudged=len(queries.keys() - qrels.keys()),
        nothing_relevant=len(qrels) - len(relevant),
        unknown=len(relevant.keys() - queries.keys()),
    )


def _split(folder: Path, split: str | None) -> Path:
    there = sorted(folder.glob("*.tsv"))
    names = ", ".join(file.stem for file in there) or "none"
    if split is None:
        split = there[0].stem if len(there) == 1 else "test"
    path = folder / f"{split}.tsv"
    if path not in there:
        raise DataError(f"no such file {path}. Splits there: {names}")
    return path


def _trec_file(folder: Path, split: str | None) -> Path:
    there = sorted(p for p in folder.iterdir() if p.is_file() and (p.suffix == ".qrels" or p.stem.startswith("qrels")))
    wanted = [p for p in there if split is None or split in p.name]
    if len(wanted) != 1:
        names = ", ".join(p.name for p in there) or "none"
        raise DataError(
            f"{folder}: no qrels/ folder as in BEIR, and not one file of TREC judgements (found: {names}). Name one by --split."
        )
    return wanted[0]


def _beir_qrels(path: Path) -> dict[str, dict[str, int]]:
    """query-id, corpus-id, score separated by tabs, below a heading."""
    qrels: dict[str, dict[str, int]] = {}
    number = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
                if row and not (number == 1 and not row[-1].strip().lstrip("-").isdigit()):
                    query, document, grade = row
                    qrels.setdefault(query, {})[document] = int(grade)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not query-id, corpus-id, score separated by tabs") from error
    return qrels


def _queries(folder: Path) -> dict[str, str]:
    """The words of each query, of queries.jsonl or of queries.tsv (id, tab, words)."""
    path = folder / "queries.tsv"
    if (folder / "queries.jsonl").exists() or not path.exists():
        return {str(row["_id"]): str(row["text"]) for row in _rows(folder / "queries.jsonl", "_id", "text")}
    queries = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            query, tab, text = line.rstrip("\r").partition("\t")
            if not tab or not text.strip():
                raise DataError(f"{path}:{number}: not a query's id and its words separated by a tab")
            queries[query] = text
    return queries


def _questions(path: Path, split: str | None) -> Collection:
    """llmbench's own question file: the sources of a question are what answers it; unanswerable ones are counted."""
    asked = questions.of_split(questions.read(path), path, split)
    judged = [question for question in asked if question.answerable and question.sources]
    if not judged:
        raise DataError(f"{path}: no query is left: no question names the `source` that answers it, which SQuAD's never do.")
    unanswerable = sum(not question.answerable for question in asked)
    return Collection(
        path.name if split is None else f"{path.name}/{split}",
        {question.id: question.question for question in judged},
        {question.id: dict.fromkeys(question.sources, 1) for question in judged},
        unjudged=len(asked) - len(judged) - unanswerable,
        unanswerable=unanswerable,
    )


def _rows(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the error below tells it
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict) or not set(needed) <= row.keys():
                        raise ValueError(f"a row without {' and '.join(needed)}")
                    yield row
    except FileNotFoundError as error:
        raise DataError(f"no such file {path}. A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/.") from error
    except RecursionError as error:
        raise DataError(f"{path}:{number}: nested too deeply for a row of a collection") from error
    except ValueError as error:
        raise DataError(f"{path}:{number}: {error}") from error
