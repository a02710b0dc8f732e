"""TREC's files: judgements (`query 0 document grade`) and runs (`query Q0 document rank score tag`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from llmbench import workspace, written
from llmbench.errors import DataError

__all__ = ["RUN_MARK", "Run", "read_qrels", "read_run", "write_run"]

Run = Mapping[str, Sequence[str]]
"""Query -> documents, best first."""


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Query -> document -> grade.

    Raises:
        DataError: the file is missing or a line is broken.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, row in _lines(path):
        try:
            query, _, document, grade = row
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not `query 0 document grade`") from error
    return qrels


def read_run(path: Path) -> dict[str, list[str]]:
    """Query -> documents, by score as trec_eval sorts them: the highest first, of equals the later name first; ranks are not
    looked at.

    Raises:
        DataError: the file is missing or a line is broken.
    """
    found: dict[str, dict[str, float]] = {}
    for number, row in _lines(path):
        try:
            query, _, document, _, score, _ = row
            found.setdefault(query, {})[document] = float(score)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not `query Q0 document rank score tag`") from error
    return {
        query: [document for document, _ in sorted(scores.items(), key=lambda one: (one[1], one[0]), reverse=True)]
        for query, scores in found.items()
    }


RUN_MARK = r"\A\S+ Q0 \S+ 1 1\.0{9} \S+\n"
"""By which a run that `write_run` wrote is known: the score of the first rank is 1."""


def write_run(path: Path, run: Run, tag: str) -> bool:
    """Writes a run whole or not at all; returns whether a name held a blank, each of which becomes `%20` or its like.

    Scores are `1 / rank`, so that they fall strictly: a reader that sorts by score keeps the ranking, also where the pipeline
    scored two documents alike.
    """
    blank = False
    written.check_file(path, RUN_MARK)
    with workspace.atomic(path) as file:
        for query, documents in run.items():
            for rank, document in enumerate(dict.fromkeys(documents), 1):
                names = [re.sub(r"\s", lambda found: quote(found[0]), name) for name in (query, document, tag)]
                blank |= names != [query, document, tag]
                file.write(f"{names[0]} Q0 {names[1]} {rank} {1 / rank:.9f} {names[2]}\n")
    return blank


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.split()
    except FileNotFoundError as error:
        raise DataError(f"no such file {path}.") from error
