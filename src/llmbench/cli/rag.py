"""`llmbench search` and `llmbench ask`: a question to passages, and to an answer with its sources."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli.arguments import Json, Overrides, Pipeline
from llmbench.cli.terminal import print_json
from llmbench.errors import EndpointError, LlmbenchError
from llmbench.shown import legible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.text import Text

    from llmbench.endpoint import HttpEndpoint, Message, Reply
    from llmbench.recipe import RagRecipe
    from llmbench.retrieval import Retriever

__all__ = ["register"]

Where = Annotated[
    str | None,
    typer.Option("--where", help='Search only documents that match a filter, such as \'{"kind": "pdf"}\'.', metavar="JSON"),
]
_KINDS = {"dense": "cosine", "terms": "BM25", "fused": "fused", "rerank": "reranked"}
"""What a score is, by the stage that gave it."""


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command("search", epilog='Example: `llmbench search rag/handbook.yaml "How long is the warranty?"`')(search)
    cli.command("ask", epilog='Example: `llmbench ask rag/handbook.yaml "How long is the warranty?" --model base`')(ask)


def search(
    pipeline: Pipeline,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to search for.")],
    overrides: Overrides = None,
    top_k: Annotated[
        int | None, typer.Option("-k", "--top-k", min=1, max=1000, help="Number of passages; the pipeline's by default.")
    ] = None,
    where: Where = None,
    explained: Annotated[
        bool, typer.Option("--explain", help="Explain each passage's rank, and show how long each stage took.")
    ] = False,
    show: Annotated[
        Path | None,
        typer.Option("--show", help="Write the PDF pages, with the passages marked, to this folder as PNG.", metavar="FOLDER"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the best-matching passages and where they are."""
    recipe = _load(pipeline, overrides)
    condition = _where(where)
    if show is not None and show.exists() and not show.is_dir():
        raise LlmbenchError(f"--show {show} is a file. Name a folder; it is created if needed.")
    from llmbench.cli import pictures
    from llmbench.retrieval import Retriever, Timings, doubt

    with _status("Loading the embedder"):
        retriever = Retriever.open(recipe)
    with retriever:
        timings = Timings()
        hits = retriever.search(query, top_k, where=condition, timings=timings)
        reasons = [retriever.explain(query, hit) for hit in hits] if explained else []
        boxes = pictures.boxes(retriever, hits) if as_json else {}
        shown = pictures.written(retriever, hits, show) if show is not None else {}
        _warn(recipe, retriever)
    if as_json:
        found = [
            hit.source()
            | ({"boxes": boxes[i]} if i in boxes else {})
            | ({"pictures": [str(path) for path in shown[i]]} if i in shown else {})
            | ({"explanation": reasons[i].splitlines()} if explained else {})
            for i, hit in enumerate(hits)
        ]
        seconds = {stage: round(value, 5) for stage, value in timings.seconds.items()}
        notes = [*timings.notes, *filter(None, [doubt(hits)])]
        print_json({"pipeline": recipe.name, "query": query, "hits": found, "seconds": seconds, "notes": notes})
        return
    from llmbench.shown import printable

    console = _console()
    if not hits:
        console.print(f"Nothing found in {recipe.name}.")
    if doubt(hits):
        console.print(doubt(hits), style="yellow", markup=False)
    for i, hit in enumerate(hits):
        console.print(_headline(hit.source(), f"{hit.score:.3f} {_KINDS[hit.kind]}"))
        if hit.chunk.head:
            console.print(f"    {printable(hit.chunk.head)}", style="dim", markup=False)
        console.print(_snippet(hit.chunk.text, query))
        for path in shown.get(i, ()):
            console.print(f"    {path}", style="cyan", markup=False)
        if explained:
            console.print(textwrap.indent(reasons[i], "    "), style="dim", markup=False)
    for note in timings.notes:
        print(note, file=sys.stderr)
    if explained:
        told = ", ".join(f"{stage} {value * 1000:.1f}" for stage, value in timings.seconds.items())
        print(f"milliseconds: {told}", file=sys.stderr)


def ask(
    pipeline: Pipeline,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The variant to ask, by its name at the endpoint.")],
    overrides: Overrides = None,
    where: Where = None,
    url: Annotated[str, typer.Option("--url", help="An OpenAI-compatible endpoint.")] = "http://127.0.0.1:8000/v1",
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Maximum answer length, in tokens.")] = None,
    as_json: Json = False,
) -> None:
    """Answer a question from the documents, then list the sources and check the citations.

    A variant with its own pipeline uses that one; any other model gets this pipeline's passages.

    Exit code 0: answered; 2: an error, such as an endpoint that does not answer.
    """
    recipe = _load(pipeline, overrides)
    condition = _where(where)
    import asyncio

    from llmbench.endpoint import HttpEndpoint
    from llmbench.retrieval import check_citations

    async def run() -> Reply:
        async with HttpEndpoint(url, api_key=os.environ.get("OPENAI_API_KEY")) as endpoint:
            return await _answer(recipe, endpoint, question, model, max_tokens, condition, show=not as_json)

    reply = asyncio.run(run())
    citations = check_citations(reply.text, reply.sources)
    if as_json:
        figures = {"latency": reply.latency, "first_token": reply.first_token, "completion_tokens": reply.completion_tokens}
        checked = {"valid": citations.valid, "invalid": citations.invalid}
        answer = {"answer": reply.text, "sources": reply.sources, "citations": checked}
        print_json({"pipeline": recipe.name, "question": question, "model": model, **answer, **figures})
        return
    console = _console()
    console.print("\n")
    if not reply.sources:
        console.print(
            "The answer is not based on any passage: none was found, or none fits into the model's context.",
            style="bold red",
            markup=False,
        )
    for source in reply.sources:
        mark = "cited" if source["n"] in citations.valid else ""
        console.print(_headline(source, mark, span=True))
    if reply.sources and not citations.valid and not citations.invalid:
        console.print("The answer cites none of these passages.", style="yellow", markup=False)
    if citations.invalid:
        wrong = ", ".join(f"[{n}]" for n in citations.invalid)
        console.print(f"The answer cites {wrong}, but there is no such passage.", style="bold red", markup=False)


