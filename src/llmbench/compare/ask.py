"""Puts every question to every variant, several at once, and keeps each answer the moment it is there."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llmbench.compare.answers import Answer, Cell
from llmbench.compare.jobs import AnswerJob
from llmbench.endpoint import Delta, Message, Reply
from llmbench.errors import EndpointError
from llmbench.questions import HALF

__all__ = ["Endpoint", "Enough", "Keeping", "Progress", "Tally", "Tallying", "ask", "entries"]

_FAILURES_IN_A_ROW = 10
"""So many, of every variant some, and the endpoint is taken to be gone, rather than a few questions or a variant to be bad."""


class Endpoint(Protocol):
    """What a comparison needs of an endpoint; `endpoint.HttpEndpoint` has it, and takes `options`, too."""

    async def listing(self) -> list[dict[str, Any]]:
        """One entry a model, with its `id`."""
        ...

    def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        """The answer piece by piece; the last piece carries the reply."""
        ...


class Keeping(Protocol):
    """Where answers go: `AnswerLog`, or what a replay compares."""

    def has(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        """Whether an answer of this key is there already."""
        ...

    def settled(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        """Whether an answer of this key, or an error in its place, is there."""
        ...

    def append(self, answer: Answer) -> None:
        """Keeps one more."""
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


class Tallying:
    """Counts answers and failures, over all engines of a comparison; the workers of one event loop share it."""

    def __init__(self, jobs: Sequence[AnswerJob], log: Keeping, progress: Progress | None = None) -> None:
        kept = sum(log.has(job.cell, job.key, job.repeat) for job in jobs)
        self.tally, self._progress = Tally(done=kept, wanted=len(jobs), kept=kept, failed=0), progress
        self._in_a_row: list[str] = []
        if progress is not None:
            progress(self.tally)

    def begin(self) -> None:
        """Another endpoint is asked now: what failed at the one before says nothing about it."""
        self._in_a_row = []

    def count(self, answer: Answer, variants: set[str]) -> None:
        """Notes one answer, and gives up after too many failures in a row, of each of the variants some."""
        t = self.tally
        failed = answer.error is not None
        self._in_a_row = [*self._in_a_row, answer.variant] if failed else []
        self.tally = Tally(t.done + (not failed), t.wanted, t.kept, t.failed + failed)
        if self._progress is not None:
            self._progress(self.tally)
        if len(self._in_a_row) >= _FAILURES_IN_A_ROW and variants <= set(self._in_a_row):
            raise EndpointError(
                f"{answer.error} ({len(self._in_a_row)} questions in a row failed; "
                f"{self.tally.done} of {t.wanted} answers are saved: run the same command again to continue.)"
            )


async def ask(
    endpoint: Endpoint,
    jobs: Sequence[AnswerJob],
    log: Keeping,
    tallying: Tallying,
    *,
    concurrency: int,
    enough: Enough | None = None,
) -> None:
    """Asks what the log has no answer of yet, in the order of the jobs.

    A question that fails is recorded with its error and asked again next time. With `enough` questions are asked until it says
    so; those that were begun are asked of every variant.

    Raises:
        EndpointError: ten failed one after another, of every variant some. What was answered before is kept.
    """
    todo = [job for job in jobs if not log.has(job.cell, job.key, job.repeat)]
    variants = {job.variant for job in todo}
    wanted: dict[Cell, list[AnswerJob]] = {}
    for job in jobs:
        wanted.setdefault(job.cell, []).append(job)

    def settled(cell: Cell) -> bool:
        return cell in wanted and all(log.settled(job.cell, job.key, job.repeat) for job in wanted[cell])

    waiting = iter(todo) if enough is None else _until(lambda: enough(settled), todo)
    tallying.begin()

    async def worker() -> None:
        for job in waiting:
            answer = await _one(endpoint, job)
            log.append(answer)
            tallying.count(answer, variants)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(worker())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    if enough is not None:
        enough(settled)  # of the answers that came last, or of those that were there before


def _until(enough: Callable[[], bool], todo: Sequence[AnswerJob]) -> Iterator[AnswerJob]:
    """The jobs, those of a question one after another, until it is enough before a question is begun."""
    begun = None
    for job in todo:
        if job.id != begun and enough():
            return
        begun = job.id
        yield job


async def _one(endpoint: Endpoint, job: AnswerJob) -> Answer:
    """Asks one question of one variant; what goes wrong at the endpoint becomes part of the answer."""
    messages = list(job.asked.messages)
    replies: list[Reply] = []
    began = time.time()
    try:
        for further in (None, *job.asked.further):
            if further is not None:
                messages += [{"role": "assistant", "content": replies[-1].text}, {"role": "user", "content": further}]
            replies.append(await _reply(endpoint, job, messages))
    except EndpointError as error:
        return Answer(job.id, job.variant, job.key, error=str(error), repeat=job.repeat)
    return _answer(job, replies, messages, began)


async def _reply(endpoint: Endpoint, job: AnswerJob, messages: Sequence[Message]) -> Reply:
    reply = None
    if job.options:
        stream = endpoint.stream(messages, job.model, max_tokens=job.max_tokens, options=job.options)  # type: ignore[call-arg]
    else:
        stream = endpoint.stream(messages, job.model, max_tokens=job.max_tokens)
    async for delta in stream:
        reply = delta.reply or reply
    if reply is None:
        raise EndpointError("the stream ended without an answer")
    return reply


def _answer(job: AnswerJob, replies: Sequence[Reply], messages: Sequence[Message], began: float) -> Answer:
    last = replies[-1]
    sources = job.asked.sources or tuple(_whole(one) for one in last.sources if isinstance(one, dict))
    logprobs = [one for reply in replies for one in reply.logprobs]
    answer = Answer(
        job.id,
        job.variant,
        job.key,
        text=_whole(last.text),
        sources=sources,
        latency=sum(reply.latency for reply in replies),
        first_token=replies[0].first_token,
        prompt_tokens=sum(_count(reply.prompt_tokens) for reply in replies),
        completion_tokens=sum(_count(reply.completion_tokens) for reply in replies),
        finish_reason=last.finish_reason,
        repeat=job.repeat,
        turns=tuple(_whole(reply.text) for reply in replies) if len(replies) > 1 else (),
        tool_calls=tuple(_whole(call) for call in last.tool_calls),
        openings={_whole(token): value for token, value in last.openings.items()},
    )
    if logprobs:
        answer = replace(
            answer,
            logprob=math.fsum(value for _, value in logprobs),
            bits=_hash(logprobs),
            tokens=_hash([token for token, _ in logprobs]),
        )
    return replace(answer, manifest=_manifest(job, last, sources, messages, began))


def _manifest(
    job: AnswerJob, reply: Reply, sources: Sequence[Mapping[str, Any]], messages: Sequence[Message], began: float
) -> dict[str, Any]:
    """All by which an answer can be given again: what answered, how it was drawn, and hashes of what it was asked and given."""
    told = {
        "server": _whole(reply.fingerprint),
        "sampling": {"max_tokens": job.max_tokens, **job.sampling},
        "messages": _hash(list(messages)),
        "passages": _hash([_whole(dict(one)) for one in sources]) if sources else "",
        "at": round(began, 3),
    }
    return {**job.manifest, **{name: value for name, value in told.items() if value != ""}}


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
