"""What is asked, one job an answer, in an order that is fair to every variant and kind to the engine's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from llmbench.compare.answers import Cell, Place, key_of
from llmbench.compare.passages import Frozen
from llmbench.compare.prompts import AskedTurns, given, prompted
from llmbench.questions import Question
from llmbench.recipe import ComparedVariant, CompareRecipe, PromptSpec

__all__ = ["AnswerJob", "Way", "jobs"]


@dataclass(frozen=True)
class Way:
    """How one variant is asked.

    `model` is what the endpoint calls it, `entry` what is listed about it, and `known` what else its answers' manifests say of
    what answers.
    """

    variant: ComparedVariant
    model: str
    entry: Mapping[str, Any]
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswerJob:
    """One answer that is wanted: question, variant and repeat, and all that the request says."""

    id: str
    variant: str
    repeat: int
    key: str
    model: str
    asked: AskedTurns
    max_tokens: int
    sampling: Mapping[str, Any]
    options: Mapping[str, Any]
    """Fields of the request beside messages and max_tokens: sampling, tools, form of the answer, log-probabilities."""
    manifest: Mapping[str, Any]

    @property
    def cell(self) -> Cell:
        """Its place in the table of questions and variants."""
        return self.id, self.variant

    @property
    def place(self) -> Place:
        """Its place among the repeats, too."""
        return self.id, self.variant, self.repeat


def jobs(
    recipe: CompareRecipe,
    questions: Sequence[Question],
    ways: Sequence[Way],
    frozen: Frozen | None = None,
    *,
    base_url: str | None = None,
    drawn: bool = True,
) -> list[AnswerJob]:
    """Every answer that is wanted of these variants.

    Questions come in random order, those with the same passages one after another, since an engine computes what prompts begin
    with alike only once. For each question the variants come in random order, the repeats of one together. So every variant
    meets the same load, and none is measured on a warmer server than the others.

    Args:
        recipe: how they are asked.
        questions: which.
        ways: of whom.
        frozen: the passages that all variants are given, where they are given the same.
        drawn: whether the questions are put in random order; if not, in the order given.
        base_url: of the endpoint, where it is known by nothing else; None is the recipe's.
    """
    rng, order = Random(f"ask-{recipe.statistics.seed}"), []
    where = recipe.endpoint.base_url if base_url is None else base_url
    for question in _ordered(questions, frozen, rng) if drawn else questions:
        for way in rng.sample(list(ways), len(ways)):
            asked = prompted(question, way.variant.prompt)
            if frozen is not None:
                asked = given(asked, frozen, question.id)
            order += _repeats(recipe, question, way, asked, where)
    return order


def _ordered(questions: Sequence[Question], frozen: Frozen | None, rng: Random) -> list[Question]:
    drawn = rng.sample(list(questions), len(questions))
    if frozen is None:
        return drawn
    groups: dict[str, list[Question]] = {}
    for question in drawn:
        groups.setdefault(frozen.text(question.id), []).append(question)
    return [question for group in groups.values() for question in group]


_OPENINGS = 20
"""First tokens whose log-probabilities are asked for: OpenAI's most, and vLLM's unless it is told otherwise."""


def _repeats(recipe: CompareRecipe, question: Question, way: Way, asked: AskedTurns, where: str) -> list[AnswerJob]:
    spec = way.variant.sampling
    most = spec.max_tokens or recipe.max_tokens
    sampling = spec.model_dump(exclude={"max_tokens"}, exclude_defaults=True)
    plain = prompted(replace(question, columns={}), PromptSpec())
    found = []
    for repeat in range(recipe.repeats):
        if recipe.repeats > 1:
            seed = spec.seed if spec.seed is not None else recipe.statistics.seed
            sampling = sampling | {"seed": _seed(seed, question.id, repeat)}
        more: dict[str, Any] = {"sampling": sampling} if sampling else {}
        if (asked.messages, asked.further, asked.options) != (plain.messages, (), {}):
            more["asked"] = [asked.messages, asked.further, asked.options]
        told: dict[str, Any] = {"logprobs": True} if recipe.logprobs else {}
        if any(one.kind == "choice_probability" for one in recipe.metrics):
            told = more["told"] = {"logprobs": True, "top_logprobs": _OPENINGS}
        found.append(
            AnswerJob(
                id=question.id, variant=way.variant.name, repeat=repeat,
                key=key_of(question, way.entry, most, where, more), model=way.model, asked=asked, max_tokens=most,
                sampling=sampling, options={**sampling, **asked.options, **told}, manifest=way.known,
            )
        )  # fmt: skip
    return found


def _seed(seed: int, id: str, repeat: int) -> int:
    """Of one repeat of one question; the same for all variants, so that their draws are as alike as their answers."""
    return int(hashlib.sha256(f"{seed}-{repeat}-{id}".encode()).hexdigest()[:8], 16) % 2**31
