"""promptfoo: tests with variables and asserts. The configuration may hold code; it is read as plain values and never run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing.asserts import VARIABLE, Asserts, filled
from llmbench.importing.drafted_questions import DraftedQuestions
from llmbench.importing.foreign import Foreign, mapping, text_of

__all__ = ["draft"]

_MOST = 10_000
"""Rows that lists of values may make of one test."""
_LOGIC = re.compile(r"\{%|\{\{|\{#")
_ASKED = ("question", "query", "input", "prompt", "message", "text", "q")
"""The variables that are what is asked, where no prompt says so."""
_TAKEN = {"id", "prompt", "completion", "question", "answer", "value", "source", "answerable", "split", "group"}
_CODE = "is code, which is not run. Write it as a metric of your own: metric: file.py:function"


def draft(file: Path) -> DraftedQuestions:
    """The tests as questions: the first prompt with its variables filled in is asked; asserts become columns and metrics.

    Raises:
        RecipeError: the file cannot be read, or is no configuration and no list of tests.
    """
    made = DraftedQuestions()
    values = _rows_of_csv(file) if file.suffix.lower() == ".csv" else _read(file).values
    tests = _tests(file, values, made)
    prompt = _prompt(file, values.get("prompts"), made)
    base = _dict(values.get("defaultTest"))
    for key in ("scenarios", "derivedMetrics", "transform"):
        if values.get(key):
            made.leave(file.name, key, "has no counterpart")
    asserts = Asserts(made)
    for number, test in enumerate(tests, 1):
        where = f"test {number}" + (f" ({test['description']})" if isinstance(test.get("description"), str) else "")
        _test(where, test, base, prompt, asserts, made)
    asserts.finish()
    return made


def _read(file: Path) -> Foreign:
    """A configuration; a list alone is taken for its tests."""
    text = text_of(file)
    if file.suffix.lower() == ".json" and text.lstrip().startswith("["):
        return mapping(file, f'{{"tests": {text}}}')
    if re.match(r"(\s*(#[^\n]*|---)?\n)*-\s", text):
        try:
            return mapping(file, "tests:\n" + re.sub(r"\A---[ \t]*$", "", text, flags=re.MULTILINE))
        except RecipeError as error:  # told by the lines of the file, which has one less
            raise RecipeError(re.sub(r"(?<=:)\d+(?=: )", lambda line: str(int(line[0]) - 1), str(error), count=1)) from error
    return mapping(file, text)


def _rows_of_csv(file: Path) -> dict[str, Any]:
    """Each row a test: `__expected` columns are asserts, the others variables."""
    tests = []
    for row in csv.DictReader(io.StringIO(text_of(file))):
        named = {key.strip(): value for key, value in row.items() if isinstance(key, str) and value is not None}
        wanted = [value for key, value in named.items() if key.startswith("__expected") and value.strip()]
        variables = {key: value for key, value in named.items() if not key.startswith("__")}
        tests.append({"vars": variables, "assert": [_written(one) for one in wanted]})
    return {"tests": tests}


def _written(text: str) -> dict[str, Any]:
    """`contains: x` as an assert; text alone is what the answer must equal."""
    found = re.match(r"(not-)?([a-z][a-z-]*)(?:\(([\d.]+)\))?:\s*(.*)", text.strip(), re.DOTALL)
    if found is None or not re.fullmatch(r"[a-z-]+", found[2]):
        return {"type": "equals", "value": text.strip()}
    kind = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}.get(found[2], found[2])
    value: Any = found[4]
    if kind.startswith(("contains-a", "icontains-a")):
        value = [one.strip() for one in found[4].split(",")]
    return {"type": f"{found[1] or ''}{kind}", "value": value}


def _tests(file: Path, values: Mapping[str, Any], made: DraftedQuestions) -> Sequence[dict[str, Any]]:
    given = values.get("tests")
    if isinstance(given, str):
        inner = file.parent / given.removeprefix("file://")
        if not given.startswith("file://") or inner.suffix.lower() not in (".yaml", ".yml", ".json", ".csv"):
            raise RecipeError(f"{file}: tests: {given} is not a YAML, JSON or CSV file, and code is not run.")
        read = _rows_of_csv(inner) if inner.suffix.lower() == ".csv" else _read(inner).values
        return _tests(inner, read, made) if not isinstance(read.get("tests"), str) else []
    if not isinstance(given, list) or not given:
        raise RecipeError(f"{file}: it has no tests. Name a promptfoo configuration with `tests`, or a list of tests.")
    found = []
    for number, one in enumerate(given, 1):
        if isinstance(one, dict):
            found.append(one)
        else:
            made.leave(f"test {number}", str(one)[:60], "is a file of its own: import it alone")
    return found


def _prompt(file: Path, given: Any, made: DraftedQuestions) -> Any:
    """The first prompt: text, or turns; None where there is none that can be used."""
    prompts = given if isinstance(given, list) else [given] if given else []
    usable = None
    for number, one in enumerate(prompts, 1):
        one = one.get("raw", one.get("id")) if isinstance(one, dict) else one
        text = _text_of_prompt(file, one)
        if text is None:
            made.leave(f"prompt {number}", str(one)[:60], "is code, or a file that is not there")
        elif _LOGIC.search(VARIABLE.sub("", text)):
            made.leave(f"prompt {number}", text.strip()[:60], "is a template with logic, which is not run")
        elif usable is not None:
            made.leave(f"prompt {number}", text.strip()[:60], "a comparison has one question file: make it a variant's prompt")
        else:
            usable = text
    return usable


def _text_of_prompt(file: Path, given: Any) -> str | None:
    if not isinstance(given, str):
        return None
    if not given.startswith("file://"):
        return given
    path = file.parent / given.removeprefix("file://")
    return text_of(path) if path.suffix.lower() in (".txt", ".md", ".json") and path.is_file() else None


def _test(
    where: str, test: dict[str, Any], base: Mapping[str, Any], prompt: str | None, asserts: Asserts, made: DraftedQuestions
) -> None:
    for key in ("threshold", "options", "provider", "assertScoringFunction"):
        if test.get(key) or base.get(key):
            made.leave(where if test.get(key) else "defaultTest", key, "has no counterpart")
    inherited, own = _dict(base.get("vars")), _dict(test.get("vars"))
    wanted = [*_list(base.get("assert")), *_list(test.get("assert"))]
    for variables in _combined(where, {**inherited, **own}, made):
        asked = _asked(prompt, variables)
        if asked is None:
            made.leave(where, "vars", f"do not say what is asked: a prompt, or one of {', '.join(_ASKED)}")
            return
        row: dict[str, Any] = {"id": f"test-{len(made.rows) + 1}", "prompt": asked}
        row |= {f"var_{key}" if key in _TAKEN else key: value for key, value in variables.items()}
        made.rows.append(row)
        asserts.add(where, wanted, row, variables)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _combined(where: str, variables: dict[str, Any], made: DraftedQuestions) -> Iterator[dict[str, Any]]:
    """Every combination of variables that are lists, as promptfoo has it; files and code are left out."""
    known = {}
    for key, value in variables.items():
        if isinstance(value, str) and value.startswith(("file://", "package:", "python:")):
            made.leave(where, f"vars.{key}", _CODE if value.endswith((".js", ".py", ".ts")) else "is a file: write its text")
        else:
            known[key] = value
    lists = {key: value for key, value in known.items() if isinstance(value, list) and value}
    count = 1
    for value in lists.values():
        count *= len(value)
    if count > _MOST:
        raise RecipeError(f"{where}: the lists of its variables make {count:,} questions (at most {_MOST:,}).")
    for chosen in product(*lists.values()):
        yield known | dict(zip(lists, chosen, strict=True))


def _asked(prompt: str | None, variables: Mapping[str, Any]) -> Any:
    if prompt is None:
        value = next((variables[key] for key in _ASKED if isinstance(variables.get(key), str)), None)
        return value if value and value.strip() else None
    turns = _turns(prompt)
    if turns is None:
        return filled(prompt, variables).strip() or None
    return [{"role": turn["role"], "content": filled(turn["content"], variables)} for turn in turns]


def _turns(prompt: str) -> list[dict[str, str]] | None:
    """The turns of a prompt that is a chat in JSON."""
    if not prompt.lstrip().startswith("["):
        return None
    try:
        value = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str) for turn in value
    )
    return value if whole and value else None
