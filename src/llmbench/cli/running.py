"""The way of a verb to a running `llmbench serve`: its options, and a request on the admin socket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmbench.cli import completion, terminal
from llmbench.errors import LlmbenchError

__all__ = ["Recipe", "Socket", "ask", "at", "show_shadows"]

Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE",
        help="The document of the server, where several are running.",
        show_default=False,
        autocompletion=completion.recipes,
    ),
]
Socket = Annotated[
    Path | None, typer.Option(metavar="PATH", help="The server's admin socket, in outputs/serving.", show_default=False)
]


def at(recipe: str | None, socket: Path | None) -> Path:
    """The admin socket of the server that is meant.

    Raises:
        LlmbenchError: none is running, or several are.
    """
    from llmbench.gateway import admin

    if recipe is not None and socket is not None:
        raise LlmbenchError("Name the server with --recipe or with --socket, not with both")
    return socket if socket is not None else admin.find(recipe)


def ask(socket: Path, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a running server answers to a request on its admin socket.

    Raises:
        LlmbenchError: nobody answers there, or the request was refused.
    """
    import httpx

    from llmbench.gateway import admin

    gone = f"No server answers at {socket}. Start one: llmbench serve recipes/serve.yaml"
    if not socket.is_socket():
        raise LlmbenchError(gone)
    try:
        with (
            admin.reachable(socket.absolute()) as short,
            httpx.Client(transport=httpx.HTTPTransport(uds=short), timeout=httpx.Timeout(None, connect=5.0)) as client,
        ):
            response = client.request(method, f"http://admin{path}", json=body)
    except httpx.ConnectError as error:
        raise LlmbenchError(gone) from error
    except httpx.HTTPError as error:
        raise LlmbenchError(
            f"The server at {socket} ended before it answered ({type(error).__name__}). Look: llmbench variants list"
        ) from error
    try:
        told: dict[str, Any] = response.json()
        if response.is_success:
            return told
        raise LlmbenchError(str(told["error"]["message"]))
    except (ValueError, KeyError, TypeError) as error:
        raise LlmbenchError(f"The server at {socket} answers {response.status_code}. Its log says more") from error


def show_shadows(shadows: Iterable[Mapping[str, Any]]) -> None:
    """Prints what became of the questions for shadows, below what was printed before; nothing where no route has one."""
    rows = [
        [
            row["variant"],
            row["route"],
            *(f"{row[one]:,}" for one in ("answered", "failed", "cut_off")),
            f"{row['busy'] + row['full']:,}",
        ]
        for row in shadows
    ]
    if rows:
        print()
        terminal.listing(
            [["shadow", "route", "answered", "failed", "cut off", "not asked"], *rows], shrink=(0, 1), right=(2, 3, 4, 5)
        )
