"""The port and the thread that answers on it: taken before anything slow starts, and given up in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llmbench.errors import EngineError, RecipeError
from llmbench.gateway.limit import Open
from llmbench.gateway.relay import Upstream
from llmbench.recipe import GatewaySpec, ServeRecipe

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["LOCAL", "answering", "base_url", "hosts", "listener_of", "most_answers"]

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_CUT = 2
"""Seconds for the errors of answers that are cut off to reach their clients."""
_BACKLOG = 2048
_DESCRIPTORS = 65_536
_SPARE_DESCRIPTORS = 256
"""Files that are open for other things than answers, of which each takes two."""


@contextmanager
def listener_of(recipe: ServeRecipe) -> Iterator[socket.socket]:
    """Takes the port before anything slow starts, and keeps it; it listens only once there is something to answer."""
    spec = recipe.gateway
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            _bind(listener, spec.host, spec.port)
        except OSError as error:
            raise RecipeError(_no_port(recipe, spec, error)) from error
        yield listener


def _bind(listener: socket.socket, host: str, port: int) -> None:
    """Binds, also where only the last connections of an earlier server still linger.

    Linux lets two sockets have one port when both say SO_REUSEADDR and none of them listens. So it is said for the moment of
    binding only, and again when the socket begins to listen (`_listen`): its connections inherit it, and the next server can
    have the port while they linger.
    """
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _listen(listener: socket.socket, recipe: ServeRecipe) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise RecipeError(_no_port(recipe, recipe.gateway, error)) from error


def base_url(host: str, port: int) -> str:
    """The base URL by which this machine reaches a server that listens there."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what to ask, not where to listen
    return f"http://[{name}]:{port}/v1" if ":" in name else f"http://{name}:{port}/v1"


def hosts(spec: GatewaySpec) -> frozenset[str] | None:
    """The names that this server answers to; None is every name."""
    if spec.host not in LOCAL and not spec.allowed_hosts:
        return None
    return LOCAL | {spec.host.lower()} | {name.lower() for name in spec.allowed_hosts}


def most_answers() -> int:
    """How many answers may be open at once by the limit on open files, which is raised first; a shell's 1,024 are 384."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return (most - _SPARE_DESCRIPTORS) // 2


def _no_port(recipe: ServeRecipe, spec: GatewaySpec, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{recipe.source}: port {spec.port} is in use. Choose another: gateway.port={spec.port + 1} (0 takes a free one)"
    return (
        f"{recipe.source}: cannot listen on {spec.host} port {spec.port} ({error.strerror}). Set gateway.host or gateway.port"
    )


@contextmanager
def answering(
    app: Starlette,
    listener: socket.socket,
    recipe: ServeRecipe,
    upstream: Upstream,
    open: Open,
    log: Callable[[str], None] | None,
    patience: Callable[[], float] | None = None,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Answers requests from a thread until the block ends, and what is running then for as long as the recipe says.

    `patience` says in the end how many seconds those are; None is what the recipe says. The block is given the thread's loop.
    """
    import uvicorn

    from llmbench.gateway.connection import Connection

    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,  # seconds; longer than clients keep theirs (httpx: 5), so that none asks a closing connection
    )
    server = uvicorn.Server(config)
    _listen(listener, recipe)
    loop: Future[asyncio.AbstractEventLoop] = Future()

    async def serve() -> None:
        loop.set_result(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    def work() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work, name="gateway", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise EngineError("The gateway did not start; see the lines above.")
            time.sleep(0.01)
        yield loop.result()
    finally:
        seconds = patience() if patience is not None else recipe.gateway.shutdown_timeout
        config.timeout_graceful_shutdown = math.ceil(seconds) + _CUT
        server.should_exit = True  # stops listening, closes what is idle, waits for the rest
        if open.count and log is not None:
            log(f"Stopping: waiting up to {seconds:g} s for {open.count} running answers. Ctrl-C cuts them off.")
        with suppress(KeyboardInterrupt):
            thread.join(seconds if open.count else 0.1)
        logger = logging.getLogger("uvicorn.error")
        logger.disabled = True  # answers that are cut off now are no errors to report
        if thread.is_alive():
            cut = upstream.cut("The server was stopped before this answer was complete.")
            try:
                asyncio.run_coroutine_threadsafe(cut, loop.result())
            except RuntimeError:  # the last answer has ended this moment, and the loop with it
                cut.close()
        thread.join(_CUT + 5)
        server.force_exit = True
        thread.join(5)
        logger.disabled = False
