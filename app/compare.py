"""Compare: one prompt to two to four variants side by side, each streaming on its own clock."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from llmbench import assets
from llmbench.endpoint import HttpEndpoint
from llmbench.errors import EndpointError

from . import documents, render
from .conversation import MAX_SIDES, Session, Turn
from .settings import Settings
from .streams import merged
from .widgets import HANDLER, html

__all__ = ["build", "link"]

_LETTERS = "ABCD"
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 300.0
_TO_TOP = """
watch('value', () => {
  if (!element.querySelector('[data-state="waiting"]')) return;
  const talk = element.closest('.talk');
  talk.scrollTop += element.getBoundingClientRect().top - talk.getBoundingClientRect().top - 16;
});
"""
"""A new question goes to the top of its side; the answer then grows under it and moves nothing."""

_OPEN = """
element.addEventListener('click', (event) => {
  const opener = event.target.closest('[data-open]');
  if (opener) trigger('click', { open: opener.dataset.open });
});
"""
_OPENED = re.compile(r"([0-3])(?:-(\d{1,4}))?:(\d{1,4})")
"""Side, which of its turns unless it is the last, and the number of the passage."""

Updates = dict[Any, Any]


@dataclass
class _Page:
    """The components that the handlers read and write."""

    settings: Settings
    pill: gr.HTML
    session: gr.State
    stored: gr.BrowserState
    offline: gr.Column = field(init=False)
    problem: gr.HTML = field(init=False)
    again: gr.Button = field(init=False)
    stage: gr.Column = field(init=False)
    columns: list[gr.Column] = field(default_factory=list)
    pickers: list[gr.Dropdown] = field(default_factory=list)
    removers: list[gr.Button] = field(default_factory=list)
    pasts: list[gr.HTML] = field(default_factory=list)
    lives: list[gr.HTML] = field(default_factory=list)
    examples: gr.Row = field(init=False)
    prompt: gr.Textbox = field(init=False)
    send: gr.Button = field(init=False)
    stop: gr.Button = field(init=False)
    clear: gr.Button = field(init=False)
    add: gr.Button = field(init=False)
    endpoint: gr.Accordion = field(init=False)
    url: gr.Textbox = field(init=False)
    key: gr.Textbox = field(init=False)
    connect: gr.Button = field(init=False)
    system: gr.Textbox = field(init=False)
    max_tokens: gr.Number = field(init=False)
    stops: dict[str, asyncio.Event] = field(default_factory=dict)
    """The stop switch of each browser session whose answers are being written."""


def build(blocks: gr.Blocks, settings: Settings, pill: gr.HTML) -> _Page:
    """Lays the page out in the current tab and wires it."""
    page = _Page(settings, pill, gr.State(lambda: Session(url=settings.url)), gr.BrowserState(None, storage_key="llmbench"))
    with gr.Column(elem_classes="offline", visible=False) as page.offline:
        page.problem = html("")
        page.again = gr.Button("Connect again", variant="primary", elem_id="again", min_width=0, scale=0)
    with gr.Column(elem_classes="stage") as page.stage:
        with gr.Row(elem_classes="sides", equal_height=True):
            for i in range(MAX_SIDES):
                _side(page, i)
        questions = _examples()
        with gr.Row(elem_classes="examples", visible=bool(questions)) as page.examples:
            chips = [gr.Button(text, elem_classes="chip", size="sm", min_width=0) for text in questions]
        _composer(page)
    _endpoint(page)
    _wire(blocks, page, list(zip(chips, questions, strict=True)))
    return page


def link(page: _Page, shelf: documents.Shelf, tabs: gr.Tabs) -> None:
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


def _side(page: _Page, i: int) -> None:
    with gr.Column(elem_classes=["side", f"side-{i}"], visible=i < 2, min_width=240) as column:
        with gr.Row(elem_classes="side-head"):
            html(f'<span class="letter">{_LETTERS[i]}</span>', "letter-box")
            page.pickers.append(
                gr.Dropdown(
                    [], label=f"Variant {_LETTERS[i]}", show_label=False, container=False, filterable=True,
                    allow_custom_value=True, elem_classes="picker", min_width=100,
                )
            )  # fmt: skip
            page.removers.append(gr.Button("Remove", elem_classes="remove", size="sm", min_width=0, scale=0, visible=False))
        with gr.Column(elem_classes="talk"):
            page.pasts.append(html("", "past", js_on_load=_OPEN))
            page.lives.append(html(_idle(i), "live", js_on_load=_TO_TOP + _OPEN))
    page.columns.append(column)


def _composer(page: _Page) -> None:
    with gr.Row(elem_classes="composer"):
        page.prompt = gr.Textbox(
            placeholder="Ask every side the same question", show_label=False, label="Prompt", container=False, lines=1,
            max_lines=8, autofocus=True, scale=1, elem_id="prompt", min_width=120,
        )  # fmt: skip
        page.send = gr.Button("Send", variant="primary", elem_id="send", min_width=0, scale=0)
        page.stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=0, scale=0, visible=False)
        page.clear = gr.Button("Clear", elem_id="clear", min_width=0, scale=0)
        page.add = gr.Button("Add a side", elem_id="add", min_width=0, scale=0)


def _endpoint(page: _Page) -> None:
    with gr.Accordion("Endpoint and settings", open=False, elem_classes="settings", elem_id="endpoint") as page.endpoint:
        with gr.Row(elem_classes="fields"):
            page.url = gr.Textbox(page.settings.url, label="OpenAI-compatible URL", scale=3, min_width=220, elem_id="url")
            page.key = gr.Textbox(label="API key, if it needs one", type="password", scale=2, min_width=160)
            page.connect = gr.Button("Connect", elem_id="connect", min_width=0, scale=0)
        with gr.Row(elem_classes="fields"):
            page.system = gr.Textbox(label="System prompt, for every side", lines=2, max_lines=6, scale=3, min_width=220)
            page.max_tokens = gr.Number(
                0,
                label="Most tokens an answer may have (0: as the variant says)",
                minimum=0,
                precision=0,
                scale=2,
                min_width=160,
            )


def _wire(blocks: gr.Blocks, page: _Page, examples: list[tuple[gr.Button, str]]) -> None:
    """Loading, connecting, asking and stopping."""
    streaming: dict[str, Any] = HANDLER | {"concurrency_limit": None, "trigger_mode": "once"}
    asked = [page.prompt, page.system, page.max_tokens, page.session, *page.pickers]
    everything = [
        page.offline, page.problem, page.stage, page.pill, page.session, page.stored, page.examples, page.prompt, page.send,
        page.stop, page.clear, page.add, page.endpoint, page.url, *page.columns, *page.pickers, *page.removers, *page.pasts,
        *page.lives,
    ]  # fmt: skip

    async def ask(
        prompt: str, system: str, max_tokens: float | None, session: Session, request: gr.Request, *models: str
    ) -> AsyncIterator[Updates]:
        answers = _ask(page, prompt, system or "", max_tokens, session, models, request.session_hash or "")
        async with aclosing(answers):  # a page that is closed closes its requests too
            async for updates in answers:
                yield updates

    async def stop(request: gr.Request) -> None:
        switch = page.stops.get(request.session_hash or "")
        if switch is not None:
            switch.set()

    async def load(stored: Any) -> Updates:
        session = Session.restored(stored, page.settings.url)
        updates = await _connect(page, session, session.url, "") | _talks(page, session)
        # Whoever was quick has opened the settings and is typing: nothing is written there that stands there already.
        if session.models:
            del updates[page.endpoint]
        if session.url != page.settings.url:
            updates[page.url] = session.url
        return updates

    async def connect(url: str, key: str, session: Session, *models: str) -> Updates:
        _choose(session, models)
        return await _connect(page, session, url.strip(), key.strip())

    blocks.load(load, page.stored, everything, **HANDLER)
    gr.on([page.send.click, page.prompt.submit], ask, asked, everything, **streaming)
    page.stop.click(stop, **HANDLER)
    gr.on(
        [page.connect.click, page.again.click, page.url.submit, page.key.submit], connect,
        [page.url, page.key, page.session, *page.pickers], everything, **HANDLER,
    )  # fmt: skip
    for chip, text in examples:
        chip.click(lambda text=text: text, None, page.prompt, **HANDLER).then(ask, asked, everything, **streaming)
    _wire_sides(page, everything)


def _wire_sides(page: _Page, everything: list[Any]) -> None:
    """Clear, add and remove: what changes the sides without asking anybody."""

    def clear(session: Session) -> Updates:
        for side in session.sides:
            side.turns.clear()
        return _talks(page, session) | {page.stored: session.stored()}

    def add(session: Session) -> Updates:
        unseen = [i for i in range(MAX_SIDES) if i not in session.shown]
        session.shown = sorted([*session.shown, *unseen[:1]])
        return _talks(page, session) | {page.stored: session.stored()}

    page.clear.click(clear, page.session, everything, **HANDLER)
    page.add.click(add, page.session, everything, **HANDLER)
    for i, remover in enumerate(page.removers):

        def remove(session: Session, position: int = i) -> Updates:
            if len(session.shown) > 2:
                session.shown = [j for j in session.shown if j != position]
                session.sides[position].turns.clear()
            return _talks(page, session) | {page.stored: session.stored()}

        remover.click(remove, page.session, everything, **HANDLER)


async def _connect(page: _Page, session: Session, url: str, key: str) -> Updates:
    """Asks an endpoint for its models. The key of the settings goes to the URL of the settings only."""
    api_key = key or (page.settings.api_key if url == page.settings.url else None)
    session.url, session.api_key = url, api_key
    try:
        async with HttpEndpoint(url, api_key=api_key, timeout=_CONNECT_SECONDS) as endpoint:
            listed = await endpoint.listing()
        models = [str(entry["id"]) for entry in listed]
        problem = "" if models else f"{url} answers, and offers no models."
    except EndpointError as error:
        models, listed, problem = [], [], str(error)
    session.choose(models)
    session.pipelines = await asyncio.to_thread(_here, page.settings, listed)
    reason, _, command = problem.partition(" Start one: ")
    pickers = {
        picker: gr.Dropdown(choices=session.models, value=side.model or None)
        for picker, side in zip(page.pickers, session.sides, strict=True)
    }
    return {
        page.session: session,
        page.pill: pill(session),
        page.offline: gr.Column(visible=bool(problem)),
        page.stage: gr.Column(visible=not problem),
        page.problem: render.empty("No endpoint to talk to", reason, command=command),
        page.endpoint: gr.Accordion(open=bool(problem)),
        **pickers,
    }


def _here(settings: Settings, listed: list[dict[str, Any]]) -> dict[str, str]:
    """For each model that retrieves with a pipeline that is indexed here too, the pipeline's file."""
    names = {str(entry["id"]): str(entry["rag"]) for entry in listed if entry.get("rag")}
    files = documents.indexed(settings.pipeline) if names else {}
    return {model: files[name] for model, name in names.items() if name in files}


