"""Reports: the finished comparisons, each with its verdict and the report that `llmbench compare` wrote."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr

from llmbench import compare, workspace
from llmbench.compare import Comparison
from llmbench.errors import LlmbenchError

from . import render
from .widgets import HANDLER, html

__all__ = ["Listed", "build", "sealed"]

_SEAL = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:;
font-src data:; script-src 'unsafe-inline'"><script>addEventListener("message", ({ data }) => {
  document.documentElement.style.colorScheme = data;
  for (const sheet of document.styleSheets) for (const rule of sheet.cssRules) {
    if (!rule.media) continue;
    rule.own ??= rule.media.mediaText;
    if (/prefers-color-scheme: *dark/.test(rule.own)) rule.media.mediaText = data === "dark" ? "screen" : "not all";
  }
});</script>"""
"""Put into a report that is shown here: it may load nothing, and it is light or dark as this page is."""

_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """The components of the page, for whoever opens it from elsewhere."""

    picker: gr.Radio
    index: gr.Column
    view: gr.HTML
    linked: gr.State
    """The name that a link asked for, until another is picked: events that it sets off still carry what was picked before."""

    @property
    def outputs(self) -> list[Any]:
        """Everything that the handlers write."""
        return [self.picker, self.index, self.view, self.linked]

    def show(self, chosen: str) -> dict[Any, Any]:
        """The list, and the comparison of this name, which a link asked for."""
        return self.look(chosen, "") | {self.linked: chosen}

    def look(self, chosen: str | None, linked: str) -> dict[Any, Any]:
        """The list, and the linked comparison, or the chosen one, or the newest."""
        chosen = linked or chosen
        found = compare.every()
        names = [one.name for one in found]
        kept = chosen if chosen in names else next(iter(names), None)
        return {
            self.picker: gr.Radio(choices=[(_row(one), one.name) for one in found], value=kept),
            self.index: gr.Column(visible=bool(found)),
            self.view: _shown(kept) if kept else _nothing(),
        }


def build(tab: gr.Tab) -> Listed:
    """Lays the page out in the current tab and wires it."""
    with gr.Row(elem_classes="split"):
        with gr.Column(elem_classes="list", scale=0, min_width=260) as index:
            picker = gr.Radio(
                [], label="Comparisons", show_label=False, container=False, elem_classes="rows", elem_id="reports"
            )
            refresh = gr.Button("Refresh", size="sm", elem_classes="quiet")
        with gr.Column(elem_classes="detail", min_width=280):
            view = html("", "report-view")

    on = Listed(picker, index, view, gr.State(""))
    gr.on([tab.select, refresh.click], on.look, [picker, on.linked], on.outputs, **HANDLER)
    picker.input(lambda name: (_shown(name), ""), picker, [view, on.linked], **HANDLER)
    return on


def _shown(name: str) -> str:
    try:
        return _view(compare.load(name))
    except LlmbenchError as error:
        return render.notice(str(error))


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
        "No comparisons yet", f"Comparisons appear here, with their verdict and report ({workspace.comparisons()}).",
        command="llmbench compare recipes/compare.yaml",
    )  # fmt: skip


def _view(one: Comparison) -> str:
    if not one.report.exists():
        return render.notice(f"{one.report} is missing. Run llmbench compare again: it reuses the answers.")
    data = one.report.read_bytes()
    return (
        f'<span data-address="{quote(one.name, safe="")}"></span>'
        f'<section class="card verdict"><h2>{render.plain(one.name)}</h2>'
        f'<button type="button" class="download" data-name="{escape(one.name)}.html" '
        f'data-bytes="{base64.b64encode(data).decode("ascii")}">Download the report</button>'
        f'<p class="aside">{render.plain(str(one.folder))}</p></section>'
        f"{sealed(data.decode('utf-8', errors='replace'))}"
    )
