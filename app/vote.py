"""Vote: two answers of a finished comparison at a time, without names, by keys or clicks; and what all votes say."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from llmbench import compare, votes
from llmbench.errors import LlmbenchError
from llmbench.votes import Booth, Plan

from . import ballot, render
from .ballot import Desk
from .widgets import HANDLER, html

__all__ = ["Polling", "build"]

_LATENCIES = [("Both answers at once", "hidden"), ("Both after the slower one", "paced"), ("With the time each took", "shown")]
_KEYS = """
const page = element.closest('#page-vote');
const ballot = () => element.querySelector('.ballot');
let busy = false, held = null;
const ready = () => { const box = ballot(); return box && !busy && !box.dataset.held ? box : null; };
const send = (what) => { busy = true; trigger('click', { round: Number(ballot().dataset.round), ...what }); };
const cast = (choice) => {
  const box = ready();
  if (!box) return;
  const reasons = [...box.querySelectorAll('[data-reason]:checked')].map((one) => one.dataset.reason);
  send({ cast: choice, reasons, note: box.querySelector('[data-note]')?.value ?? '' });
};
const undo = () => { const box = ready(); if (box && !box.querySelector('[data-undo]')?.disabled) send({ undo: true }); };
element.addEventListener('click', (event) => {
  const choice = event.target.closest('[data-cast]');
  if (choice) cast(choice.dataset.cast);
  else if (event.target.closest('[data-undo]')) undo();
});
element.addEventListener('keydown', (event) => {
  if (event.target.matches('[data-note]') && (event.key === 'Enter' || event.key === 'Escape')) {
    event.preventDefault();
    ballot()?.querySelector('h2').focus();
  }
});
const KEYS = { 1: 'left', 2: 'right', 3: 'tie', 4: 'both_bad', 5: 'skip' };
document.addEventListener('keydown', (event) => {
  if (!page || page.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest('input:not([type=checkbox]):not([type=radio]), textarea, select, [role=listbox]')) return;
  if (!ballot()) return;
  if (event.key in KEYS) { event.preventDefault(); cast(KEYS[event.key]); }
  else if (event.key === 'u') undo();
  else if (event.key === 'r') { event.preventDefault(); element.querySelector('[data-reason]')?.focus(); }
  else if (event.key === 'n') { event.preventDefault(); element.querySelector('[data-note]')?.focus(); }
});
watch('value', () => {
  busy = false;
  clearTimeout(held);
  const box = ballot();
  if (!box) return;
  box.querySelector('h2').focus({ preventScroll: true });
  if (box.dataset.held) held = setTimeout(() => {
    delete box.dataset.held;
    box.querySelectorAll('.holding').forEach((one) => one.remove());
  }, 1000 * Number(box.dataset.held));
  box.scrollIntoView({ block: innerWidth > 760 ? 'nearest' : 'start' });
});
"""


@dataclass(frozen=True)
class Polling:
    """The components of the page, for whoever opens it from elsewhere."""

    picker: gr.Radio
    index: gr.Column
    box: gr.HTML
    said: gr.HTML
    results: gr.HTML
    desk: gr.State

    @property
    def outputs(self) -> list[Any]:
        """Everything that the handlers write."""
        return [self.picker, self.index, self.box, self.said, self.results, self.desk]

    def look(self, chosen: str | None, desk: Desk) -> dict[Any, Any]:
        """The list of comparisons; the round that was begun stays."""
        found = compare.every()
        names = [one.name for one in found]
        kept = chosen if chosen in names else next(iter(names), None)
        day = {one.name: time.strftime("%d %b %Y, %H:%M", time.localtime(one.created)) for one in found}
        rows = [
            (f"{one.name}\n{len(one.variants)} variants · {len(one.questions)} questions · {day[one.name]}", one.name)
            for one in found
        ]
        return {self.picker: gr.Radio(choices=rows, value=kept), self.index: gr.Column(visible=bool(found))} | (
            {} if desk.booth else {self.box: _idle(kept) if kept else _nothing()}
        )

    def show(self, name: str, desk: Desk) -> dict[Any, Any]:
        """The comparison of this name, which a link asked for, chosen but not begun."""
        return self.look(name, desk)

    def begin(self, name: str | None, rater: str, latency: str) -> dict[Any, Any]:
        """A voter sits down."""
        desk = Desk()
        try:
            if not name:
                raise LlmbenchError("Choose a comparison first.")
            plan = Plan(latency=next(one for one in votes.values.LATENCIES if one == latency))
            desk.booth = Booth(name, rater.strip() or None, plan)
            desk.turn()
        except LlmbenchError as error:
            return {self.box: render.notice(str(error)), self.desk: Desk(), self.said: "", self.results: ""}
        return {self.desk: desk, self.said: "", self.results: ""} | self._drawn(desk)

    def act(self, desk: Desk, event: gr.EventData) -> dict[Any, Any]:
        """A choice, or the last one taken back. What is of another round than the one shown says nothing."""
        asked = event._data if isinstance(event._data, dict) else {}
        if desk.booth is None or asked.get("round") != desk.number:
            return self._drawn(desk)
        try:
            if asked.get("undo"):
                taken = desk.booth.undo()
                told = "The last vote is taken back." if taken else "There is no vote to take back."
                desk.turn()
            else:
                told = self._cast(desk, asked)
        except LlmbenchError as error:
            return {self.box: render.notice(str(error)) + ballot.drawn(desk), self.said: "", self.desk: desk}
        return {self.said: render.plain(told), self.desk: desk, self.results: ""} | self._drawn(desk)

    def tell(self, name: str | None) -> dict[Any, Any]:
        """What all votes on the chosen comparison say."""
        try:
            return {self.results: ballot.summary(votes.result(name or ""))}
        except LlmbenchError as error:
            return {self.results: render.notice(str(error), "info")}

    def _cast(self, desk: Desk, asked: dict[str, Any]) -> str:
        assert desk.booth is not None
        if desk.round is None:
            return "Nothing is left to vote on."
        reasons = [one for one in asked.get("reasons") or () if one in votes.values.REASONS]
        choice = next((one for one in votes.values.CHOICES if one == asked.get("cast")), None)
        if choice is None:
            raise LlmbenchError("That is not a vote.")
        looked = time.monotonic() - desk.began
        desk.booth.cast(desk.round, choice, reasons=reasons, note=str(asked.get("note") or ""), seconds=looked)
        desk.turn()
        return ballot.said(choice, desk)

    def _drawn(self, desk: Desk) -> dict[Any, Any]:
        if desk.booth is None:
            return {}
        drawn = ballot.drawn(desk) if desk.round else ballot.finished(desk)
        return {self.box: _address(desk.booth.comparison.name) + drawn}


def build(tab: gr.Tab) -> Polling:
    """Lays the page out in the current tab and wires it."""
    with gr.Row(elem_classes="split polling"):
        with gr.Column(elem_classes="list", scale=0, min_width=260) as index:
            picker = gr.Radio(
                [], label="Comparisons", show_label=False, container=False, elem_classes="rows", elem_id="votables"
            )
            rater = gr.Textbox(label="Your name (optional)", elem_id="rater", max_lines=1, max_length=64)
            latency = gr.Radio(_LATENCIES, value="hidden", label="Show", elem_id="latency")
            start = gr.Button("Vote", variant="primary", elem_id="start-voting")
            tell = gr.Button("Show what the votes say", size="sm", elem_classes="quiet", elem_id="tell-votes")
            refresh = gr.Button("Refresh", size="sm", elem_classes="quiet")
        with gr.Column(elem_classes="detail", min_width=280):
            box = html("", "ballot-box", js_on_load=_KEYS)
            results = html("", "vote-results")
    on = Polling(picker, index, box, html("", "said"), results, gr.State(lambda: Desk()))
    gr.on([tab.select, refresh.click], on.look, [picker, on.desk], on.outputs, **HANDLER)
    gr.on([start.click, rater.submit], on.begin, [picker, rater, latency], on.outputs, **HANDLER)
    box.click(on.act, on.desk, on.outputs, **HANDLER, trigger_mode="once")
    picker.input(lambda name, desk: {} if desk.booth else {box: _idle(name)}, [picker, on.desk], [box], **HANDLER)
    tell.click(on.tell, picker, on.results, **HANDLER)
    return on


def _address(name: str) -> str:
    return f'<span data-address="{quote(name, safe="")}"></span>'


def _idle(name: str) -> str:
    return _address(name) + render.empty(
        "Vote blind",
        "Two answers to one question, without names, on sides by chance. Keys: 1 left, 2 right, 3 tie, 4 both bad, 5 skip, "
        "u undo. Every vote is saved at once; you can stop and go on at any time.",
    )


def _nothing() -> str:
    return render.empty(
        "Nothing to vote on yet", "Finished comparisons appear here.", command="llmbench compare recipes/compare.yaml"
    )
