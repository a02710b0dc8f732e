"""`llmbench serve`: vLLM with the base and the adapters, and the OpenAI-compatible endpoint in front of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Overrides
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.containers.needs import Device
    from llmbench.engine import Progress
    from llmbench.gateway import Gateway
    from llmbench.recipe import ServeRecipe

_HELP = """Serve the variants of RECIPE as models of an OpenAI-compatible endpoint.

Shows the loading progress, then the models, the URL and example requests. Ctrl-C or SIGTERM stops it and every process
it started; answers in progress get gateway.shutdown_timeout seconds to finish. SIGHUP reads RECIPE again and serves what
it says now, as `llmbench variants reload` does.

With `engine.urls` no vLLM is started: the gateway spreads the requests over those engines. `--engine-only` starts one of
them, on a port and with RECIPE's adapters, and no gateway.

Exit code 0: stopped with SIGTERM, or its terminal was closed; 2: it could not start, or vLLM ended more often than
engine.restarts; 130: stopped with Ctrl-C.
"""


_LISTEN = "127.0.0.1:8001"


class _Told(KeyboardInterrupt):
    """SIGTERM, or a terminal that was closed: another way to say Ctrl-C."""


class _Hangup:
    """Whether SIGHUP came. No `threading.Event`: its lock may be held by the very thread that handles the signal."""

    came = False


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
    engine_only: Annotated[
        bool, typer.Option("--engine-only", help="Start vLLM alone, for a gateway whose engine.urls name it.")
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="With --engine-only: where. Default: 127.0.0.1:8001.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the vLLM command and start nothing.")] = False,
    emit: Annotated[
        Literal["compose", "kubernetes"] | None,
        typer.Option(help="Print a Compose file or Kubernetes manifests that serve RECIPE; start nothing.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="With --emit: the image. Default: llmbench:cpu, or llmbench:cuda.", show_default=False),
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(help="With --emit: what the container computes on. Default: as this machine does.", show_default=False),
    ] = None,
    engines: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --emit: N vLLMs in containers of their own, instead of engine.urls.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Loads the document, serves until Ctrl-C or until vLLM ends."""
    from llmbench.recipe import ServeRecipe, load

    values = list(overrides or ()) + ([f"gateway.port={port}"] if port is not None else [])
    document = load(recipe, ServeRecipe, values)
    if emit is None and (image or device or engines):
        raise LlmbenchError("--image, --device and --engines go with --emit compose or --emit kubernetes")
    if emit is not None and dry_run:
        raise LlmbenchError("--emit and --dry-run both print and start nothing. Choose one")
    if listen is not None and not engine_only:
        raise LlmbenchError("--listen goes with --engine-only. The gateway's address is gateway.host and gateway.port")
    if emit is not None and engine_only:
        raise LlmbenchError("--emit writes a whole server. For engines in containers of their own, add --engines N")
    if emit is not None:
        print(_emitted(document, values, emit, image, device, engines or 0), end="")
        return
    if dry_run:
        print(_command(document, (listen or _LISTEN) if engine_only else None))
        return
    if engine_only:
        _serve_engine(document, listen or _LISTEN)
        return
    _serve(document, lambda: load(recipe, ServeRecipe, values))


def _emitted(
    document: ServeRecipe, values: list[str], emit: str, image: str | None, device: Device | None, engines: int
) -> str:
    """The Compose file or the manifests."""
    from llmbench import containers
    from llmbench.engine import inspect

    on: Device
    if device is not None or (document.engine.urls and not engines):
        on = device or "cpu"  # the engines have the GPUs
    else:
        on = "cuda" if document.model.device == "cuda" else inspect(document.engine.python).device
    found = containers.needs(document, values, image=image, device=on, engines=engines)
    return containers.compose(found) if emit == "compose" else containers.kubernetes(found)


