"""A run in words: a card with its state, progress, figures, result and documents; and a table of several."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from llmbench import diagnosis
from llmbench.errors import LlmbenchError
from llmbench.runs import Run

from .curves import curves
from .prose import plain

__all__ = ["card", "overview"]


def card(run: Run, colour: str) -> str:
    """One run. `colour` is the token of its line."""
    status = _status(run)
    figures = "".join(f"<div><dt>{escape(k)}</dt><dd>{plain(v)}</dd></div>" for k, v in _figures(run, status))
    reason = f'<p class="aside">{plain(str(status["reason"]))}</p>' if status.get("reason") else ""
    return (
        f'<section class="card" style="--side: var(--{colour})">'
        f'<header><h2>{plain(run.name)}</h2><span class="badge" data-state="{escape(status["state"])}">'
        f"{escape(status['state'])}</span></header>{reason}{_progress(status)}"
        f'<dl class="figures">{figures}</dl>{_result(run)}{_next(run, status)}'
        f"{_diagnosis(run)}"
        f"{_fold('Recipe', _text(run.folder / 'recipe.yaml'))}{_fold('Lock', _text(run.folder / 'lock.json'))}"
        "</section>"
    )


def overview(shown: Sequence[Run]) -> str:
    """The last figures of several runs side by side."""
    heads = ("Run", "State", "Steps", "Loss", "Held-out loss", "Tokens/s", "Time")
    rows = []
    for run in shown:
        status = _status(run)
        steps = f"{status.get('step') or 0:,}" + (f" of {status['steps']:,}" if status.get("steps") else "")
        cells = [
            status["state"], steps, _number(status.get("loss"), "{:.4f}"), _number(status.get("eval_loss"), "{:.4f}"),
            _number(status.get("tokens_per_second"), "{:,.0f}"), _time(status["seconds"]) if _is(status.get("seconds")) else "",
        ]  # fmt: skip
        line = "".join(f"<td>{plain(str(cell))}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row" title="{escape(run.name)}">{plain(run.name)}</th>{line}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="card wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _status(run: Run) -> dict[str, Any]:
    """The state; where it does not name a figure yet (a run that trains, or was killed), what the metrics say."""
    last = curves(run).last
    known = {key: last[key] for key in ("step", "loss", "eval_loss", "tokens_per_second") if key in last}
    return known | {key: value for key, value in run.status.items() if value is not None}


def _progress(status: dict[str, Any]) -> str:
    """How far it is; while it trains with the time left."""
    step, steps = status.get("step", 0), status.get("steps", 0)
    if status["state"] == "finished" or not _is(step) or not _is(steps) or not steps:
        return ""
    share = min(float(step) / float(steps), 1.0)
    words = f"Step {step:,} of {steps:,}, {share:.0%}"
    if status["state"] == "running" and _is(status.get("seconds_left")):
        words += f", {_time(status['seconds_left'])} left"
    return (
        f'<p class="progress"><progress max="1" value="{share:.4f}" aria-label="Progress"></progress><span>{words}</span></p>'
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
    elif _is(status.get("step")):
        found.append(("Steps", f"{status['step']:,}"))
    for label, key, form in (
        ("Loss", "loss", "{:.4f}"), ("Held-out loss", "eval_loss", "{:.4f}"), ("Tokens", "tokens", "{:,}"),
        ("Tokens/s", "tokens_per_second", "{:,.0f}"),
    ):  # fmt: skip
        if _is(status.get(key)):
            found.append((label, form.format(status[key])))
    if _is(status.get("seconds")):
        found.append(("Time", _time(status["seconds"])))
    if _is(status.get("peak_memory")) and status["peak_memory"]:
        found.append(("Peak memory", _bytes(status["peak_memory"])))
    return found


def _result(run: Run) -> str:
    for label, folder in (("Adapter", run.adapter), ("Model", run.model)):
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return f'<p class="result"><b>{label}</b> <code>{plain(str(folder))}</code> <span>{_bytes(size)}</span></p>'
    return '<p class="result"><b>Adapter</b> <span>not saved yet</span></p>'


def _next(run: Run, status: dict[str, Any]) -> str:
    """How to stop or to resume it: a training is a process of its own, which outlives every page."""
    if status["state"] in ("stopped", "failed") and any(run.checkpoints.glob("checkpoint-*")):
        command = f"llmbench train {shlex.quote(str(run.folder / 'recipe.yaml'))} --resume"
        return f'<p class="result"><b>Resume</b> <code>{plain(command)}</code></p>'
    if status["state"] == "running":
        button = f'<button type="button" class="quiet-link" data-stop="{escape(run.name)}">Stop this run</button>'
        return f'<p class="result">{button} <span>or press Ctrl-C in its terminal. It can be resumed.</span></p>'
    return ""


_looked: dict[tuple[str, int, str], str] = {}
"""What was found in a run at a size of its metrics and a state: the page looks again every three seconds."""


def _diagnosis(run: Run) -> str:
    """What is wrong with it, each with its evidence and what to try; that nothing was found, and what was not looked at."""
    metrics = run.folder / "metrics.jsonl"
    key = (str(run.folder), metrics.stat().st_size if metrics.exists() else 0, run.state)
    if key not in _looked:
        for old in [one for one in _looked if one[0] == key[0]]:
            del _looked[old]
        try:
            _looked[key] = _findings(diagnosis.diagnose(run))
        except LlmbenchError:  # a damaged recipe, of which the card says enough
            _looked[key] = ""
    return _looked[key]


def _findings(looked: diagnosis.Diagnosis) -> str:
    items = "".join(
        f'<li data-severity="{one.severity}"><b>{plain(one.name)}</b> <span class="badge">{one.severity}</span>'
        f"<p>{plain(one.evidence)}</p>{_rows(one.rows)}<p>{plain(one.next)}</p>"
        + (f"<code>{plain(' '.join(one.change))}</code>" if one.change else "")
        + "</li>"
        for one in looked.findings
    )
    unseen = "".join(f"<li>{plain(line)}</li>" for line in looked.unseen)
    rest = f"<details><summary>Not looked at</summary><ul>{unseen}</ul></details>" if unseen else ""
    opened = " open" if looked.alarms else ""
    return (
        f'<details class="diagnosis"{opened}><summary>Diagnosis: {plain(looked.verdict)}</summary>'
        f"{f'<ul>{items}</ul>' if items else ''}{rest}</details>"
    )


def _rows(rows: Sequence[str]) -> str:
    """Where the rows stand that it is about."""
    if not rows:
        return ""
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f'<p class="aside">{plain(", ".join(rows[:8]) + more)}</p>'


def _fold(title: str, text: str) -> str:
    code = f'<pre tabindex="0"><code>{plain(text)}</code></pre>'
    return f"<details><summary>{title}</summary>{code}</details>" if text else ""


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False) if path.suffix == ".json" else text
    except ValueError:
        return text


def _is(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any, form: str) -> str:
    return form.format(value) if _is(value) else ""


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
