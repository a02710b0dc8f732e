"""Runs: what was trained, its curves beside those of other runs, its recipe, lock and result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from llmbench import runs, workspace
from llmbench.errors import LlmbenchError
from llmbench.runs import Run, labels
from llmbench.svg.lines import COLOURS, Line, chart

from . import render
from .cards import card, overview
from .curves import curves
from .widgets import HANDLER, html

__all__ = ["Shown", "build"]

_SECONDS = 3.0
"""Between two looks at a run that is training."""
_A_PAGE = 25
"""Runs of the list that are shown at once."""
_STATES = ["Any state", "running", "finished", "stopped", "failed"]
_ORDERS = ["Newest first", "Name", "Lowest loss"]
_STOP = """
element.addEventListener('click', (event) => {
  const name = event.target.closest('[data-stop]')?.dataset.stop;
  if (name && confirm(`Stop ${name}? It saves a checkpoint and can be resumed.`)) trigger('click', { stop: name });
});
"""
Colours = dict[str, int]
"""The number of the colour that each ticked run keeps while it stays ticked."""


@dataclass(frozen=True)
class Shown:
    """The components of the page, for whoever opens it from elsewhere."""

    words: gr.Textbox
    state: gr.Dropdown
    order: gr.Dropdown
    picker: gr.CheckboxGroup
    count: gr.HTML
    fewer: gr.Button
    more: gr.Button
    index: gr.Column
    view: gr.HTML
    timer: gr.Timer
    page: gr.State
    colours: gr.State
    linked: gr.State
    """Names that a link asked for, until somebody ticks others: events that it sets off still carry what was ticked before."""

    @property
    def outputs(self) -> list[Any]:
        """Everything that the handlers write."""
        return [
            self.words, self.state, self.order, self.picker, self.count, self.fewer, self.more, self.index, self.view,
            self.timer, self.page, self.colours, self.linked,
        ]  # fmt: skip

    def show(self, names: Sequence[str]) -> dict[Any, Any]:
        """The runs of these names, ticked."""
        shown = self.look("", _STATES[0], _ORDERS[0], names, 0, {}, [], first=False)
        return {self.words: "", self.state: _STATES[0]} | shown | {self.linked: list(names)}

    def look(
        self,
        words: str,
        state: str,
        order: str,
        chosen: Sequence[str] | None,
        page: int,
        colours: Colours,
        linked: Sequence[str],
        *,
        first: bool,
        by_itself: bool = False,
    ) -> dict[Any, Any]:
        """The list as it is asked for, and the chosen runs; the `first` one where none is chosen.

        `by_itself`, as every few seconds, it ticks nothing: a run that is ticked meanwhile would be unticked.
        """
        listed = runs.every()
        said = {run.name: _labels(run) for run in listed}
        every = {run.name: run.status for run in listed if not said[run.name].archived}
        kept = [name for name in linked or chosen or [] if name in every]
        found = _found(every, words or "", state, order)
        if not kept and first and found:
            kept = found[:1]
        page = min(max(page, 0), max(len(found) - 1, 0) // _A_PAGE)
        on_page = found[page * _A_PAGE : (page + 1) * _A_PAGE]
        rows = [*[name for name in kept if name not in on_page], *on_page]
        last = min((page + 1) * _A_PAGE, len(found))
        count = f"{page * _A_PAGE + 1} to {last} of {len(found)}" if len(found) > _A_PAGE else f"{len(found)} of {len(every)}"
        choices = [(_row(name, every[name], said[name].tags), name) for name in rows]
        return {
            self.picker: gr.CheckboxGroup(choices=choices) if by_itself else gr.CheckboxGroup(choices=choices, value=kept),
            self.count: f'<p class="aside" role="status">{count} runs</p>'
            if found
            else '<p class="aside">No matching runs.</p>',
            self.fewer: gr.Button(visible=len(found) > _A_PAGE, interactive=page > 0),
            self.more: gr.Button(visible=len(found) > _A_PAGE, interactive=last < len(found)),
            self.index: gr.Column(visible=bool(every)),
            self.page: page,
        } | (self.draw(kept, colours) if every else {self.view: _nothing(), self.timer: gr.Timer(active=True)})  # for the first

    def draw(self, chosen: Sequence[str] | None, colours: Colours) -> dict[Any, Any]:
        """The curves of the chosen runs together, then a card for each."""
        shown = [Run(workspace.runs() / name) for name in chosen or []]
        shown = [run for run in shown if (run.folder / "state.json").exists()]
        colours = _coloured([run.name for run in shown], colours)
        live = any(run.state == "running" for run in shown)
        return {self.view: _view(shown, colours), self.timer: gr.Timer(active=live), self.colours: colours}


def build(tab: gr.Tab) -> Shown:
    """Lays the page out in the current tab and wires it."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="list", scale=0, min_width=260) as index:
            words = gr.Textbox(
                placeholder="Search runs", label="Search runs", show_label=False, container=False, elem_id="run-search"
            )
            with gr.Row(elem_classes="sifting"):
                state = gr.Dropdown(
                    _STATES, value=_STATES[0], label="State", show_label=False, container=False, min_width=100,
                    elem_id="run-state", filterable=False,
                )  # fmt: skip
                order = gr.Dropdown(
                    _ORDERS, value=_ORDERS[0], label="Order", show_label=False, container=False, min_width=100,
                    elem_id="run-order", filterable=False,
                )  # fmt: skip
            count = html("", "count")
            picker = gr.CheckboxGroup([], label="Runs", show_label=False, container=False, elem_classes="rows", elem_id="runs")
            with gr.Row(elem_classes="sifting"):
                fewer = gr.Button("Previous", size="sm", elem_classes="quiet", min_width=0, visible=False)
                more = gr.Button("Next", size="sm", elem_classes="quiet", min_width=0, visible=False)
            refresh = gr.Button("Refresh", size="sm", elem_classes="quiet")
        with gr.Column(elem_classes="detail", min_width=280):
            said = html("", "run-said")
            view = html("", "run-view", js_on_load=_STOP)
    timer = gr.Timer(_SECONDS, active=False)
    on = Shown(
        words, state, order, picker, count, fewer, more, index, view, timer, gr.State(0), gr.State(dict), gr.State(list)
    )  # fmt: skip
    asked = [words, state, order, picker, on.page, on.colours, on.linked]

    def look(*values: Any) -> dict[Any, Any]:
        return on.look(*values, first=True)

    def again(*values: Any) -> dict[Any, Any]:
        ticked = bool(values[3] or values[6])  # nothing is while there is no run yet: the first that comes is shown
        return on.look(*values, first=not ticked, by_itself=ticked)

    def sift(
        words: str, state: str, order: str, chosen: list[str], page: int, colours: Colours, linked: list[str]
    ) -> dict[Any, Any]:
        return on.look(words, state, order, chosen, 0, colours, linked, first=False)

    def turn(by: int) -> Any:
        def turned(
            words: str, state: str, order: str, chosen: list[str], page: int, colours: Colours, linked: list[str]
        ) -> dict[Any, Any]:
            return on.look(words, state, order, chosen, page + by, colours, linked, first=False)

        return turned

    def ticked(chosen: list[str], colours: Colours) -> dict[Any, Any]:
        return on.draw(chosen, colours) | {on.linked: []}

    gr.on([tab.select, refresh.click], look, asked, on.outputs, **HANDLER)
    # Gradio's `input` of a text box hears letters that are typed, and neither a paste nor the last letter that goes.
    gr.on([words.change, state.input, order.input], sift, asked, on.outputs, **HANDLER, trigger_mode="always_last")
    fewer.click(turn(-1), asked, on.outputs, **HANDLER)
    more.click(turn(1), asked, on.outputs, **HANDLER)
    picker.input(ticked, [picker, on.colours], [view, timer, on.colours, on.linked], **HANDLER, trigger_mode="always_last")
    view.click(_stop, None, said, **HANDLER)
    gr.on([picker.input, tab.select], lambda: "", None, said, **HANDLER)
    timer.tick(again, asked, on.outputs, **HANDLER, trigger_mode="once")
    return on


