"""The questions that a training is asked: the user's own, from a file, or the held-out rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import data, questions
from llmbench.errors import DataError, RecipeError
from llmbench.questions import Question
from llmbench.recipe import TrainRecipe

__all__ = ["ExamQuestion", "read"]

_IGNORED = -100


@dataclass(frozen=True)
class ExamQuestion:
    """One question: where it stands, the tokens that the model is given, their text, and what is expected.

    `values` are the wordings of the fact that the answer must hold, of which one is enough; none where there is no such fact.
    """

    place: str
    ids: list[int]
    text: str
    answer: str | None
    values: tuple[str, ...] = ()


def read(recipe: TrainRecipe, rows: data.Rows, tokenizer: Any, context: int | None) -> list[ExamQuestion]:
    """The questions of a recipe's evaluation section; `limit` spreads its picks evenly over them.

    Raises:
        DataError: faulty rows, each with file and line, or none at all.
        RecipeError: a question and its answer together are longer than the model's context.
    """
    spec = recipe.evaluation
    assert spec is not None
    found = list(_own(spec.questions, tokenizer) if spec.questions is not None else _held_out(rows, tokenizer))
    found = questions.spread(found, spec.limit)
    for question in found:
        if context is not None and len(question.ids) + spec.max_new_tokens > context:
            raise RecipeError(
                f"evaluation.max_new_tokens: {question.place} has {len(question.ids):,} tokens, and "
                f"{spec.max_new_tokens:,} more pass the model's {context:,}. Lower it, or take the question out."
            )
    return found


def _held_out(rows: data.Rows, tokenizer: Any) -> Iterator[ExamQuestion]:
    """Each held-out row up to its last learned stretch, which is the answer that is expected."""
    assert rows.eval is not None
    for number, row in enumerate(rows.eval, 1):
        ids, labels = list(row["input_ids"]), list(row["labels"])
        end = max(i for i, label in enumerate(labels) if label != _IGNORED) + 1
        start = next((i + 1 for i in range(end - 1, -1, -1) if labels[i] == _IGNORED), 0)
        if start == 0:
            continue  # plain text has no question before it
        answer = tokenizer.decode(ids[start:end], skip_special_tokens=True).strip()
        text = tokenizer.decode(ids[:start], skip_special_tokens=False)
        yield ExamQuestion(f"held-out row {number}", ids[:start], text, answer, (answer,) if answer else ())


def _own(path: Path, tokenizer: Any) -> Iterator[ExamQuestion]:
    """The questions of a file as the model reads them. What no document answers is asked if the file says how to answer it."""
    asked = [question for question in questions.read(path, _fault) if question.answer is not None or question.value is not None]
    if not asked:
        raise DataError(f"{path}: no question has an answer or a value, so nothing can be compared.")
    yield from (_tokenised(question, tokenizer) for question in asked)


def _fault(question: Question) -> str | None:
    known = question.answer is not None or question.value is not None or not question.answerable
    return None if known else "answer is missing, so nothing can be compared"


def _tokenised(question: Question, tokenizer: Any) -> ExamQuestion:
    turns = question.turns or question.conversation
    if tokenizer.chat_template:
        messages = [{"role": role, "content": text} for role, text in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        text = "\n".join(text for _, text in turns)
        ids = tokenizer(text)["input_ids"]
    values = question.wordings
    if not values and question.answer is not None and not question.no_value:
        values = (question.answer,)
    return ExamQuestion(question.place, list(ids), text, question.answer, values)
