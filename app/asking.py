"""Asking: one question to every side, one side again, or a whole conversation anew; and what changes on the page meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import gradio as gr

from llmbench.endpoint import Delta, HttpEndpoint
from llmbench.errors import LlmbenchError

from . import archive, connection, render
from .conversation import LETTERS, MAX_SIDES, Session, Side, Turn
from .layout import Page, Updates, idle
from .streams import merged

__all__ = ["Options", "again", "anew", "everybody", "talks", "vote"]

_ANSWER_SECONDS = 300.0
_VOTE_SECONDS = 10.0
_SAVE_SECONDS = 2.0
"""Between two times that an answer that is being written is kept: a killed app loses no more."""


@dataclass(frozen=True)
class Options:
    """What the settings say about every request. `in_turn`: a side is asked once the one before has answered."""

    system: str = ""
    max_tokens: int | None = None
    in_turn: bool = False


@dataclass(frozen=True)
class Round:
    """A question for each of some sides, and the questions before it that a side should have seen to be comparable."""

    questions: Mapping[int, str]
    seen: Sequence[str]


async def everybody(page: Page, session: Session, question: str, options: Options) -> AsyncGenerator[Updates]:
    """Sends the question to every shown side and yields what changed on the page, at most ten times a second."""
    asked = Round(dict.fromkeys(session.shown, question), session.seen_before(""))
    async with aclosing(_answers(page, session, [asked], options)) as updates:
        async for update in updates:
            yield update


async def again(page: Page, session: Session, position: int, options: Options) -> AsyncGenerator[Updates]:
    """Asks one side its last question once more, in place of the answer it has."""
    turns = session.sides[position].turns
    if turns:
        question = turns.pop().question
        asked = Round({position: question}, session.seen_before(question))
        async with aclosing(_answers(page, session, [asked], options)) as updates:
            async for update in updates:
                yield update


async def anew(page: Page, session: Session, position: int, options: Options) -> AsyncGenerator[Updates]:
    """Asks one side every question of the longest conversation, from the first on."""
    longest = max((session.sides[i] for i in session.shown), key=lambda side: len(side.turns))
    rounds = [Round({position: turn.question}, Side(turns=longest.turns[:n]).seen) for n, turn in enumerate(longest.turns)]
    session.sides[position].turns.clear()
    async with aclosing(_answers(page, session, rounds, options)) as updates:
        async for update in updates:
            yield update


async def vote(page: Page, session: Session, position: int, at: int, *, good: bool) -> Updates:
    """Tells the endpoint how good an answer was, and draws it so."""
    turn = session.sides[position].turns[at]
    if turn.reply is None or not turn.reply.request_id:
        return {page.session: gr.skip()}
    try:
        async with HttpEndpoint(
            session.url, api_key=connection.key_for(page.settings, session), timeout=_VOTE_SECONDS
        ) as endpoint:
            await endpoint.feedback(turn.reply.request_id, good)
    except LlmbenchError as error:
        return {page.notice: render.notice(f"The vote was not counted. {error}")}
    turn.vote = good
    problem = await asyncio.to_thread(archive.write, session)
    side = session.sides[position]
    last = at == len(side.turns) - 1
    drawn = {page.lives[position]: _live(session, position)} if last else {page.pasts[position]: _past(session, position)}
    return drawn | {page.notice: render.notice(problem), page.said: "Voted.", page.session: session}


async def _answers(page: Page, session: Session, rounds: list[Round], options: Options) -> AsyncGenerator[Updates]:
    """One round after the other, until all are answered or Stop is pressed."""
    switch = page.stops[session.id] = asyncio.Event()
    problem = ""
    try:
        key = connection.key_for(page.settings, session)
        async with HttpEndpoint(session.url, api_key=key, timeout=_ANSWER_SECONDS) as endpoint:
            for asked in rounds:
                if switch.is_set():
                    break
                async with aclosing(_round(page, session, asked, options, endpoint, switch)) as updates:
                    async for update in updates:
                        yield update
    finally:
        problem = archive.write(session)
        del page.stops[session.id]
    yield _busy(page, False) | {page.notice: render.notice(problem), page.said: _summary(session), page.session: session}


async def _round(
    page: Page, session: Session, asked: Round, options: Options, endpoint: HttpEndpoint, switch: asyncio.Event
) -> AsyncGenerator[Updates]:
    streams, turns = {}, {}
    for i, question in asked.questions.items():
        side = session.sides[i]
        turns[i] = Turn(question, side.model, note=side.note(asked.seen) if len(session.shown) > 1 else "")
        turns[i].together = 1 if options.in_turn else len(asked.questions)
        streams[i] = endpoint.stream(side.messages(question, options.system), side.model, max_tokens=options.max_tokens)
        side.turns.append(turns[i])
    problem = await asyncio.to_thread(archive.write, session)
    yield talks(page, session) | _busy(page, True) | {
        page.prompt: "", page.said: "Answering.", page.notice: render.notice(problem)
    }  # fmt: skip
    saved = time.monotonic()
    async with AsyncExitStack() as stack:
        sources = _in_turn(streams) if options.in_turn else streams
        ticks = await stack.enter_async_context(aclosing(merged(sources, turns, switch)))
        async for changed in ticks:
            yield {page.lives[i]: _live(session, i) for i in changed}
            if time.monotonic() - saved > _SAVE_SECONDS:
                await asyncio.to_thread(archive.write, session)
                saved = time.monotonic()


def _in_turn(streams: Mapping[int, AsyncIterator[Delta]]) -> dict[int, AsyncIterator[Delta]]:
    """The same streams, each of which begins when the one before has ended."""
    held: dict[int, AsyncIterator[Delta]] = {}
    before: asyncio.Event | None = None
    for i, stream in streams.items():
        after = asyncio.Event()
        held[i] = _after(before, stream, after)
        before = after
    return held


async def _after(before: asyncio.Event | None, stream: AsyncIterator[Delta], after: asyncio.Event) -> AsyncIterator[Delta]:
    try:
        if before is not None:
            await before.wait()
        async for delta in stream:
            yield delta
    finally:
        after.set()


def _busy(page: Page, busy: bool) -> Updates:
    """While answers are written there is a Stop, and nothing that would change the sides under them."""
    return {
        page.send: gr.Button(visible=not busy),
        page.stop: gr.Button(visible=busy),
        page.clear: gr.Button(interactive=not busy),
        page.add: gr.Button(interactive=not busy),
        **{picker: gr.Dropdown(interactive=not busy) for picker in page.pickers},
        **{remover: gr.Button(interactive=not busy) for remover in page.removers},
    }


def _summary(session: Session) -> str:
    """What a screen reader hears when the answers are there."""
    ends = {"done": "answered", "failed": "failed", "stopped": "stopped"}
    turns = [(LETTERS[i], session.sides[i].turns[-1]) for i in session.shown if session.sides[i].turns]
    return " ".join(f"{letter} {ends.get(render.state(turn), 'is writing')}." for letter, turn in turns)


def talks(page: Page, session: Session) -> Updates:
    """Everything about the sides, drawn anew."""
    updates: Updates = {page.session: session, page.examples: gr.Row(visible=not session.talking and bool(session.models))}
    updates[page.add] = gr.Button(visible=len(session.shown) < MAX_SIDES)
    for i, side in enumerate(session.sides):
        updates[page.columns[i]] = gr.Column(visible=i in session.shown)
        updates[page.removers[i]] = gr.Button(visible=len(session.shown) > 2)
        updates[page.pasts[i]] = _past(session, i)
        updates[page.lives[i]] = _live(session, i)
        updates[page.abouts[i]] = render.about(side.model, session.descriptions.get(side.model, ""))
    return updates


def _past(session: Session, i: int) -> str:
    return render.past(session.sides[i].turns[:-1], side=f"{i}", here=session.pipelines)


def _live(session: Session, i: int) -> str:
    """The last turn of a side, or what stands there before the first."""
    side = session.sides[i]
    return render.turn(side.turns[-1], side=str(i), here=session.pipelines, last=True) if side.turns else idle(i)