def _stop(event: gr.EventData) -> str:
    """Stops the run that a button names, and says so."""
    name = event._data.get("stop") if isinstance(event._data, dict) else None
    try:
        runs.open_run(str(name)).stop()
    except LlmbenchError as error:
        return render.notice(str(error))
    return render.notice(f"{name} was asked to stop. It saves a checkpoint after its current step and ends.", "info")


def _found(every: dict[str, dict[str, Any]], words: str, state: str, order: str) -> list[str]:
    """The names that hold every word, in the order that is asked for; `every` has the newest first."""
    wanted = words.lower().split()
    found = [
        name for name, status in every.items()
        if all(word in name.lower() for word in wanted) and state in (_STATES[0], status["state"])
    ]  # fmt: skip
    match order:
        case "Name":
            found.sort()
        case "Lowest loss":
            losses = {name: _loss(every[name])[1] for name in found}
            found.sort(key=lambda name: losses[name] if math.isfinite(losses[name]) else math.inf)  # NaN: it diverged
        case _:
            pass
    return found


def _loss(status: dict[str, Any]) -> tuple[str, float]:
    """The held-out loss where there is one, else the training loss, with its name; infinite where there is neither."""
    for name, key in (("held-out loss", "eval_loss"), ("loss", "loss")):
        value = status.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return name, float(value)
    return "", math.inf


