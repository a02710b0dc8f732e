"""Answers that are run: queries of SQLite and Python programs, in the confined process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbench.compare.metrics.values import Pair, Tools, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import CodeMetric, SqlMetric
from llmbench.sandbox import SandboxProcess

__all__ = ["code", "code_fault", "has_test", "program", "sql", "sql_fault", "sql_tried"]

_FENCE = re.compile(r"```[ \t]*(?P<tag>[\w+-]*)[^\n]*\n(?P<code>.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_LONGEST = 200_000


def sql(pairs: Sequence[Pair], spec: SqlMetric, tools: Tools) -> list[float | None]:
    """The answer's query returns what a right one does on the same SQLite database: the same rows as often, in any order
    unless the right query has an ORDER BY of its own. Names of columns do not count, their order does; NULL equals NULL;
    numbers are equal up to ten digits. The query is what stands in the answer's first fence of three backticks, else the
    whole answer. It can only read; one that fails, takes too long or returns over 100,000 rows is wrong."""
    found = tools.sandbox.each("query", (_query(q, spec, _fenced(a.text)) for q, a in pairs), spec.seconds)
    return [
        float(bool(one.value)) if expected(question, spec.expected) and one.fault is None else None
        for (question, _), one in zip(pairs, found, strict=True)
    ]


def sql_fault(question: Question, spec: SqlMetric) -> str | None:
    """What is wrong with a question's database, by its file."""
    if spec.folder is None:
        return None
    name = question.columns.get(spec.column or "")
    if not isinstance(name, str):
        return f"{spec.column} is missing"
    return None if _file(spec.folder, name) else f"no database {name} in {spec.folder}"


def sql_tried(asked: Sequence[Question], spec: SqlMetric, sandbox: SandboxProcess) -> list[str | None]:
    """What is wrong with right queries, or with the databases that they run on."""
    found = sandbox.each("query", (_query(question, spec, None) for question in asked), spec.seconds)
    return [one.fault or (f"the right query: {one.limit}" if one.limit else None) for one in found]


def code(pairs: Sequence[Pair], spec: CodeMetric, tools: Tools) -> list[float | None]:
    """The program passes its test: what the answer completes (`prefix`), the answer, the test of its row, and a call of the
    test's `check` with the entry point, run as one Python program to its end (HumanEval, Chen 2021). The answer is what
    stands in its first fence of three backticks, else all of it. A program runs in a process of its own, which writes no
    file, opens no connection, starts no other, and is limited in time and memory."""
    limits = {"memory": spec.memory_mib * 2**20}
    requests = [
        {"program": program(question, answer.text, spec), **limits} for question, answer in pairs if has_test(question, spec)
    ]
    found = iter(tools.sandbox.each("program", requests, spec.seconds))
    scores: list[float | None] = []
    if requests:
        tools.notes.append(f"{spec.called or 'code'}: {len(requests):,} programs that models wrote were run on this machine.")
    for question, _ in pairs:
        if not has_test(question, spec):
            scores.append(None)
            continue
        outcome = next(found)
        scores.append(float(outcome.limit is None and outcome.value is None))
    return scores


def has_test(question: Question, spec: CodeMetric) -> bool:
    """Whether a program can be tested."""
    return question.columns.get(spec.test) is not None


def code_fault(question: Question, spec: CodeMetric) -> str | None:
    """What is wrong with a question's test."""
    test = question.columns.get(spec.test)
    if not (isinstance(test, str) or (isinstance(test, list) and all(isinstance(one, str) for one in test))):
        return f"{spec.test} must be Python, or a list of statements"
    entry = question.columns.get(spec.entry_point)
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        return f"{spec.entry_point} must be the name of a function"
    if spec.prefix is not None and not isinstance(_prefix(question, spec), str):
        return f"{spec.prefix} is missing"
    return None


def program(question: Question, text: str, spec: CodeMetric) -> str:
    """The program that decides: what was given, what was answered, and the test.

    An answer that defines the entry point itself stands behind what it was to complete; any other one goes on from there.
    """
    answer, entry = _fenced(text)[:_LONGEST], question.columns.get(spec.entry_point)
    prefix = str(_prefix(question, spec) or "") if spec.prefix is not None else ""
    anew = isinstance(entry, str) and re.search(rf"^(?:async )?def {re.escape(entry)}\b", answer, re.MULTILINE) is not None
    joined = f"{prefix}\n\n{answer}" if anew else f"{prefix}{answer}"
    test = question.columns.get(spec.test)
    lines = "\n".join(test) if isinstance(test, list) else str(test)
    called = f"\ncheck({entry})" if isinstance(entry, str) and re.search(r"^def check\b", lines, re.MULTILINE) else ""
    return f"{joined}\n\n{lines}{called}\n"


def _prefix(question: Question, spec: CodeMetric) -> Any:
    if spec.prefix == "question":
        return question.turns[-1][1] if question.turns else question.question  # with the spaces around it
    return question.columns.get(spec.prefix or "")


def _fenced(text: str) -> str:
    found = _FENCE.search(text)
    return found["code"] if found else text


def _query(question: Question, spec: SqlMetric, query: str | None) -> dict[str, Any]:
    right = [str(one) for one in expected(question, spec.expected)]
    request: dict[str, Any] = {"query": None if query is None else query[:_LONGEST], "right": right}
    if spec.database is not None:
        return request | {"file": str(spec.database)}
    given = question.columns.get(spec.column or "")
    if spec.folder is not None:
        return request | {"file": str(_file(spec.folder, str(given)))}
    return request | {"script": "\n".join(map(str, given)) if isinstance(given, list) else str(given or "")}


def _file(folder: Path, name: str) -> Path | None:
    """The database of a name, inside the folder."""
    if Path(name).name != name or name in ("", ".", ".."):
        return None
    places = (folder / name, folder / f"{name}.sqlite", folder / f"{name}.db", folder / name / f"{name}.sqlite")
    return next((place for place in places if place.is_file()), None)
