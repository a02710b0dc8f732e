"""Reports: the finished comparisons, each with its verdict and the report that `llmbench compare` wrote."""

from __future__ import annotations

import re
import time
from html import escape
from typing import Any

import gradio as gr

from llmbench import compare, workspace
from llmbench.compare import Comparison
from llmbench.errors import LlmbenchError

from . import render
from .widgets import HANDLER, html

__all__ = ["build", "sealed"]

_SEAL = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:;
font-src data:; script-src 'unsafe-inline'"><script>addEventListener("message", ({ data }) => {
  document.documentElement.style.colorScheme = data;
  for (const sheet of document.styleSheets) for (const rule of sheet.cssRules) {
    if (!rule.media) continue;
    rule.own ??= rule.media.mediaText;
    if (/prefers-color-scheme: *dark/.test(rule.own)) rule.media.mediaText = data === "dark" ? "all" : "not all";
  }
});</script>"""
"""Put into a report that is shown here: it may load nothing, and it is light or dark as this page is."""

_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


def build(tab: gr.Tab) -> None:
    """Lays the page out in the current tab and wires it."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="list", scale=0, min_width=260) as index:
            picker = gr.Radio(
                [], label="Comparisons", show_label=False, container=False, elem_classes="rows", elem_id="reports"
            )
            refresh = gr.Button("Look again", size="sm", elem_classes="quiet")
        with gr.Column(elem_classes="detail", min_width=280):
            view = html("", "report-view")

    def look(chosen: str | None) -> dict[Any, Any]:
        found = compare.every()
        names = [one.name for one in found]
        kept = chosen if chosen in names else next(iter(names), None)
        return {
            picker: gr.Radio(choices=[(_row(one), one.name) for one in found], value=kept),
            index: gr.Column(visible=bool(found)),
            view: show(kept) if kept else _nothing(),
        }

    def show(name: str) -> str:
        try:
            return _view(compare.load(name))
        except LlmbenchError as error:
            return render.notice(str(error))

    gr.on([tab.select, refresh.click], look, picker, [picker, index, view], **HANDLER)
    picker.input(show, picker, view, **HANDLER)


def sealed(report: str) -> str:
    """A report that can run its own scripts and reach nothing: no address, not this page."""
    found = _HEAD.search(report)
    document = report[: found.end()] + _SEAL + report[found.end() :] if found else f"<head>{_SEAL}</head>{report}"
    return f'<iframe sandbox="allow-scripts" title="Report" srcdoc="{escape(document)}"></iframe>'


def _row(one: Comparison) -> str:
    day = time.strftime("%d %b %Y, %H:%M", time.localtime(one.created))
    return f"{one.name}\n{len(one.variants)} variants · {len(one.questions)} questions · {day}"


def _nothing() -> str:
    return render.empty(
        "No comparisons yet", f"A comparison leaves its verdict and its report here ({workspace.comparisons()}).",
        command="llmbench compare recipes/compare.yaml",
    )  # fmt: skip


def _view(one: Comparison) -> str:
    if not one.report.exists():
        return render.notice(f"{one.report} is missing. Run llmbench compare again: the answers are kept.")
    report = one.report.read_text(encoding="utf-8", errors="replace")
    return (
        f'<section class="card verdict"><h3>{escape(one.name)}</h3><p class="aside">{escape(str(one.folder))}</p>'
        f'<button type="button" class="download" data-name="{escape(one.name)}.html">Download the report</button></section>'
        f"{sealed(report)}"
    )