def _labels(run: Run) -> labels.Labels:
    """Note and tags; a damaged file, which `llmbench runs` names, keeps no run from being shown."""
    try:
        return labels.read(run)
    except LlmbenchError:
        return labels.Labels()


def _row(name: str, status: dict[str, Any], tags: Sequence[str] = ()) -> str:
    """The run in the list: name, state, how far, last loss, tags."""
    parts = [str(status["state"])]
    if status.get("steps") and status["state"] != "finished":
        parts.append(f"step {status.get('step', 0):,} of {status['steps']:,}")
    loss = _loss(status)
    parts += [f"{loss[0]} {loss[1]:.3f}"] if loss[0] else []
    return f"{name}\n" + " · ".join([*parts, *tags])


def _coloured(names: Sequence[str], before: Colours) -> Colours:
    """A run keeps its colour while it stays ticked; a new one takes the first that is free."""
    colours = {name: before[name] for name in names if name in before}
    for name in names:
        if name not in colours:
            colours[name] = next(n for n in range(len(names) + len(before) + 1) if n not in colours.values())
    return colours


def _nothing() -> str:
    return render.empty(
        "No runs yet", f"Training runs appear here, with their curves, recipe and adapter ({workspace.runs()}).",
        command="llmbench train recipes/sft-lora.yaml",
    )  # fmt: skip


def _view(shown: Sequence[Run], colours: Colours) -> str:
    if not shown:
        return render.empty("No run selected", "Select a run, or several to overlay their curves.")
    address = f"<span data-address='{quote(','.join(run.name for run in shown), safe='')}'></span>"
    losses = [line for run in shown for line in _lines(run, colours, "loss", "eval_loss")]
    charts = [
        chart("Loss", losses),
        chart("Learning rate", [line for run in shown for line in _lines(run, colours, "learning_rate")], from_zero=True),
        chart("Gradient norm", [line for run in shown for line in _lines(run, colours, "grad_norm")]),
        chart(
            "Tokens per second", [line for run in shown for line in _lines(run, colours, "tokens_per_second")], from_zero=True
        ),
    ]
    drawn = "".join(charts) or '<p class="aside">No metrics logged yet.</p>'
    tokens = {name: COLOURS[number % len(COLOURS)] for name, number in colours.items()}
    cards = "".join(card(run, tokens[run.name]) for run in shown)
    return f'{address}<div class="charts">{drawn}</div>{overview(shown) if len(shown) > 1 else ""}{cards}'


def _lines(run: Run, colours: Colours, *keys: str) -> list[Line]:
    number = colours[run.name]
    several = len(colours) > 1
    found = curves(run).points
    return [
        Line(
            f"{run.name}, held out" if key == "eval_loss" else run.name,
            COLOURS[number % len(COLOURS)],
            tuple(found.get(key, ())),
            key == "eval_loss",
            number if several else None,
        )
        for key in keys
    ]
