"""Documents: search the index of a pipeline, see the hits with their scores and each passage on its page or in its text."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import gradio as gr

from llmbench import assets, recipe, retrieval, workspace
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Chunk, Hit, Retriever

from . import render
from .conversation import Passage
from .hits import hit_list, words_of
from .settings import Settings
from .sheets import Look, sheet
from .widgets import HANDLER, html

__all__ = ["DRAWING", "Shelf", "build", "indexed", "pipelines"]

_TOP_K = 8
_OTHER = "This index holds a different version of {} than the endpoint used."
_CLICK = """
element.addEventListener('click', (event) => {
  const hit = event.target.closest('[data-hit]');
  if (!hit) return;
  // On a narrow page the passage lies under the list: the hit that is shown already draws nothing and must lead there too.
  if (innerWidth <= 760) document.querySelector('.page-view')?.scrollIntoView({ block: 'start', behavior: 'smooth' });
  trigger('click', { hit: Number(hit.dataset.hit) });
});
"""
_SHOW = """
element.addEventListener('click', (event) => {
  const to = event.target.closest('[data-look], [data-number]');
  if (to) trigger('click', to.dataset.look ? { look: to.dataset.look } : { number: Number(to.dataset.number) });
});
watch('value', () => {
  const mark = element.querySelector('mark.hit, .marks > i.hit');
  if (!mark) return;
  const box = mark.closest('.text, .desk');
  box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
});
"""
DRAWING: dict[str, Any] = HANDLER | {"concurrency_limit": 2, "concurrency_id": "pages"}
"""How events are wired that draw pages, each of which takes a process of its own."""
Hits = tuple[str, list[Hit], str]
"""The pipeline that was searched, what was found, and the query; an empty query for the passages of an answer."""
_NOTHING: Hits = ("", [], "")


def build(tab: gr.Tab, settings: Settings) -> Shelf:
    """Lays the page out in the current tab and wires it; gives what shows a passage that was found elsewhere."""
    found = gr.State(_NOTHING)
    look = gr.State(Look())
    with gr.Row(elem_classes="finder"):
        pipeline = gr.Dropdown(
            [], label="Pipeline", show_label=False, container=False, elem_classes="picker", elem_id="pipeline", scale=0,
            min_width=220,
        )  # fmt: skip
        query = gr.Textbox(
            placeholder="Search documents", show_label=False, label="Search", container=False, elem_id="query", scale=1,
            min_width=160,
        )  # fmt: skip
        search = gr.Button("Search", variant="primary", elem_id="search", min_width=0, scale=0)
        index = gr.Button("Index now", elem_id="index", min_width=0, scale=0, visible=False)
    with gr.Row(elem_classes="split found"):
        with gr.Column(elem_classes="list", scale=0, min_width=280):
            hits = html("", "hits", js_on_load=_CLICK)
        with gr.Column(elem_classes="detail", min_width=280):
            view = html("", "page-view", js_on_load=_SHOW)
    on = Shelf(settings, _Desk(), pipeline, query, index, hits, view, found, look)
    outputs = on.outputs
    tab.select(on.offer, [pipeline, found], pipeline, **HANDLER).then(on.start, [pipeline, found], outputs, **HANDLER)
    pipeline.input(on.start, [pipeline, found], outputs, **HANDLER)
    gr.on([query.submit, search.click], on.look_up, [pipeline, query, look], outputs, **DRAWING)
    hits.click(on.pick, [found, look], [hits, view, look], **DRAWING, trigger_mode="always_last")
    view.click(on.turn, [found, look], [hits, view, look], **DRAWING, trigger_mode="always_last")
    index.click(on.index_now, pipeline, outputs, **HANDLER, concurrency_limit=1)
    return on


@dataclass(frozen=True)
class Shelf:
    """The components that the handlers write, and the handlers. One that has nothing to say says so: Gradio empties the
    outputs of a generator that yields nothing.
    """

    settings: Settings
    desk: _Desk
    pipeline: gr.Dropdown
    query: gr.Textbox
    index: gr.Button
    hits: gr.HTML
    view: gr.HTML
    found: gr.State
    look: gr.State

    @property
    def outputs(self) -> list[Any]:
        """Everything that the handlers write."""
        return [self.pipeline, self.query, self.index, self.hits, self.view, self.found, self.look]

    def offer(self, chosen: str | None, before: Hits) -> dict[Any, Any]:
        """The pipelines there are, and the one that was searched, or chosen, before."""
        chosen = before[0] or chosen  # the event of a link's opening the tab still carries what was chosen before it
        choices = pipelines(self.settings.pipeline)
        paths = [path for _, path in choices]
        kept = chosen if chosen in paths else next(iter(paths), None)
        return {self.pipeline: gr.Dropdown(choices=choices, value=kept)}

    def start(self, chosen: str | None, before: Hits) -> Iterator[dict[Any, Any]]:
        """Opens the index of a pipeline; what was found in it before stays."""
        if (before[1] or before[2]) and before[0] == chosen:
            yield {self.look: gr.skip()}
            return
        if not chosen:
            yield {
                self.hits: render.empty(
                    "No pipelines", "Add a pipeline to rag/, or start with one:", command="llmbench app --pipeline FILE"
                )
            }
            return
        yield {
            self.hits: render.notice("Opening the index.", "info"),
            self.view: "",
            self.index: gr.Button(visible=False),
            self.found: _NOTHING,
        }
        try:
            retriever = self.desk.retriever(chosen)
            count, complete = len(retriever.sources()), retriever.complete
        except LlmbenchError as error:
            yield self.unready(error)
            return
        title = f"Search {count:,} document{'s' if count != 1 else ''}"
        more = "" if complete else "The index is incomplete: indexing is still running or was interrupted."
        yield {self.hits: render.empty(title, more), self.index: gr.Button(visible=not complete)}

    def look_up(self, chosen: str | None, text: str | None, before: Look) -> Iterator[dict[Any, Any]]:
        """Searches."""
        if not chosen or not (text or "").strip():
            yield {self.look: gr.skip()}
            return
        try:
            query = str(text).strip()
            result: Hits = (chosen, self.desk.retriever(chosen).search(query, _TOP_K), query)
        except LlmbenchError as error:
            yield self.unready(error)
            return
        yield {self.found: result, self.index: gr.Button(visible=False)}
        yield from self.show(result, Look(as_text=before.as_text))

    def show(self, result: Hits, look: Look) -> Iterator[dict[Any, Any]]:
        """The list at once, and the page when it is drawn."""
        chosen, listed, query = result
        if not 0 <= look.position < len(listed):
            yield {self.hits: render.empty("Nothing found", self._why(chosen)), self.view: ""}
            return
        yield {self.hits: hit_list(listed, look.position, query=query, address=self.address(result, look)), self.look: look}
        try:
            retriever = self.desk.retriever(chosen)
            document = retriever.document(listed[look.position].chunk.source)
        except LlmbenchError as error:
            yield {self.view: render.notice(str(error))}
            return
        yield {self.view: sheet(retriever.recipe, document, listed, look, words=words_of(query))}

    def address(self, result: Hits, look: Look) -> str:
        """What leads back here: the pipeline's name, the query and the hit; empty where nothing was searched."""
        labels = {path: label for label, path in pipelines(self.settings.pipeline)}
        chosen, _, query = result
        if not query or chosen not in labels:
            return ""
        return "/".join(quote(part, safe="") for part in (labels[chosen], query, str(look.position + 1)))

    def go(self, label: str, query: str, position: Sequence[str]) -> Iterator[dict[Any, Any]]:
        """Shows what an address names."""
        paths = dict(pipelines(self.settings.pipeline))
        if label not in paths:
            first = next(iter(paths.values()), "")
            said: Hits = (first, [], query)  # as if it had been searched: the tab that opens leaves it as it is
            shown = {self.pipeline: gr.Dropdown(choices=list(paths.items()), value=first or None), self.query: query}
            yield shown | {self.hits: render.notice(f"No pipeline {label} here."), self.view: "", self.found: said}
            return
        path = paths[label]
        at = int(position[0]) - 1 if position and position[0].isdecimal() else 0
        choices = list(paths.items())
        shown = {self.pipeline: gr.Dropdown(choices=choices, value=path), self.query: query}
        yield shown | {self.hits: render.notice("Opening the index.", "info"), self.found: (path, [], query)}
        try:
            result: Hits = (path, self.desk.retriever(path).search(query, _TOP_K), query)
        except LlmbenchError as error:
            yield self.unready(error)
            return
        yield {self.found: result, self.index: gr.Button(visible=False)}
        yield from self.show(result, Look(position=at if 0 <= at < len(result[1]) else 0))

    def _why(self, chosen: str) -> str:
        """Why a search may have found nothing: the pipeline's filter asks for what no document has."""
        try:
            return " ".join(self.desk.retriever(chosen).unmet()) or "No matching passages."
        except LlmbenchError as error:
            return str(error)

    def pick(self, result: Hits, look: Look, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        """Shows another hit."""
        position = _told(event, "hit")
        yield {self.look: gr.skip()}
        if isinstance(position, int):
            yield from self.show(result, Look(position, look.as_text))

    def turn(self, result: Hits, look: Look, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        """To the page or to the text, or to another page."""
        number, name = _told(event, "number"), _told(event, "look")
        yield {self.look: gr.skip()}
        if isinstance(number, int):
            yield from self.show(result, replace(look, number=number))
        elif name in ("page", "text"):
            yield from self.show(result, replace(look, as_text=name == "text"))

    def open(self, path: str, passages: Sequence[Passage], n: int) -> Iterator[dict[Any, Any]]:
        """Shows passage number `n` of an answer, with the answer's others beside it."""
        told = [passage for passage in passages if passage.span is not None]
        position = next((i for i, passage in enumerate(told) if passage.n == n), None)
        if position is None:
            yield {self.look: gr.skip()}
            return
        result: Hits = (path, [_hit(passage) for passage in told], "")
        yield {
            self.pipeline: gr.Dropdown(choices=pipelines(self.settings.pipeline), value=path),
            self.index: gr.Button(visible=False),
            self.hits: hit_list(result[1], position),
            self.view: render.notice("Opening the index.", "info"),
            self.found: result,
        }
        chunk = result[1][position].chunk
        try:
            text = self.desk.retriever(path).document(chunk.source).text[chunk.start : chunk.end]
        except LlmbenchError as error:
            yield {self.view: render.notice(str(error))}
            return
        if text.split() != chunk.text.split():
            yield {self.view: render.notice(_OTHER.format(chunk.source), "info")}
            return
        yield from self.show(result, Look(position))

    def index_now(self, chosen: str | None) -> Iterator[dict[Any, Any]]:
        """Builds the index of a pipeline."""
        if not chosen:
            yield {self.look: gr.skip()}
            return
        yield {self.index: gr.Button(interactive=False)}
        try:
            for line in self.desk.index(chosen):
                yield {self.hits: render.notice(line, "info")}
        except LlmbenchError as error:
            yield self.unready(error) | {self.index: gr.Button(interactive=True)}
            return
        yield {self.index: gr.Button(interactive=True)}
        yield from self.start(chosen, _NOTHING)

    def unready(self, error: LlmbenchError) -> dict[Any, Any]:
        """Why there is nothing to search."""
        missing = isinstance(error, IndexError_)
        message = render.empty("Not indexed yet", str(error)) if missing else render.notice(str(error))
        return {self.hits: message, self.view: "", self.index: gr.Button(visible=missing), self.found: _NOTHING}


def _hit(passage: Passage) -> Hit:
    """A passage that an endpoint sent, as if it had been found here."""
    assert passage.span is not None
    chunk = Chunk("", passage.source, passage.title, passage.text, *passage.span, passage.page, None)
    return Hit(chunk, passage.score or 0.0, passage.n, kind=cast(Any, passage.kind or "score"))


def _told(event: gr.EventData, name: str) -> Any:
    """What the browser sent, which may be anything."""
    return event._data.get(name) if isinstance(event._data, dict) else None


class _Desk:
    """The open retrievers, shared by every browser: an embedder is loaded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Retriever] = {}

    def retriever(self, path: str) -> Retriever:
        """The retriever of a pipeline, opened when it is first asked for."""
        with self._lock:
            if path not in self._open:
                self._open[path] = Retriever.open(recipe.load(path, RagRecipe))
            return self._open[path]

    def index(self, path: str) -> Iterator[str]:
        """Builds the index, and says about five times a second how far it is."""
        last = "Reading the documents."

        def tell(done: int, total: int, source: str) -> None:
            nonlocal last
            last = f"{done:,} of {total:,} documents: {source}"

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="index") as thread:
            work = thread.submit(retrieval.build, recipe.load(path, RagRecipe), progress=tell)
            while not work.done():
                yield last
                wait([work], timeout=0.2)
            work.result()


def pipelines(first: Path | None = None) -> list[tuple[str, str]]:
    """Label and file of every RAG pipeline there is: the one asked for, then those of the working directory and the bundled.

    Those with an index stand before those without.
    """
    here = sorted((Path.cwd() / "rag").glob("*.yaml"))
    bundled = [assets.bundle() / name for name in assets.documents() if name.startswith("rag/")]
    found: dict[Path, str] = {}
    for path in [*([first] if first else []), *here, *bundled]:
        try:
            found.setdefault(path.resolve(), recipe.load(path, RagRecipe).name)
        except LlmbenchError:
            continue

    def place(path: Path) -> tuple[bool, bool]:
        return first is None or path != first.resolve(), not (workspace.indexes() / found[path]).is_dir()

    names = list(found.values())
    return [
        (f"{found[path]} ({path})" if names.count(found[path]) > 1 else found[path], str(path))
        for path in sorted(found, key=place)
    ]


def indexed(first: Path | None = None) -> dict[str, str]:
    """The file of each RAG pipeline that has an index here, by name."""
    return {name: path for name, path in pipelines(first) if (workspace.indexes() / name).is_dir()}
