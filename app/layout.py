"""What Compare is made of: the sides, the composer, the settings of the endpoint."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from . import connection
from .conversation import LETTERS, MAX_SIDES, Session
from .settings import Settings
from .widgets import html

__all__ = ["Page", "Updates", "idle", "lay_out"]

Updates = dict[Any, Any]

_LIVE = """
const latest = element.closest('.talk');
let empty = true;
watch('value', () => {
  const restored = empty && element.querySelector('.turn') !== null;
  empty = element.querySelector('.turn') === null;
  if (!restored && !element.querySelector('[data-state="waiting"]')) return;
  latest.scrollTop += element.getBoundingClientRect().top - latest.getBoundingClientRect().top - 16;
});
"""
"""A new question goes to the top of its side, and so does the last one of a conversation that is loaded; the answer then grows
under it and moves nothing."""

_OPEN = """
element.addEventListener('click', (event) => {
  const on = event.target.closest('[data-open], [data-again], [data-vote]');
  if (on) trigger('click', { ...on.dataset });
});
"""


@dataclass
class Page:
    """The components that the handlers read and write."""

    settings: Settings
    pill: gr.HTML
    session: gr.State
    offline: gr.Column = field(init=False)
    problem: gr.HTML = field(init=False)
    again: gr.Button = field(init=False)
    restart: gr.Button = field(init=False)
    notice: gr.HTML = field(init=False)
    said: gr.HTML = field(init=False)
    """What a screen reader is told."""
    stage: gr.Column = field(init=False)
    columns: list[gr.Column] = field(default_factory=list)
    pickers: list[gr.Dropdown] = field(default_factory=list)
    abouts: list[gr.HTML] = field(default_factory=list)
    removers: list[gr.Button] = field(default_factory=list)
    pasts: list[gr.HTML] = field(default_factory=list)
    lives: list[gr.HTML] = field(default_factory=list)
    examples: gr.Row = field(init=False)
    chips: list[gr.Button] = field(default_factory=list)
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
    in_turn: gr.Checkbox = field(init=False)
    timer: gr.Timer = field(init=False)
    stops: dict[str, asyncio.Event] = field(default_factory=dict)
    """The stop switch of each conversation whose answers are being written."""

    @property
    def everything(self) -> list[Any]:
        """Every component that a handler may write."""
        return [
            self.offline, self.problem, self.again, self.restart, self.notice, self.said, self.stage, self.pill, self.session,
            self.examples, self.prompt, self.send, self.stop, self.clear, self.add, self.endpoint, self.url, self.timer,
            *self.columns, *self.pickers, *self.abouts, *self.removers, *self.pasts, *self.lives,
        ]  # fmt: skip


def lay_out(settings: Settings, pill: gr.HTML, questions: list[str]) -> Page:
    """Lays the page out in the current tab."""
    page = Page(settings, pill, gr.State(lambda: Session(url=settings.url, given=settings.url)))
    with gr.Column(elem_classes="offline", visible=False) as page.offline:
        page.problem = html("", "problem")
        with gr.Row(elem_classes="ways"):
            page.again = gr.Button("Reconnect", variant="primary", elem_id="again", min_width=0, scale=0)
            page.restart = gr.Button(
                "Restart the engine", variant="primary", elem_id="restart", min_width=0, scale=0, visible=False
            )
    page.notice = html("", "notices")
    page.said = html("", "said")
    with gr.Column(elem_classes="stage") as page.stage:
        with gr.Row(elem_classes="sides", equal_height=True):
            for i in range(MAX_SIDES):
                _side(page, i)
        with gr.Row(elem_classes="examples", visible=bool(questions)) as page.examples:
            page.chips = [gr.Button(text, elem_classes="chip", size="sm", min_width=0) for text in questions]
        _composer(page)
    _endpoint(page)
    page.timer = gr.Timer(connection.SECONDS)
    return page


def idle(i: int) -> str:
    """What stands where nothing was answered yet."""
    return f'<div class="idle">{LETTERS[i]}\'s answer will appear here.</div>'


def _side(page: Page, i: int) -> None:
    with gr.Column(elem_classes=["side", f"side-{i}"], visible=i < 2, min_width=240) as column:
        with gr.Row(elem_classes="side-head"):
            html(f'<h2 class="letter" aria-label="Variant {LETTERS[i]}">{LETTERS[i]}</h2>', "letter-box")
            page.pickers.append(
                gr.Dropdown(
                    [], label=f"Variant {LETTERS[i]}", show_label=False, container=False, filterable=True,
                    allow_custom_value=True, elem_classes="picker", min_width=100,
                )
            )  # fmt: skip
            page.removers.append(gr.Button("Remove", elem_classes="remove", size="sm", min_width=0, scale=0, visible=False))
        page.abouts.append(html("", "about"))
        with gr.Column(elem_classes="talk"):
            page.pasts.append(html("", "past", js_on_load=_OPEN))
            page.lives.append(html(idle(i), "live", js_on_load=_LIVE + _OPEN))
    page.columns.append(column)


def _composer(page: Page) -> None:
    with gr.Row(elem_classes="composer"):
        page.prompt = gr.Textbox(
            placeholder="Ask all variants", show_label=False, label="Prompt", container=False, lines=1,
            max_lines=8, autofocus=True, scale=1, elem_id="prompt", min_width=120,
        )  # fmt: skip
        page.send = gr.Button("Send", variant="primary", elem_id="send", min_width=0, scale=0)
        page.stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=0, scale=0, visible=False)
        page.clear = gr.Button("New conversation", elem_id="clear", min_width=0, scale=0)
        page.add = gr.Button("Add a variant", elem_id="add", min_width=0, scale=0)


def _endpoint(page: Page) -> None:
    with gr.Accordion("Endpoint and settings", open=False, elem_classes="settings", elem_id="endpoint") as page.endpoint:
        with gr.Row(elem_classes="fields"):
            page.url = gr.Textbox(page.settings.url, label="OpenAI-compatible URL", scale=3, min_width=220, elem_id="url")
            page.key = gr.Textbox(label="API key (optional)", type="password", scale=2, min_width=160)
            page.connect = gr.Button("Connect", elem_id="connect", min_width=0, scale=0)
        with gr.Row(elem_classes="fields"):
            page.system = gr.Textbox(label="System prompt (all variants)", lines=2, max_lines=6, scale=3, min_width=220)
            page.max_tokens = gr.Number(
                0, label="Max tokens (0 = the variant's default)", minimum=0, precision=0, scale=2, min_width=160
            )
            page.in_turn = gr.Checkbox(
                False, label="Ask one variant at a time (comparable latencies)", elem_id="in-turn", scale=0, min_width=200
            )