async def _ask(
    page: _Page, prompt: str, system: str, max_tokens: float | None, session: Session, models: tuple[str, ...], who: str
) -> AsyncGenerator[Updates]:
    """Sends the prompt to every shown side and yields what changed on the page, at most ten times a second."""
    question = prompt.strip()
    if not question or not session.models or who in page.stops:
        return
    _choose(session, models)
    switch = page.stops[who] = asyncio.Event()
    try:
        async with (
            HttpEndpoint(session.url, api_key=session.api_key, timeout=_ANSWER_SECONDS) as endpoint,
            AsyncExitStack() as stack,
        ):
            streams, turns = {}, {}
            for i in session.shown:
                side = session.sides[i]
                messages = side.messages(question, system)
                streams[i] = endpoint.stream(messages, side.model, max_tokens=int(max_tokens) if max_tokens else None)
                turns[i] = Turn(question, side.model)
                side.turns.append(turns[i])
            yield _talks(page, session) | _busy(page, True) | {page.prompt: ""}
            ticks = await stack.enter_async_context(aclosing(merged(streams, turns, switch)))
            async for changed in ticks:
                yield {page.lives[i]: render.turn(turns[i], side=str(i), here=session.pipelines) for i in changed}
    finally:
        del page.stops[who]
    yield _busy(page, False) | {page.session: session, page.stored: session.stored()}