def _command(document: ServeRecipe, listen: str | None) -> str:
    """What `serve` would run, as one line for a shell."""
    import shlex

    from llmbench.engine import Place, admit_all, command, inspect, onnx_command, parsers
    from llmbench.gateway import listen_address

    at: Place = Path("/tmp/llmbench/vllm.sock")  # noqa: S108 - stands for the fresh private folder that each start makes
    if listen is not None:
        at = listen_address(document, listen)
        if at.key is not None:
            print("Note: vLLM reads the key from VLLM_API_KEY.", file=sys.stderr)
    elif document.engine.urls:
        raise LlmbenchError(
            f"{document.source}: no vLLM is started here, as the engines run at {', '.join(document.engine.urls)}. "
            "For the command that starts one, add --engine-only"
        )
    if document.engine.backend == "onnx":
        return shlex.join(onnx_command(document, at))
    found = inspect(document.engine.python)
    adapters = admit_all(document)
    for adapter in adapters.values():
        if adapter.note:
            print(f"Note: {adapter.note}", file=sys.stderr)
    return shlex.join(command(document, adapters, at, python=found.python, device=found.device, parsers=parsers(document)))


def _serve(document: ServeRecipe, reread: Callable[[], ServeRecipe]) -> None:
    import time

    from llmbench.gateway import admin, started

    begun, hangup = time.monotonic(), _Hangup()
    with (
        suppress(_Told),
        _signals(hangup),
        _showing() as (progress, log),
        started(document, progress=progress, log=log) as gateway,
        admin.offered(gateway, reread) as socket,
    ):
        progress(None)
        _introduce(gateway, document, time.monotonic() - begun)
        log(f"Change what is served: llmbench variants (socket {socket})")
        while True:
            if hangup.came:
                hangup.came = False
                gateway.ask(lambda: _reload(gateway, reread, log))
            gateway.attend(0.5)


def _serve_engine(document: ServeRecipe, listen: str) -> None:
    """vLLM alone, until Ctrl-C or until it has ended too often."""
    import time

    from llmbench.gateway import engine_started, listen_address

    at = listen_address(document, listen)
    with (
        suppress(_Told),
        _signals(_Hangup()),
        _showing() as (progress, log),
        engine_started(document, at, progress=progress, log=log) as keeper,
    ):
        progress(None)
        print(f"vLLM answers at {at.url}. Ctrl-C stops it. Name it in engine.urls of the gateway's document.", flush=True)
        while True:
            keeper.look()
            time.sleep(0.5)


def _reload(gateway: Gateway, reread: Callable[[], ServeRecipe], log: Callable[[str], None]) -> None:
    """Serves what the document says now, and says what that changed."""
    try:
        plan = gateway.deployment.reload(reread())
    except LlmbenchError as error:
        log(f"Not reloaded: {error}")
        return
    added, changed = (*plan.added, *plan.routes_added, *plan.engines_added), (*plan.changed, *plan.routes_changed)
    removed = (*plan.removed, *plan.routes_removed, *plan.engines_removed)
    log(f"Reloaded: {len(added)} added, {len(changed)} changed, {len(removed)} removed")
    for url, why in plan.engines_waiting.items():
        log(f"Engine {url} joins when it answers: {why}")
    for field in plan.restart:
        log(f"Not applied, as it needs a new start: {field}")
    for name, why in plan.refused.items():
        log(f"Not applied: {name}: {why}")


@contextmanager
def _signals(hangup: _Hangup) -> Iterator[None]:
    """Ends the block in order at SIGTERM too, and at the SIGHUP of a terminal that is closed; another SIGHUP is noted.

    What is ignored stays so, as SIGHUP under nohup.
    """
    import signal

    terminals = [number for number in range(3) if os.isatty(number)]

    def ended(*_: object) -> None:
        raise _Told

    def hung_up(*_: object) -> None:
        if not all(os.isatty(number) for number in terminals):
            raise _Told
        hangup.came = True

    handlers = {signal.SIGTERM: ended, signal.SIGHUP: hung_up}
    before = {number: signal.getsignal(number) for number in handlers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handlers[number])
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
    for card in (route.card() for route in gateway.deployment.routes.now.values()):
        table.add_row(card["id"], "-", "-", card["description"])
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
