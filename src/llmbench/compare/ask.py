"""Puts every question to every variant, several at once, and keeps each answer the moment it is there."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from llmbench.compare.answers import Answer, AnswerLog, Cell, key_of
from llmbench.endpoint import Delta, Message
from llmbench.errors import EndpointError
from llmbench.questions import HALF, Question

__all__ = ["Endpoint", "Enough", "Progress", "Tally", "ask", "entries"]

_FAILURES_IN_A_ROW = 10
"""So many, of every variant some, and the endpoint is taken to be gone, rather than a few questions or a variant to be bad."""


class Endpoint(Protocol):
    """What a comparison needs of an endpoint; `endpoint.HttpEndpoint` has it."""

    async def listing(self) -> list[dict[str, Any]]:
        """One entry a model, with its `id`."""
        ...

    def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        """The answer piece by piece; the last piece carries the reply."""
        ...


@dataclass(frozen=True)
class Tally:
    """How far the asking is: answers there (`kept` of them from an earlier time), wanted, and failed this time."""

    done: int
    wanted: int
    kept: int
    failed: int


Progress = Callable[[Tally], None]
"""Called at the start and after each answer."""
Enough = Callable[[Callable[[Cell], bool]], bool]
"""Called before each question with what tells whether a cell was asked, answered or failed: whether no more are needed."""


async def entries(endpoint: Endpoint, variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the endpoint lists about each variant.

    Raises:
        EndpointError: nobody answers, or a variant is not listed; the message names the nearest that is.
    """
    listed = {entry["id"]: entry for entry in await endpoint.listing()}
    missing = [variant for variant in variants if variant not in listed]
    if missing:
        near = difflib.get_close_matches(missing[0], listed, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise EndpointError(
            f"The endpoint has no variant {missing[0]}.{hint} It lists: {', '.join(listed) or 'none'}. "
            "Correct `variants` in the recipe, or serve that variant."
        )
    return {variant: listed[variant] for variant in variants}


async def ask(
    endpoint: Endpoint,
    questions: Sequence[Question],
    listed: Mapping[str, Mapping[str, Any]],
    log: AnswerLog,
    *,
    base_url: str,
    max_tokens: int,
    concurrency: int,
    seed: int = 0,
    progress: Progress | None = None,
    enough: Enough | None = None,
) -> None:
    """Asks what the log has no answer of yet; `listed` are the variants as `entries` gave them.

    A question that fails is recorded with its error and asked again next time. With `enough` the questions are asked in the
    order given until it says so; those that were begun are asked of every variant.

    Raises:
        EndpointError: ten failed one after another, of every variant some. What was answered before is kept.
    """
    keys = {(q.id, variant): key_of(q, entry, max_tokens, base_url) for q in questions for variant, entry in listed.items()}
    asked = {q.id: _messages(q) for q in questions}
    order = _interleaved(questions, list(listed), seed, drawn=enough is None)
    todo = [cell for cell in order if not log.has(cell, keys[cell])]
    kept = len(keys) - len(todo)
    state = _State(Tally(done=kept, wanted=len(keys), kept=kept, failed=0), {variant for _, variant in todo}, progress)

    def settled(cell: Cell) -> bool:
        answer = log.answer(cell)
        return answer is not None and answer.key == keys[cell]

    waiting = iter(todo) if enough is None else _until(lambda: enough(settled), todo)

    async def worker() -> None:
        for cell in waiting:
            answer = await _one(endpoint, cell, asked[cell[0]], keys[cell], max_tokens)
            log.append(answer)
            state.count(answer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(worker())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    if enough is not None:
        enough(settled)  # of the answers that came last, or of those that were there before


class _State:
    """Counts answers and failures; the workers of one event loop share it."""

    def __init__(self, tally: Tally, variants: set[str], progress: Progress | None) -> None:
        self.tally, self._progress, self._variants = tally, progress, variants
        self._in_a_row: list[str] = []
        if progress is not None:
            progress(tally)

    def count(self, answer: Answer) -> None:
        """Notes one answer, and gives up after too many failures in a row."""
        t = self.tally
        failed = answer.error is not None
        self._in_a_row = [*self._in_a_row, answer.variant] if failed else []
        self.tally = Tally(t.done + (not failed), t.wanted, t.kept, t.failed + failed)
        if self._progress is not None:
            self._progress(self.tally)
        if len(self._in_a_row) >= _FAILURES_IN_A_ROW and self._variants <= set(self._in_a_row):
            raise EndpointError(
                f"{answer.error} ({len(self._in_a_row)} questions in a row failed; "
                f"{self.tally.done} of {t.wanted} answers are saved: run the same command again to continue.)"
            )


def _messages(question: Question) -> list[Message]:
    return [{"role": role, "content": text} for role, text in question.conversation]


async def _one(endpoint: Endpoint, cell: Cell, asked: Sequence[Message], key: str, max_tokens: int) -> Answer:
    """Asks one question of one variant; what goes wrong at the endpoint becomes part of the answer."""
    id, variant = cell
    reply = None
    try:
        async for delta in endpoint.stream(asked, variant, max_tokens=max_tokens):
            reply = delta.reply or reply
        if reply is None:
            raise EndpointError("the stream ended without an answer")
    except EndpointError as error:
        return Answer(id, variant, key, error=str(error))
    return Answer(
        id,
        variant,
        key,
        text=_whole(reply.text),
        sources=tuple(_whole(passage) for passage in reply.sources if isinstance(passage, dict)),
        latency=reply.latency,
        first_token=reply.first_token,
        prompt_tokens=_count(reply.prompt_tokens),
        completion_tokens=_count(reply.completion_tokens),
        finish_reason=reply.finish_reason,
    )


def _whole(value: Any) -> Any:
    """What a server sent, with a replacement character for each half of a surrogate pair."""
    match value:
        case str():
            return HALF.sub("\ufffd", value)
        case dict():
            return {_whole(key): _whole(one) for key, one in value.items()}
        case list():
            return [_whole(one) for one in value]
    return value


def _count(value: object) -> int:
    """Tokens as a server counted them; 0, which is not measured, for what is no count."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return int(value) if known and isinstance(value, int | float) else 0


def _until(enough: Callable[[], bool], todo: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, those of a question one after another, until it is enough before a question is begun."""
    begun = None
    for cell in todo:
        if cell[0] != begun and enough():
            return
        begun = cell[0]
        yield cell


def _interleaved(questions: Sequence[Question], variants: Sequence[str], seed: int, *, drawn: bool = True) -> list[Cell]:
    """Questions in random order (`drawn`) or as given, and for each the variants in random order.

    So every variant meets the same load, and none is measured on a warmer server than the others.
    """
    rng = Random(f"ask-{seed}")
    order = rng.sample(list(questions), len(questions)) if drawn else questions
    return [(q.id, variant) for q in order for variant in rng.sample(list(variants), len(variants))]
