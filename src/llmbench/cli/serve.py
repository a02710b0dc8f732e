"""`llmbench serve`: vLLM with the base and the adapters, and the OpenAI-compatible endpoint in front of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Overrides

if TYPE_CHECKING:
    from llmbench.engine import Progress
    from llmbench.gateway import Gateway
    from llmbench.recipe import ServeRecipe

_HELP = """Serve the variants of RECIPE as models of an OpenAI-compatible endpoint.

Shows the loading progress, then the models, the URL and example requests. Ctrl-C or SIGTERM stops it and every process
it started; answers in progress get gateway.shutdown_timeout seconds to finish.

Exit code 0: stopped with SIGTERM; 2: it could not start, or vLLM ended; 130: stopped with Ctrl-C.
"""


class _Told(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the way of a supervisor, or of a closed terminal, to say Ctrl-C."""


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command(help=_HELP, epilog="Example: `llmbench serve recipes/serve.yaml gateway.port=8001`")(serve)


def serve(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A serving recipe, such as recipes/serve.yaml.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    port: Annotated[
        int | None, typer.Option(help="Short for gateway.port=PORT; 0 picks a free one.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the vLLM command and start nothing.")] = False,
) -> None:
    """Loads the document, serves until Ctrl-C or until vLLM ends."""
    from llmbench.recipe import ServeRecipe, load

    values = list(overrides or ()) + ([f"gateway.port={port}"] if port is not None else [])
    document = load(recipe, ServeRecipe, values)
    if dry_run:
        print(_command(document))
        return
    _serve(document)


def _command(document: ServeRecipe) -> str:
    """What `serve` would run, as one line for a shell."""
    import shlex

    from llmbench.engine import admit_all, command, inspect

    found = inspect(document.engine.python)
    socket = Path("/tmp/llmbench/vllm.sock")  # noqa: S108 - stands for the fresh private folder that each start makes
    adapters = admit_all(document)
    for adapter in adapters.values():
        if adapter.note:
            print(f"Note: {adapter.note}", file=sys.stderr)
    return shlex.join(command(document, adapters, socket, python=found.python, device=found.device))


def _serve(document: ServeRecipe) -> None:
    import time

    from llmbench.gateway import started

    begun = time.monotonic()
    with suppress(_Told), _signals(), _showing() as (progress, log), started(document, progress=progress, log=log) as gateway:
        progress(None)
        _introduce(gateway, document, time.monotonic() - begun)
        while True:
            time.sleep(0.5)
            gateway.engine.check()


@contextmanager
def _signals() -> Iterator[None]:
    """Ends the block in order at SIGTERM and SIGHUP too, unless they are ignored, as under nohup."""
    import signal

    def told(*_: object) -> None:
        raise _Told

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _showing() -> Iterator[tuple[Callable[[Progress | None], None], Callable[[str], None]]]:
    """How far the start is: one line that changes on a terminal, a line for each phase elsewhere; None ends it."""
    from rich.console import Console

    console = Console(stderr=True)
    last = ""

    def plain(state: Progress | None) -> None:
        nonlocal last
        if state is not None and state.phase != last:
            last = state.phase
            console.print(f"{state.seconds:5.1f} s  {state.phase}", highlight=False)

    if not sys.stderr.isatty():
        yield plain, lambda line: console.print(line, highlight=False, soft_wrap=True)
        return
    with console.status("Starting vLLM") as status:

        def live(state: Progress | None) -> None:
            if state is None:
                status.stop()
            else:
                status.update(f"Starting vLLM: {state.phase} ({state.seconds:.0f} s)")

        yield live, lambda line: console.print(line, highlight=False, soft_wrap=True, style="dim")


def _introduce(gateway: Gateway, document: ServeRecipe, seconds: float) -> None:
    """What is served, where, and how to ask it."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("model", "adapter", "documents", "description", box=None, pad_edge=False, header_style="bold")
    for served in gateway.models:
        adapter, rag = served.card["adapter"], served.card["rag"]
        table.add_row(served.variant.name, adapter["name"] if adapter else "-", rag or "-", served.card["description"])
    console.print()
    console.print(table)
    key = document.gateway.api_key is not None or document.gateway.keys is not False
    name = gateway.models[-1].variant.name
    header = ' -H "Authorization: Bearer $OPENAI_API_KEY"' if key else ""
    console.print(f"\nReady after {seconds:.0f} s at [bold]{gateway.base_url}[/bold]. Ctrl-C stops it.\n", highlight=False)
    print(
        f"""curl -s {gateway.base_url}/chat/completions{header} -H 'Content-Type: application/json' \\
  -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{gateway.base_url}"{"" if key else ', api_key="none"'})
reply = client.chat.completions.create(model="{name}", messages=[{{"role": "user", "content": "Hello!"}}])
print(reply.choices[0].message.content)
""",
        flush=True,
    )
