"""`llmbench chat`: a conversation with one variant, in the terminal or from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import EndpointError, LlmbenchError
from llmbench.shown import legible

if TYPE_CHECKING:
    from llmbench.endpoint import Endpoint, HttpEndpoint, Message, Reply

__all__ = ["register"]

_TAG = 20
"""Characters that may still turn out to be the tag of a reasoning."""


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command(epilog='Examples: `llmbench chat` · `echo "How long is the warranty?" | llmbench chat tuned-rag`')(chat)


def chat(
    variant: Annotated[
        str | None,
        typer.Argument(
            metavar="VARIANT",
            help="The variant to talk to, by its name at the endpoint; the first one if omitted.",
            autocompletion=completion.variants,
        ),
    ] = None,
    url: Annotated[str, typer.Option("--url", help="An OpenAI-compatible endpoint.")] = "http://127.0.0.1:8000/v1",
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Maximum answer length, in tokens.")] = None,
    as_json: Json = False,
) -> None:
    """Talk to a variant: each line is a question, and the conversation so far is sent with it.

    /reset clears the conversation, /quit or Ctrl-D ends it, Ctrl-C stops an answer. Piped input is one question per line.

    Exit code 0: ended; 2: an error, such as an endpoint that does not answer; 130: Ctrl-C at the prompt.
    """
    from llmbench.endpoint import HttpEndpoint

    turns: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        endpoint = HttpEndpoint(url, api_key=os.environ.get("OPENAI_API_KEY"))
        try:
            model = runner.run(_chosen(endpoint, variant))
            if sys.stdin.isatty():
                print(f"{legible(model)} at {url}. /reset clears the conversation, /quit ends it.", file=sys.stderr)
            opening: list[Message] = [{"role": "system", "content": system}] if system else []
            history = list(opening)
            for question in _questions():
                if question == "/reset":
                    history = list(opening)
                    continue
                history.append({"role": "user", "content": question})
                said = _Answer(show=not as_json)
                try:
                    runner.run(said.take(endpoint, history, model, max_tokens))
                except KeyboardInterrupt:
                    print("\nStopped.", file=sys.stderr)
                except EndpointError as error:
                    if not sys.stdin.isatty():
                        raise
                    print(legible(str(error)), file=sys.stderr)
                if not said.text.strip():
                    history.pop()
                    continue
                history.append({"role": "assistant", "content": said.text})
                turns.append({"question": question, "answer": said.text} | said.figures)
        finally:
            runner.run(endpoint.__aexit__())
            if as_json and turns:
                print_json({"url": url, "model": model, "turns": turns})


async def _chosen(endpoint: HttpEndpoint, variant: str | None) -> str:
    offered = await endpoint.models()
    if variant is None and offered:
        return offered[0]
    if variant is None or variant not in offered:
        what = f"has no model {variant}" if variant is not None else "offers no models"
        raise EndpointError(f"{endpoint.base_url} {what}. Available: {', '.join(offered) or 'none'}.", status=404)
    return variant


def _questions() -> Iterator[str]:
    """What is typed or piped in, line by line, until it ends or says so.

    Raises:
        LlmbenchError: it is no UTF-8.
    """
    typed = sys.stdin.isatty()
    if typed:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() takes its line editing and history)
    while True:
        try:
            line = input("> ") if typed else sys.stdin.readline()
        except EOFError:
            print()
            return
        except UnicodeDecodeError as error:
            raise LlmbenchError(
                "Standard input is not UTF-8. Convert it, for example with: iconv -f latin1 -t utf-8"
            ) from error
        if not typed and not line:
            return
        match line.strip():
            case "":
                continue
            case "/quit" | "/exit":
                return
            case question:
                yield question


class _Answer:
    """One answer as it comes: printed without its reasoning, then its sources."""

    def __init__(self, *, show: bool) -> None:
        self.text = ""
        """The answer without its reasoning, as far as it came."""
        self.figures: dict[str, Any] = {}
        self._show = show

    async def take(self, endpoint: Endpoint, history: list[Message], model: str, max_tokens: int | None) -> None:
        """Asks, prints the answer while it is written, and keeps it."""
        from llmbench.reasoning import reasoning_apart

        came = ""
        async for delta in endpoint.stream(history, model, max_tokens=max_tokens):
            came += delta.text
            if delta.reply is None and len(came) < _TAG and came.lstrip()[:1] in ("<", "["):
                continue
            self._grow(reasoning_apart(came)[1] if delta.reply is None else delta.reply.text)
            if delta.reply is not None:
                self._end(delta.reply)

    def _grow(self, text: str) -> None:
        new = text[len(self.text) :] if text.startswith(self.text) else f"\n{text}"
        if self._show:
            print(legible(new), end="", flush=True)
        self.text = text

    def _end(self, reply: Reply) -> None:
        self.figures = {
            "sources": reply.sources, "finish_reason": reply.finish_reason, "latency": reply.latency,
            "first_token": reply.first_token, "completion_tokens": reply.completion_tokens,
        }  # fmt: skip
        if not self._show:
            return
        print("" if reply.text.strip() else "The answer is empty.")
        for source in reply.sources:
            place = f" page {source['page']}" if source.get("page") else ""
            print(legible(f"  [{source.get('n')}] {source.get('source')}{place}  {source.get('title') or ''}".rstrip()))
        if reply.finish_reason == "length":
            print("Cut off at the token limit.", file=sys.stderr)
