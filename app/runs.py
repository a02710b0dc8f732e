"""Runs: what was trained, its curves beside those of other runs, its recipe, lock and result."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from llmbench import runs, workspace
from llmbench.runs import Run

from . import render
from .chart import COLOURS, Line, chart
from .widgets import HANDLER, html

__all__ = ["build"]

_SECONDS = 3.0
"""Between two looks at a run that is training."""


def build(tab: gr.Tab) -> None:
    """Lays the page out in the current tab and wires it."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="list", scale=0, min_width=260) as index:
            picker = gr.CheckboxGroup([], label="Runs", show_label=False, container=False, elem_classes="rows", elem_id="runs")
            refresh = gr.Button("Look again", size="sm", elem_classes="quiet")
        with gr.Column(elem_classes="detail", min_width=280):
            view = html("", "run-view")
    timer = gr.Timer(_SECONDS, active=False)

    def look(chosen: Sequence[str]) -> dict[Any, Any]:
        found = runs.every()
        names = [run.name for run in found]
        kept = [name for name in chosen or [] if name in names] or names[:1]
        shown = [run for run in found if run.name in kept]
        return {
            picker: gr.CheckboxGroup(choices=[(_row(run), run.name) for run in found], value=kept),
            index: gr.Column(visible=bool(found)),
            view: _view(shown) if found else _nothing(),
            timer: gr.Timer(active=any(run.state == "running" for run in shown)),
        }

    def draw(chosen: Sequence[str]) -> dict[Any, Any]:
        shown = [run for run in runs.every() if run.name in (chosen or [])]
        live = any(run.state == "running" for run in shown)
        return {view: _view(shown), timer: gr.Timer(active=live)}

    gr.on([tab.select, refresh.click], look, picker, [picker, index, view, timer], **HANDLER)
    gr.on([picker.input, timer.tick], draw, picker, [view, timer], **HANDLER, trigger_mode="always_last")


def _row(run: Run) -> str:
    """The run in the list: name, state, last loss."""
    status = run.status
    loss = status.get("eval_loss") or status.get("loss")
    return f"{run.name}\n{status['state']}" + (f" · loss {loss:.3f}" if isinstance(loss, float) else "")


def _nothing() -> str:
    return render.empty(
        "No runs yet", f"A training leaves its curves, recipe and adapter here ({workspace.runs()}).",
        command="llmbench train recipes/sft-lora.yaml",
    )  # fmt: skip


def _view(shown: Sequence[Run]) -> str:
    """The curves of the runs together, then a card for each."""
    if not shown:
        return render.empty("No run chosen", "Tick one run to see it, or several to lay their curves over each other.")
    colour = {run.name: COLOURS[i % len(COLOURS)] for i, run in enumerate(shown)}
    loss = [line for run in shown for line in (_line(run, "loss", colour), _line(run, "eval_loss", colour, held_out=True))]
    charts = [
        chart("Loss", loss),
        chart("Learning rate", [_line(run, "learning_rate", colour) for run in shown], from_zero=True),
        chart("Gradient norm", [_line(run, "grad_norm", colour) for run in shown]),
        chart("Tokens per second", [_line(run, "tokens_per_second", colour) for run in shown], from_zero=True),
    ]
    drawn = "".join(charts) or '<p class="aside">No metrics are logged yet.</p>'
    return f'<div class="charts">{drawn}</div>' + "".join(_card(run, colour[run.name]) for run in shown)


def _line(run: Run, key: str, colour: dict[str, str], *, held_out: bool = False) -> Line:
    points = [(float(row["step"]), float(row[key])) for row in run.metrics() if _is_number(row.get(key)) and "step" in row]
    return Line(f"{run.name}, held out" if held_out else run.name, colour[run.name], tuple(points), held_out)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _card(run: Run, colour: str) -> str:
    status = run.status
    figures = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _figures(run, status))
    reason = f'<p class="aside">{escape(str(status["reason"]))}</p>' if status.get("reason") else ""
    return (
        f'<section class="card" style="--side: var(--{colour})">'
        f'<header><h3>{escape(run.name)}</h3><span class="badge" data-state="{escape(status["state"])}">'
        f"{escape(status['state'])}</span></header>{reason}"
        f'<dl class="figures">{figures}</dl>{_result(run)}'
        f"{_fold('Recipe', _text(run.folder / 'recipe.yaml'))}{_fold('Lock', _text(run.folder / 'lock.json'))}"
        "</section>"
    )


def _figures(run: Run, status: dict[str, Any]) -> list[tuple[str, str]]:
    recipe = run.recipe
    base = recipe["model"]["model_name_or_path"] if recipe["method"] != "pretrain" else "random weights"
    how = recipe["method"] + (
        " · QLoRA" if recipe["quantization"] else f" · LoRA r={recipe['lora']['r']}" if recipe["lora"] else " · full"
    )
    found = [
        ("Method", how),
        ("Base", str(base)),
        ("Started", time.strftime("%d %b %Y, %H:%M", time.localtime(status["created"]))),
    ]
    if status.get("steps"):
        found.append(("Steps", f"{status.get('step', 0):,} of {status['steps']:,}"))
    for label, key, form in (
        ("Loss", "loss", "{:.4f}"), ("Held-out loss", "eval_loss", "{:.4f}"), ("Tokens", "tokens", "{:,}"),
        ("Tokens/s", "tokens_per_second", "{:,.0f}"),
    ):  # fmt: skip
        if _is_number(status.get(key)):
            found.append((label, form.format(status[key])))
    if _is_number(status.get("seconds")):
        found.append(("Time", _time(status["seconds"])))
    if _is_number(status.get("peak_memory")) and status["peak_memory"]:
        found.append(("Peak memory", _bytes(status["peak_memory"])))
    return found


def _result(run: Run) -> str:
    for label, folder in (("Adapter", run.adapter), ("Model", run.model)):
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return f'<p class="result"><b>{label}</b> <code>{escape(str(folder))}</code> <span>{_bytes(size)}</span></p>'
    return '<p class="result"><b>Adapter</b> <span>not saved yet</span></p>'


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre><code>{escape(text)}</code></pre></details>" if text else ""


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False) if path.suffix == ".json" else text


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
