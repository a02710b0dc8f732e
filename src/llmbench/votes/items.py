"""What of a comparison can be voted on: every two variants' answers to one question, where their words differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from llmbench.compare import Comparison
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.votes.store import VoteStore, answer_hash
from llmbench.votes.values import AnswerPair

__all__ = ["Votable", "votable"]


@dataclass(frozen=True)
class Votable:
    """The items of a comparison, with what is shown of them.

    `texts` is hash -> answer, `seconds` (question, variant) -> latency, `alike` how many pairs of answers are word for word the
    same, which nobody can choose between.
    """

    name: str
    models: tuple[str, ...]
    items: tuple[AnswerPair, ...]
    conversations: Mapping[str, tuple[tuple[str, str], ...]]
    texts: Mapping[str, str]
    seconds: Mapping[tuple[str, str], float]
    alike: int

    @property
    def current(self) -> set[tuple[str, str, str]]:
        """Question, variant and hash of every answer as it is now."""
        sides = ((item.question, model, hash) for item in self.items for model, hash in _sides(item))
        return set(sides)


def votable(comparison: Comparison) -> Votable:
    """The items of a finished comparison.

    Raises:
        DataError: no question has two answers that differ.
    """
    answers: dict[str, dict[str, Any]] = {}
    asked: dict[str, Question] = {}
    for row in comparison.rows:
        if row.answer.error is None:
            asked[row.question.id] = row.question
            answers.setdefault(row.question.id, {}).setdefault(row.answer.variant, row.answer)
    items, alike = [], 0
    for id, of in answers.items():
        for a, b in combinations(sorted(of), 2):
            if of[a].text.strip() == of[b].text.strip():
                alike += 1
            else:
                items.append(_item(asked[id], a, b, of[a].text, of[b].text))
    if not items:
        raise DataError(
            f"{comparison.name} has nothing to vote on: no question has answers of two variants that differ"
            f"{f' ({alike:,} pairs are word for word the same)' if alike else ''}."
        )
    return Votable(
        name=comparison.name,
        models=tuple(sorted({model for item in items for model in (item.model_a, item.model_b)})),
        items=tuple(items),
        conversations={id: question.conversation for id, question in asked.items()},
        texts={answer_hash(one.text): one.text for of in answers.values() for one in of.values()},
        seconds={(id, variant): one.latency for id, of in answers.items() for variant, one in of.items()},
        alike=alike,
    )


def keep(store: VoteStore, comparison: Comparison, of: Iterable[AnswerPair], texts: Mapping[str, str]) -> None:
    """Keeps in the store what these items are about."""
    wanted = list(of)
    questions = {question.id: question for question in comparison.questions}
    store.keep(
        questions=[_kept(questions[item.question], item.group) for item in wanted],
        answers=[texts[hash] for item in wanted for hash in (item.a, item.b)],
        variants={name: comparison.listing.get(name, {}) for item in wanted for name in (item.model_a, item.model_b)},
    )


def _item(question: Question, a: str, b: str, text_a: str, text_b: str) -> AnswerPair:
    shared = question.group or "\n".join(sorted(question.sources)) or question.id
    turn = max(1, sum(role == "user" for role, _ in question.conversation))
    return AnswerPair(question.id, shared, a, b, answer_hash(text_a), answer_hash(text_b), turn)


def _kept(question: Question, group: str) -> dict[str, Any]:
    return {
        "id": question.id, "conversation": [list(turn) for turn in question.conversation], "answer": question.answer,
        "value": question.value, "split": question.split, "answerable": question.answerable, "cluster": group,
    }  # fmt: skip


def _sides(item: AnswerPair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (item.model_a, item.a), (item.model_b, item.b)
