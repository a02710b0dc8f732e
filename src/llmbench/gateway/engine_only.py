"""vLLM alone on a port, for a gateway elsewhere that serves the same document."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmbench.engine import Address, Engine, Progress, admit_all, parsers
from llmbench.errors import RecipeError
from llmbench.gateway.keeper import Keeper
from llmbench.gateway.listening import LOCAL
from llmbench.recipe import ServeRecipe

__all__ = ["engine_started", "listen_address"]


def listen_address(recipe: ServeRecipe, listen: str) -> Address:
    """Where vLLM is to listen, and the key that it asks for.

    Args:
        recipe: the serving document.
        listen: `HOST:PORT`.

    Raises:
        RecipeError: it is something else; other machines would reach an engine that asks for no key; the port is in use.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RecipeError(f"--listen takes HOST:PORT, such as 127.0.0.1:8001, not {listen!r:.60}")
    key = recipe.engine.api_key
    if host not in LOCAL and key is None:
        raise RecipeError(f"{recipe.source}: engine: {host} is reachable from other machines: set engine.api_key")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as error:
        raise RecipeError(
            f"{recipe.source}: vLLM cannot listen on {listen} ({error.strerror}). Choose another --listen"
        ) from error
    return Address(host, int(port), key=key)


@contextmanager
def engine_started(
    recipe: ServeRecipe,
    listen: Address,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[Keeper]:
    """Runs vLLM inside the block as the document wants it; what is given looks after it.

    The gateway proves the adapters before it sends a request, after each start anew.

    Raises:
        MissingPackage, EngineError: vLLM or an adapter is not fit.
    """
    say = log or (lambda _: None)
    adapters = admit_all(recipe)
    with Engine(recipe, adapters, listen=listen) as engine:
        say(f"The engine's log: {engine.log}")
        if reading := parsers(recipe).said():
            say(reading)
        engine.wait(progress)
        for note in [adapter.note for adapter in adapters.values() if adapter.note] + engine.notes:
            say(f"Note: {note}")
        yield Keeper(
            engine, most=lambda: recipe.engine.restarts, hold=lambda _: None, prove=lambda: None, say=say
        )  # fmt: skip