def _choose(session: Session, models: tuple[str, ...]) -> None:
    for side, model in zip(session.sides, models, strict=True):
        side.model = model or side.model


def _busy(page: _Page, busy: bool) -> Updates:
    """While answers are written there is a Stop, and nothing that would change the sides under them."""
    quiet = {button: gr.Button(interactive=not busy) for button in (page.clear, page.add, page.connect, *page.removers)}
    quiet.pop(page.connect)
    return {page.send: gr.Button(visible=not busy), page.stop: gr.Button(visible=busy), **quiet}


def _talks(page: _Page, session: Session) -> Updates:
    """Everything about the sides, drawn anew."""
    updates: Updates = {page.session: session, page.examples: gr.Row(visible=not session.talking)}
    updates[page.add] = gr.Button(visible=len(session.shown) < MAX_SIDES)
    for i, side in enumerate(session.sides):
        updates[page.columns[i]] = gr.Column(visible=i in session.shown)
        updates[page.removers[i]] = gr.Button(visible=len(session.shown) > 2)
        updates[page.pasts[i]] = render.past(side.turns[:-1], side=f"{i}", here=session.pipelines)
        updates[page.lives[i]] = render.turn(side.turns[-1], side=str(i), here=session.pipelines) if side.turns else _idle(i)
    return updates


def _idle(i: int) -> str:
    return f'<div class="idle">Answers of {_LETTERS[i]} appear here.</div>'


def pill(session: Session) -> str:
    """The state of the connection, for the page's head."""
    address = session.url.split("://")[-1].removesuffix("/v1")
    if not session.models:
        return f'<span class="pill" data-on="no" title="{escape(session.url)}">no endpoint</span>'
    count = len(session.models)
    variants = f"{count} variant{'s' if count > 1 else ''}"
    return (
        f'<span class="pill" data-on="yes" title="{escape(session.url)}">'
        f'<span class="address">{escape(address)} · </span>{variants}</span>'
    )


def _examples() -> list[str]:
    """Two questions of the bundled handbook's test split that it answers, and one that it does not."""
    path = assets.bundle() / "rag" / "questions.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    test = [row for row in rows if row.get("split") == "test"]
    answered = [row["question"] for row in test if row["answerable"]]
    not_answered = [row["question"] for row in test if not row["answerable"]]
    return [*answered[:1], *answered[-1:], *not_answered[:1]]