async def _answer(
    recipe: RagRecipe,
    endpoint: HttpEndpoint,
    question: str,
    model: str,
    max_tokens: int | None,
    where: dict[str, Any] | None,
    *,
    show: bool,
) -> Reply:
    """Streams the answer to the terminal and returns it whole."""
    from llmbench import retrieval

    listed = {entry["id"]: entry for entry in await endpoint.listing()}
    if model not in listed:
        raise EndpointError(f"{endpoint.base_url} has no model {model}. Available: {', '.join(listed) or 'none'}.", status=404)
    messages: list[Message] = [{"role": "user", "content": question}]
    if listed[model].get("rag"):
        if where is not None:
            raise LlmbenchError(f"--where: {model} has its own pipeline, which takes no filter. Ask a variant without `rag`.")
        stream = endpoint.stream(messages, model, max_tokens=max_tokens)
    else:
        with _status("Loading the embedder"):
            retriever = retrieval.Retriever.open(recipe)
        _warn(recipe, retriever)
        for line in retriever.unmet(where):
            print(line, file=sys.stderr)
        stream = retrieval.ask(retriever, endpoint, messages, model, max_tokens=max_tokens, where=where)
    try:
        async for delta in stream:
            if show and delta.text:
                print(legible(delta.text), end="", flush=True)
            if delta.reply is not None:
                return delta.reply
    except EndpointError as error:
        if error.status == 400 and "context length" in str(error) and not listed[model].get("rag"):
            advice = (
                "Use fewer passages: add context.max_tokens=600, or ask a variant with `rag`, which fits them automatically."
            )
            raise EndpointError(f"{error} {advice}", status=400) from error
        raise
    raise EndpointError(f"{endpoint.base_url} ended the answer early. See the server's log.")


def _load(pipeline: str, overrides: list[str] | None) -> RagRecipe:
    from llmbench import recipe
    from llmbench.recipe import RagRecipe

    return recipe.load(pipeline, RagRecipe, overrides or [])


def _warn(recipe: RagRecipe, retriever: Retriever) -> None:
    from llmbench import workspace

    if not retriever.complete:
        if workspace.held(workspace.indexes() / recipe.name):
            told = "a process is writing it."
        else:
            told = f"its build was interrupted. Run: llmbench index build {recipe.source}"
        print(f"Index {recipe.name} is not complete: {told}", file=sys.stderr)
    if retriever.warning:
        print(retriever.warning, file=sys.stderr)


def _where(text: str | None) -> dict[str, Any] | None:
    """A filter from the command line."""
    if text is None:
        return None
    try:
        words = json.loads(text)
    except ValueError as error:
        raise LlmbenchError(f'--where is not JSON ({error}). Write it like \'{{"kind": "pdf"}}\'.') from error
    if not isinstance(words, dict):
        raise LlmbenchError(f'--where is {text}, not a mapping of fields. Write it like \'{{"kind": "pdf"}}\'.')
    return words


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _status(what: str) -> AbstractContextManager[object]:
    from rich.console import Console

    return Console(stderr=True).status(f"{what} ...")


def _headline(source: dict[str, Any], extra: str, *, span: bool = False) -> Text:
    """`[1] 0.655  products/elwa-speaker.md:3  Elwa speaker`."""
    from rich.text import Text

    from llmbench.shown import printable

    line = Text(f"[{source['n']}] ", style="bold")
    if extra:
        line.append(f"{extra}  ", style="green")
    line.append(printable(_place(source)), style="cyan")
    if span:
        line.append(f" characters {source['start']}-{source['end']}", style="dim")
    return line.append(f"  {printable(source['title'])}", style="bold")


def _place(source: dict[str, Any]) -> str:
    """`file.md:3`, `report.pdf page 7`, or the file alone."""
    if source.get("page"):
        return f"{source['source']} page {source['page']}"
    return f"{source['source']}:{source['line']}" if source.get("line") else str(source["source"])


def _snippet(text: str, query: str, width: int = 320) -> Text:
    """The stretch of a passage that holds most of the query's words, which are made bold."""
    import re

    from rich.text import Text

    flat = " ".join(text.split())
    words = {word for word in re.findall(r"\w+", query.lower()) if len(word) > 3} or set(re.findall(r"\w+", query.lower()))
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, sorted(words))) + r")\w*", re.IGNORECASE) if words else None
    places = [match.start() for match in pattern.finditer(flat)] if pattern else []
    start = _densest(places, width, len(flat))
    shown = flat[start : start + width]
    line = Text("    " + ("... " if start else "") + shown + (" ..." if start + width < len(flat) else ""))
    if pattern:
        line.highlight_regex(pattern, style="bold yellow")
    return line


def _densest(places: Sequence[int], width: int, length: int) -> int:
    """Where a window of `width` begins that holds most of the places; 0 when the text fits."""
    if length <= width or not places:
        return 0
    best = max(places, key=lambda place: sum(place <= other < place + width - 40 for other in places))
    return max(min(best - 40, length - width), 0)
