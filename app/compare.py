"""Compare: one prompt to two to four variants side by side, each streaming on its own clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import gradio as gr

from llmbench import assets, questions
from llmbench.errors import LlmbenchError

from . import archive, asking, connection, documents, render
from .asking import Options
from .conversation import LETTERS, MAX_SIDES, Session
from .layout import Page, Updates, lay_out
from .settings import Settings
from .widgets import HANDLER

__all__ = ["build", "link"]

_OPENED = re.compile(r"([0-3])(?:-(\d{1,4}))?:(\d{1,4})")
"""Side, which of its turns unless it is the last, and the number of the passage."""
_AGAIN = re.compile(r"([0-3])(:all)?")
"""Side, and whether the whole conversation is asked anew."""
_VOTED = re.compile(r"([0-3])(?:-(\d{1,4}))?:(up|down)")
"""Side, which of its turns unless it is the last, and the vote."""
_NOT_NOW = "Answers are still being written. Wait for them, or stop them with Esc."
_STARTING_SECONDS = 1.0
_LEFT_SECONDS = 3.0
"""How long a page that is loaded waits for the answers of the page before it to be closed and kept."""


def build(blocks: gr.Blocks, settings: Settings, pill: gr.HTML) -> Page:
    """Lays the page out in the current tab and wires it."""
    questions = _examples()
    page = lay_out(settings, pill, questions)
    _wire(blocks, page)
    _wire_asking(page, questions)
    _wire_sides(page)
    return page


def link(page: Page, shelf: documents.Shelf, tabs: gr.Tabs) -> None:
    """Has a passage under an answer opened in Documents."""

    def open_passage(session: Session, event: gr.EventData) -> Iterator[Updates]:
        told = _OPENED.fullmatch(str(event._data.get("open"))) if isinstance(event._data, dict) else None
        turns = session.sides[int(told[1])].turns if told else []
        at = int(told[2]) if told and told[2] else len(turns) - 1
        if told is None or not 0 <= at < len(turns) or turns[at].model not in session.pipelines:
            yield {shelf.look: gr.skip()}
            return
        updates = shelf.open(session.pipelines[turns[at].model], turns[at].passages, int(told[3]))
        for first in updates:  # the tab is opened with what it shows: alone, it would open the index afresh
            yield first | {tabs: gr.Tabs(selected="documents")}
            break
        yield from updates

    for box in (*page.pasts, *page.lives):
        box.click(open_passage, page.session, [tabs, *shelf.outputs], **documents.DRAWING)


def _wire(blocks: gr.Blocks, page: Page) -> None:
    """Loading, connecting, and looking at the endpoint."""
    came = gr.JSON(visible=False)
    """What the browser says of itself when it loads the page: see `identify` in page.js."""

    async def load(browser: Any) -> Updates:
        told = browser if isinstance(browser, dict) else {}
        session, unread = await _restored(page, str(told.get("id")), str(told.get("copy") or ""))
        condition = await connection.inquire(session.url, connection.key_for(page.settings, session))
        updates = asking.talks(page, session) | await _settle(page, session, condition)
        if told.get("restarted"):
            kept = "Your conversation is still here." if session.talking else "There was no conversation to keep."
            updates[page.notice] = render.notice(f"The app was restarted. {kept}", "info")
        if not told.get("kept", True):
            updates[page.notice] = render.notice(
                "This browser blocks storage: the conversation will be lost when the tab closes.", "info"
            )
        if unread:
            updates[page.notice] = render.notice(unread)
        # Whoever was quick has opened the settings and is typing: nothing is written there that stands there already.
        if session.url != page.settings.url:
            updates[page.url] = session.url
        return updates

    async def connect(url: str, key: str, session: Session, *models: str) -> Updates:
        _choose(session, models)
        session.url, session.api_key = url.strip(), key.strip() or None
        condition = await connection.inquire(session.url, connection.key_for(page.settings, session), fresh=True)
        archive.write(session)
        return await _settle(page, session, condition)

    async def look(session: Session) -> Updates:
        """What changed since the last look; nothing is written while nothing does."""
        if not session.id:  # the page is still being loaded, and its conversation with it
            return {page.session: gr.skip()}
        before = (session.problem, session.models, session.stage)
        condition = await connection.inquire(session.url, connection.key_for(page.settings, session))
        models = [str(entry["id"]) for entry in condition.models]
        engine = page.settings.engine
        now = (condition.problem, models, engine.stage if engine is not None else None)
        return {page.session: gr.skip()} if now == before else await _settle(page, session, condition)

    async def restart(session: Session) -> Updates:
        engine = page.settings.engine
        try:
            if engine is not None:
                await asyncio.to_thread(engine.start)
        except LlmbenchError as error:
            return {page.notice: render.notice(str(error))}
        condition = await connection.inquire(session.url, connection.key_for(page.settings, session), fresh=True)
        return await _settle(page, session, condition)

    blocks.load(load, came, page.everything, js="() => llmbench.identify()", **HANDLER)
    page.timer.tick(look, page.session, page.everything, **HANDLER, trigger_mode="once")
    page.restart.click(restart, page.session, page.everything, **HANDLER)
    gr.on(
        [page.connect.click, page.again.click, page.url.submit, page.key.submit], connect,
        [page.url, page.key, page.session, *page.pickers], page.everything, **HANDLER,
    )  # fmt: skip


def _wire_asking(page: Page, questions: list[str]) -> None:
    """Asking, asking again, and stopping."""
    streaming: dict[str, Any] = HANDLER | {"concurrency_limit": None, "trigger_mode": "multiple"}
    options = [page.system, page.max_tokens, page.in_turn, page.session, *page.pickers]

    async def ask(
        prompt: str, system: str, max_tokens: float | None, in_turn: bool, session: Session, *models: str
    ) -> AsyncIterator[Updates]:
        question, refusal = prompt.strip(), _refusal(page, session)
        if not question or refusal:
            yield {page.notice: render.notice(refusal, "info")}
            return
        _choose(session, models)
        said = Options(system or "", int(max_tokens) if max_tokens else None, bool(in_turn))
        async with aclosing(asking.everybody(page, session, question, said)) as answers:
            async for updates in answers:  # a page that is closed closes its requests too
                yield updates

    async def ask_again(
        system: str, max_tokens: float | None, in_turn: bool, session: Session, event: gr.EventData, *models: str
    ) -> AsyncIterator[Updates]:
        told = _AGAIN.fullmatch(str(event._data.get("again"))) if isinstance(event._data, dict) else None
        refusal = _refusal(page, session) if told else ""
        if told is None or refusal:
            yield {page.notice: render.notice(refusal, "info") if told else gr.skip()}
            return
        _choose(session, models)
        said = Options(system or "", int(max_tokens) if max_tokens else None, bool(in_turn))
        asked = asking.anew if told[2] else asking.again
        async with aclosing(asked(page, session, int(told[1]), said)) as answers:
            async for updates in answers:
                yield updates

    async def vote(session: Session, event: gr.EventData) -> Updates:
        told = _VOTED.fullmatch(str(event._data.get("vote"))) if isinstance(event._data, dict) else None
        turns = session.sides[int(told[1])].turns if told else []
        at = int(told[2]) if told and told[2] else len(turns) - 1
        if told is None or not 0 <= at < len(turns):
            return {page.session: gr.skip()}
        return await asking.vote(page, session, int(told[1]), at, good=told[3] == "up")

    async def stop(session: Session) -> None:
        switch = page.stops.get(session.id)
        if switch is not None:
            switch.set()

    gr.on([page.send.click, page.prompt.submit], ask, [page.prompt, *options], page.everything, **streaming)
    gr.on([box.click for box in page.lives], ask_again, options, page.everything, **streaming)
    gr.on([box.click for box in (*page.pasts, *page.lives)], vote, page.session, page.everything, **HANDLER)
    page.stop.click(stop, page.session, **HANDLER)
    for chip, text in zip(page.chips, questions, strict=True):
        chip.click(lambda text=text: text, None, page.prompt, **HANDLER).then(
            ask, [page.prompt, *options], page.everything, **streaming
        )


def _wire_sides(page: Page) -> None:
    """Clear, add, remove and choose: what changes the sides without asking anybody."""

    def clear(session: Session) -> Updates:
        for side in session.sides:
            side.turns.clear()
        archive.forget(session.id)
        return asking.talks(page, session) | {page.notice: "", page.said: "New conversation started."}

    def add(session: Session) -> Updates:
        unseen = [i for i in range(MAX_SIDES) if i not in session.shown]
        session.shown = sorted([*session.shown, *unseen[:1]])
        return asking.talks(page, session) | {page.notice: render.notice(archive.write(session))}

    def chosen(session: Session, *models: str) -> Updates:
        _choose(session, models)
        return {
            about: render.about(side.model, session.descriptions.get(side.model, ""))
            for about, side in zip(page.abouts, session.sides, strict=True)
        } | {page.notice: render.notice(archive.write(session) if session.talking else "")}

    page.clear.click(clear, page.session, page.everything, **HANDLER)
    page.add.click(add, page.session, page.everything, **HANDLER)
    gr.on(
        [picker.input for picker in page.pickers], chosen, [page.session, *page.pickers], [*page.abouts, page.notice],
        **HANDLER,
    )  # fmt: skip
    for i, remover in enumerate(page.removers):

        def remove(session: Session, position: int = i) -> Updates:
            if len(session.shown) > 2:
                session.shown = [j for j in session.shown if j != position]
                session.sides[position].turns.clear()
            return asking.talks(page, session) | {page.notice: render.notice(archive.write(session))}

        remover.click(remove, page.session, page.everything, **HANDLER)


def _refusal(page: Page, session: Session) -> str:
    """Why nothing can be asked now; empty when it can."""
    if not session.id:
        return "The page is still loading."
    if session.id in page.stops:
        return _NOT_NOW
    return "" if session.models else f"Not connected. {session.problem}"


async def _restored(page: Page, key: str, copy: str) -> tuple[Session, str]:
    """The conversation that a tab had, or a copy of another tab's; and why it could not be read."""
    key_now = copy or key
    switch = page.stops.get(key)
    if switch is not None:  # this tab was reloaded while answers were written: they are ended and kept first
        switch.set()
        for _ in range(int(_LEFT_SECONDS / 0.05)):
            if key not in page.stops:
                break
            await asyncio.sleep(0.05)
    session, unread = await asyncio.to_thread(archive.read, key_now, page.settings.url)
    session.id = key if session.id else ""
    if copy and session.talking:
        archive.write(session)
    return session, unread


