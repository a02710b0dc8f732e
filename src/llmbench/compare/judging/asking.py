"""Puts a comparison's answers before its judges, several at once, and keeps each judgement the moment it is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

from llmbench.compare import ask
from llmbench.compare.answers import Answer
from llmbench.compare.ask import Progress, Tally
from llmbench.compare.judging import prompts
from llmbench.compare.judging.judgements import JudgementLog, Ruling, Seat
from llmbench.endpoint import HttpEndpoint, Reply
from llmbench.errors import EndpointError
from llmbench.questions import HALF, Question
from llmbench.recipe import CompareRecipe, JudgeModel, JudgeSpec

__all__ = ["Hearing", "fill", "wanted"]

_FAILURES_IN_A_ROW = 10
"""So many, and the judge's endpoint is taken to be gone, or not to know what it is asked for."""
_VOLATILE = ("created", "permission")
"""What servers renew in each listing, so that it says nothing about the model."""


@dataclass(frozen=True)
class Hearing:
    """What is put before every judge: one answer, or two in one order. `texts` are what the variants `shown` answered."""

    question: Question
    shown: tuple[str, ...]
    texts: tuple[str, ...]
    repeat: int


def wanted(spec: JudgeSpec, pairs: Sequence[tuple[Question, Answer]], seed: int) -> list[Hearing]:
    """All that is judged, in random order: of pairs every two variants whose answers differ, in both orders.

    Args:
        spec: the judge.
        pairs: every question with an answer that did not fail.
        seed: of the order.
    """
    of: dict[tuple[str, int], list[tuple[Question, Answer]]] = {}
    for question, answer in pairs:
        of.setdefault((question.id, answer.repeat), []).append((question, answer))
    found = []
    for (_, repeat), given in of.items():
        question = given[0][0]
        texts = {answer.variant: _text(answer) for _, answer in given}
        if spec.kind == "pairwise":
            for a, b in combinations(texts, 2):
                if texts[a].strip() != texts[b].strip():
                    found += [Hearing(question, (a, b), (texts[a], texts[b]), repeat)]
                    found += [Hearing(question, (b, a), (texts[b], texts[a]), repeat)]
        else:
            found += [Hearing(question, (variant,), (text,), repeat) for variant, text in texts.items()]
    return Random(f"judge-{seed}").sample(found, len(found))


async def fill(
    recipe: CompareRecipe, asked: Sequence[Hearing], log: JudgementLog, progress: Progress | None = None
) -> tuple[list[Seat], dict[str, dict[str, Any]]]:
    """Asks the judges for what the log lacks.

    Returns:
        The seats of all that is wanted, and what is listed about each judge.

    Raises:
        EndpointError: nobody answers, a judge is not served, or ten requests in a row failed. What was judged before is kept.
    """
    assert recipe.judge is not None
    tallying = _Tallying(len(asked) * len(recipe.judge.judges), progress)
    seats: list[Seat] = []
    entries: dict[str, dict[str, Any]] = {}
    for judge in recipe.judge.judges:
        base_url = judge.base_url or recipe.endpoint.base_url
        env = judge.api_key_env if judge.base_url else recipe.endpoint.api_key_env
        async with HttpEndpoint(base_url, api_key=os.environ.get(env), timeout=recipe.judge.timeout) as http:
            entry = await _entry(http, judge)
            entries[judge.called] = entry
            todo = []
            for one in asked:
                seat = (one.question.id, one.shown, one.repeat, judge.called)
                key = _key(recipe.judge, entry, base_url, one)
                seats.append(seat)
                if log.has(seat, key):
                    tallying.kept()
                else:
                    todo.append((one, key))
            await _of_one(http, judge, recipe.judge, todo, log, tallying)
    return seats, entries


class _Tallying:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.tally, self._tell, self._in_a_row = Tally(0, total, 0, 0), progress or (lambda tally: None), 0
        self._tell(self.tally)

    def kept(self) -> None:
        """One is there from an earlier time."""
        self.tally = Tally(self.tally.done + 1, self.tally.wanted, self.tally.kept + 1, 0)
        self._tell(self.tally)

    def count(self, one: Ruling) -> None:
        """Notes one more, and gives up after too many failures in a row."""
        t, failed = self.tally, one.error is not None
        self._in_a_row = self._in_a_row + 1 if failed else 0
        self.tally = Tally(t.done + (not failed), t.wanted, t.kept, t.failed + failed)
        self._tell(self.tally)
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            raise EndpointError(
                f"The judge {one.judge} failed {self._in_a_row} times in a row: {one.error} ({self.tally.done} of {t.wanted} "
                "judgements are saved, and all answers: run the same command again to continue.)"
            )


async def _entry(http: HttpEndpoint, judge: JudgeModel) -> dict[str, Any]:
    try:
        return (await ask.entries(http, [judge.model]))[judge.model]
    except EndpointError as error:
        said = str(error).replace("`variants` in the recipe", "`judge.model` in the recipe").replace("variant", "judge", 1)
        raise EndpointError(f"{said} All answers are saved.", status=error.status) from error


async def _of_one(
    http: HttpEndpoint,
    judge: JudgeModel,
    spec: JudgeSpec,
    todo: Sequence[tuple[Hearing, str]],
    log: JudgementLog,
    tallying: _Tallying,
) -> None:
    waiting: Iterator[tuple[Hearing, str]] = iter(todo)

    async def worker() -> None:
        for one, key in waiting:
            judgement = await _judged(http, judge, spec, one, key)
            log.append(judgement)
            tallying.count(judgement)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(spec.concurrency, len(todo))):
                group.create_task(worker())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def _judged(http: HttpEndpoint, judge: JudgeModel, spec: JudgeSpec, one: Hearing, key: str) -> Ruling:
    place: dict[str, Any] = {"id": one.question.id, "shown": one.shown, "judge": judge.called, "key": key, "repeat": one.repeat}
    said = prompts.prompt(spec, one.question, one.texts, secrets.token_hex(8))
    reply: Reply | None = None
    try:
        stream = http.stream(said, judge.model, max_tokens=prompts.most_tokens(spec), options=prompts.options(spec))
        async for delta in stream:
            reply = delta.reply or reply
        if reply is None:
            raise EndpointError("the stream ended without an answer")
    except EndpointError as error:
        hint = " If it knows no `response_format`, set judge.structured to false." if error.status in (400, 422) else ""
        return Ruling(**place, error=f"{error}{hint}")
    found = prompts.read(spec, reply)
    return Ruling(
        **place,
        value=found.value,
        label=found.label,
        reason=found.reason,
        probabilities=dict(found.probabilities),
        text="" if found.value is not None else HALF.sub("\ufffd", reply.text),
        latency=reply.latency,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def _key(spec: JudgeSpec, entry: Mapping[str, Any], base_url: str, one: Hearing) -> str:
    """The hash of all that a judgement depends on, apart from the word of the markers."""
    known = {name: value for name, value in entry.items() if name not in _VOLATILE}
    where = "" if {"adapter", "rag"} <= known.keys() else base_url
    right = (one.question.answer or one.question.value) if spec.reference else None
    parts = [
        prompts.version(spec), prompts.options(spec), prompts.most_tokens(spec), known, where, one.question.conversation, right,
        one.texts,
    ]  # fmt: skip
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _text(answer: Answer) -> str:
    """What is judged: the answer, or the answers to all turns."""
    if len(answer.turns) < 2:
        return answer.text
    return "\n\n".join(f"Reply {number}: {text}" for number, text in enumerate(answer.turns, 1))
