"""Rows that are put away before the first trial, for the confirmation: no trial trains on them or is evaluated on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmbench import questions, workspace
from llmbench.errors import DataError, RecipeError
from llmbench.questions import Question
from llmbench.recipe import SweepRecipe, TrainRecipe

__all__ = ["FILE", "Holdout", "check", "hashes", "prepare"]

FILE = r"(train|held-out)-[0-9]+\.jsonl"
"""The name of a file that holds one source's rows, those that are trained on or those that are put away."""
_LEAST = 2
"""Rows or questions that a difference needs."""


class Holdout:
    """What the trials get in place of the recipe's rows, what the confirmation is evaluated on, and how much that is.

    `shared` are overrides of every training, `asked` those of the confirmation alone; `count` rows or questions are put away.
    `groups` is the place of a question -> what it shares with others, such as its page.
    """

    def __init__(self, shared: list[str], asked: list[str], count: int, groups: dict[str, str] | None = None) -> None:
        self.shared, self.asked, self.count, self.groups = shared, asked, count, groups


def check(spec: SweepRecipe, base: TrainRecipe) -> None:
    """Looks whether the confirmation that is asked for can be made; changes nothing.

    Raises:
        RecipeError: it cannot.
        DataError: the questions cannot be read.
    """
    asked = spec.confirm
    if asked is None:
        return
    if asked.rows is not None:
        for number, source in enumerate(base.data.train):
            if source.path is None or source.path.suffix != ".jsonl" or not source.path.is_file():
                raise RecipeError(
                    f"confirm.rows: data.train[{number}] of {spec.recipe} is not one .jsonl file, and rows are put away from "
                    "those alone. Write it as one, or use confirm.questions"
                )
        return
    if base.evaluation is None or spec.objective == "eval_loss":
        raise RecipeError(
            "confirm.questions: goes with an objective of answers, such as eval_exact_match, and an `evaluation` in the "
            "training recipe. For eval_loss use confirm.rows"
        )
    own = base.evaluation.questions
    if own is not None:
        both = {_key(one) for one in _read(own)} & {_key(one) for one in _read(_file(spec))}
        if both:
            raise RecipeError(
                f"confirm.questions: {len(both):,} of its questions stand in evaluation.questions ({own}) too, so that trials "
                "would be judged by them. Take them out of one of the files"
            )


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """The first half of the SHA-256 of each file, so that changed rows are noticed. Folders and patterns are left out."""
    found = {}
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    return found


def prepare(spec: SweepRecipe, base: TrainRecipe, folder: Path) -> Holdout:
    """Puts the rows away, or reads the questions. Done twice, it gives the same.

    A row's own text and the sweep's seed decide on which side it lies, so that equal rows are never on both.

    Raises:
        DataError: fewer than two rows or questions are put away, or none are left to train on.
    """
    if spec.confirm is None:
        return Holdout([], [], 0)
    if spec.confirm.questions is not None:
        asked = _read(_file(spec))
        if len(asked) < _LEAST:
            raise DataError(f"{spec.confirm.questions}: a confirmation needs at least {_LEAST} questions with answers.")
        groups = {one.place: one.group or one.source or one.id for one in asked}
        settings = [f"evaluation.questions={json.dumps(str(spec.confirm.questions))}", *_whole(len(asked))]
        return Holdout([], settings, len(asked), groups)
    shared, away, count = [], [], 0
    for number, source in enumerate(base.data.train):
        assert source.path is not None and spec.confirm.rows is not None
        left, put = folder / f"train-{number}.jsonl", folder / f"held-out-{number}.jsonl"
        lines = list(_lines(source.path, source.encoding))
        sides = [_share(spec.seed, line) < spec.confirm.rows for line in lines]
        if all(sides):
            raise DataError(f"{source.path}: confirm.rows={spec.confirm.rows} leaves no row to train on. Lower it.")
        for path, side in ((left, False), (put, True)):
            workspace.write_text(
                path, "".join(line + "\n" for line, is_put in zip(lines, sides, strict=True) if is_put is side)
            )
        shared += [f"data.train.{number}.path={json.dumps(str(left))}", f"data.train.{number}.encoding=utf-8"]
        if any(sides):
            values = source.model_dump(mode="json") | {"path": str(put), "encoding": "utf-8", "weight": None, "limit": None}
            away.append(values)
            count += sum(sides)
    if count < _LEAST:
        raise DataError(
            f"confirm.rows={spec.confirm.rows} puts {count} rows away, and a confirmation needs {_LEAST}. Raise it."
        )
    settings = [f"data.eval={json.dumps(away)}", "data.eval_fraction=0"]
    return Holdout(shared, settings + (_whole(count) if base.evaluation is not None else []), count)


def _whole(count: int) -> list[str]:
    """All questions are asked and all answers kept, to be compared one by one."""
    return ["evaluation.limit=null", f"evaluation.samples_shown={count}"]


def _lines(path: Path, encoding: str) -> Iterator[str]:
    for line in path.read_text(encoding=encoding).split("\n"):
        if line.strip():
            yield line.strip()


def _share(seed: int, line: str) -> float:
    """A number from 0 to 1 that follows from a text."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{line}".encode()).digest()[:8], "big") / 2**64


def _read(path: Path) -> list[Question]:
    return [one for one in questions.read(path, lambda question: None) if one.answer is not None or one.value is not None]


def _file(spec: SweepRecipe) -> Path:
    assert spec.confirm is not None and spec.confirm.questions is not None
    return spec.confirm.questions


def _key(question: Question) -> str:
    return " ".join(question.question.split()).lower()