async def _settle(page: Page, session: Session, condition: connection.Condition) -> Updates:
    """Takes what a look at the endpoint found."""
    listed = list(condition.models)
    chosen = [side.model for side in session.sides]
    session.problem = condition.problem
    session.stage = page.settings.engine.stage if page.settings.engine is not None else None
    session.models = [str(entry["id"]) for entry in listed]
    updates: Updates = {}
    if listed:
        session.choose(session.models)
        session.descriptions = {str(e["id"]): str(e["description"]) for e in listed if e.get("description")}
        session.pipelines = await asyncio.to_thread(_here, page.settings, listed)
        lost = [
            f"{LETTERS[i]} now uses {session.sides[i].model}: {before} is no longer available."
            for i, before in enumerate(chosen)
            if before and before != session.sides[i].model and i in session.shown
        ]
        if lost:
            updates[page.notice] = render.notice(" ".join(lost), "info")
    for picker, about, side in zip(page.pickers, page.abouts, session.sides, strict=True):
        updates[picker] = gr.Dropdown(choices=session.models, value=side.model or None)
        updates[about] = render.about(side.model, session.descriptions.get(side.model, ""))
    banner = connection.banner(session, page.settings)
    engine = session.stage if session.url == page.settings.url else None
    starting = engine is not None and engine.state == "starting"
    dead = engine is not None and engine.state in ("failed", "stopped")
    return updates | {
        page.session: session,
        page.pill: connection.pill(session, page.settings),
        page.problem: banner,
        page.offline: gr.Column(visible=bool(banner)),
        page.again: gr.Button(visible=engine is None),
        page.restart: gr.Button(visible=dead),
        page.stage: gr.Column(visible=not banner or session.talking),
        page.examples: gr.Row(visible=not session.talking and bool(session.models)),
        page.timer: gr.Timer(_STARTING_SECONDS if starting else connection.SECONDS),
        page.endpoint: gr.Accordion(open=True) if condition.locked else gr.skip(),
    }


def _here(settings: Settings, listed: list[dict[str, Any]]) -> dict[str, str]:
    """For each model that retrieves with a pipeline that is indexed here too, the pipeline's file."""
    names = {str(entry["id"]): str(entry["rag"]) for entry in listed if entry.get("rag")}
    files = documents.indexed(settings.pipeline) if names else {}
    return {model: files[name] for model, name in names.items() if name in files}


def _choose(session: Session, models: tuple[str, ...]) -> None:
    for side, model in zip(session.sides, models, strict=True):
        side.model = model or side.model


def _examples() -> list[str]:
    """Two questions of the bundled handbook's test split that it answers, and one that it does not."""
    path = assets.bundle() / "rag" / "questions.jsonl"
    if not path.exists():
        return []
    test = [one for one in questions.read(path) if one.split == "test"]
    answered = [one.question for one in test if one.answerable]
    not_answered = [one.question for one in test if not one.answerable]
    return [*answered[:1], *answered[-1:], *not_answered[:1]]
