"""Builds the program and serves it on this machine."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from starlette.middleware import Middleware

from . import compare, documents, reports, runs, vote
from .ballot import Desk
from .conversation import Session
from .door import Door
from .settings import Settings
from .theme import theme
from .widgets import html

__all__ = ["Settings", "build", "launch"]

_ROUTE = """
const box = element.querySelector('.router');
box.addEventListener('go', (event) => trigger('click', { address: event.detail }));
window.llmbench.arrive();
"""
_FRAME = """<style>@media (max-width: 760px) {
  .gradio-container.gradio-container { padding: 0 12px !important; overflow: clip visible !important; }
}</style>"""
"""What style.css cannot say, since Gradio puts all its selectors inside the container: `overflow: hidden` there would let no
composer stick to the lower edge of a phone."""
_HERE = Path(__file__).parent
_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.02
"""How often Gradio's queue looks for a question; one waits half of it on average."""


def build(settings: Settings) -> gr.Blocks:
    """The program, not yet served."""
    blocks: gr.Blocks
    with gr.Blocks(title="llmbench", fill_width=True, analytics_enabled=False) as blocks:
        with gr.Row(elem_classes="top"):
            html((_HERE / "wordmark.html").read_text(encoding="utf-8"), "brand")
            pill = html("", "connection")
            html('<button type="button" id="theme" aria-label="Switch between light and dark"></button>', "theme-box")
        with gr.Tabs(elem_classes="pages") as tabs:
            with gr.Tab("Compare", id="compare", elem_id="page-compare"):
                talk = compare.build(blocks, settings, pill)
            with gr.Tab("Documents", id="documents", elem_id="page-documents") as tab:
                shelf = documents.build(tab, settings)
            with gr.Tab("Runs", id="runs", elem_id="page-runs") as tab:
                trained = runs.build(tab)
            with gr.Tab("Reports", id="reports", elem_id="page-reports") as tab:
                compared = reports.build(tab)
            with gr.Tab("Vote", id="vote", elem_id="page-vote") as tab:
                polled = vote.build(tab)
        compare.link(talk, shelf, tabs)
        router = html('<span class="router"></span>', "router-box", js_on_load=_ROUTE)

        def go(session: Session, desk: Desk, event: gr.EventData) -> Iterator[dict[Any, Any]]:
            """Shows what an address names: a tab, and in it a run, a report or a passage."""
            page, *rest = [unquote(part) for part in str((event._data or {}).get("address")).split("/")]
            match page, rest:
                case "runs", [names]:
                    yield {tabs: gr.Tabs(selected="runs")} | trained.show(names.split(","))
                case "reports", [name]:
                    yield {tabs: gr.Tabs(selected="reports")} | compared.show(name)
                case "documents", [pipeline, query, *position]:
                    for first in shelf.go(pipeline, query, position):
                        yield {tabs: gr.Tabs(selected="documents")} | first
                case "vote", [name]:
                    yield {tabs: gr.Tabs(selected="vote")} | polled.show(name, desk)
                case "compare" | "documents" | "runs" | "reports" | "vote", _:
                    yield {tabs: gr.Tabs(selected=page)}
                case _:
                    yield {tabs: gr.skip()}

        outputs = [tabs, *trained.outputs, *compared.outputs, *shelf.outputs, *polled.outputs]
        router.click(go, [talk.session, polled.desk], outputs, **documents.DRAWING, trigger_mode="always_last")
    return blocks


def launch(settings: Settings, *, port: int, ready: Callable[[str], None] | None = None) -> None:
    """Serves the program until Ctrl-C. `ready` is called with its address; port 0 takes a free one."""
    blocks = build(settings)
    blocks.queue(api_open=False, default_concurrency_limit=None)
    # Gradio looks for something to do a thousand times a second, which takes a twentieth of a core while nobody uses the app.
    blocks._queue.sleep_when_free = _LOOK_SECONDS
    blocks._queue.progress_update_sleep_when_free = 10 * _LOOK_SECONDS
    # A page that was open while the app was away can tell by this that it has been started again.
    script = f'window.llmbenchApp = "{secrets.token_hex(8)}";\n' + (_HERE / "page.js").read_text(encoding="utf-8")
    try:
        _, address, _ = blocks.launch(
            server_name=_HOST, server_port=port or _free_port(), prevent_thread_lock=True, quiet=True, share=False,
            show_error=False, ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, strict_cors=True,
            allowed_paths=[], max_file_size=1, footer_links=[], theme=theme(), css_paths=[_HERE / "style.css"],
            head=f"{_FRAME}<script>{script}</script>", favicon_path=_HERE / "icon.svg",
            app_kwargs={
                "middleware": [Middleware(Door, hosts=frozenset({_HOST, "localhost"}))],
                "docs_url": None, "redoc_url": None, "openapi_url": None,
            },
        )  # fmt: skip
        if ready is not None:
            ready(address.rstrip("/"))
        while True:
            time.sleep(3600)
    finally:
        blocks.close(verbose=False)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
