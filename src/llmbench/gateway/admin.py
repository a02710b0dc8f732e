"""The admin API of a running server, on a Unix socket in a folder that only this user can enter.

GET    /variants        what is served, and how the engine is
GET    /metrics         counts for Prometheus
POST   /variants        one more: {"name": "mine", "adapter": "my-run", "rag": "/path/pages.yaml", "system": "Be brief."}
DELETE /variants/NAME   serves it no longer; ?drain=SECONDS for its answers to end
POST   /reload          what the document says now; {"dry_run": true} only tells what that changes
GET    /routes          the routes, with how their requests are divided now
GET    /rollouts        the present or last rollout of each route
GET    /rollouts/ROUTE  one of them, with its guard-rails and decisions
POST   /rollouts        a new one: {"route": "support", "canary": "mine", "rollout": {...}, "guardrails": {...}}
POST   /rollouts/ROUTE/pause, /resume, /abort

    LLMBENCH_HOME/serving/STEM-HASH-PROCESS.sock      HASH is the document's, so that its server is found by it
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench import assets, workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.admin_paths import app
from llmbench.gateway.server import Gateway
from llmbench.recipe import ServeRecipe

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["find", "offered", "reachable"]

_LONGEST = 100
"""Bytes of a socket's path; Linux takes 107."""
_SECONDS = 5.0
T = TypeVar("T")
S = TypeVar("S", bound="BaseModel")


def find(recipe: str | None = None) -> Path:
    """The socket of the server that is running: the one, or the one of a document.

    Raises:
        LlmbenchError: there is none, or there are several.
    """
    folder = workspace.home() / "serving"
    which = (
        f"{workspace.short_name(assets.origin(assets.named(recipe, Path.cwd()) or Path(recipe)))}-*"
        if recipe is not None
        else "*"
    )
    found = [path for path in sorted(folder.glob(f"{which}.sock")) if _answers(path)]
    if not found:
        what = f"of {recipe}" if recipe is not None else f"with its outputs in {workspace.home()}"
        raise LlmbenchError(f"No server {what} is running. Start one: llmbench serve {recipe or 'recipes/serve.yaml'}")
    if len(found) > 1:
        listed = ", ".join(str(path) for path in found)
        raise LlmbenchError(f"{len(found)} servers are running. Name one: --socket PATH, of {listed}")
    return found[0]


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A spelling of a socket's path that is short enough for one, while the block runs."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextmanager
def offered(gateway: Gateway, reread: Callable[[], ServeRecipe]) -> Iterator[Path]:
    """Answers on a new socket, which it gives, until the block ends. Changes are done by whoever attends to the gateway.

    Args:
        gateway: the running server.
        reread: the serving document as it is now.

    Raises:
        LlmbenchError: the socket cannot be made.
    """
    import uvicorn

    path = _place(gateway.deployment.recipe)
    with _listener(path) as listener:
        config = uvicorn.Config(
            app(gateway, reread),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=_run, args=(server, listener), name="admin", daemon=True)
        thread.start()
        try:
            yield path
        finally:
            server.should_exit = True
            thread.join(_SECONDS)


def _run(server: Any, listener: socket.socket) -> None:
    with asyncio.Runner() as runner:
        runner.run(server.serve(sockets=[listener]))


def _place(recipe: ServeRecipe) -> Path:
    """A free place in the folder of sockets; those that nobody answers on any more are removed."""
    folder = workspace.home() / "serving"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for path in folder.glob("*.sock"):
            if path.is_socket() and not _answers(path):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise LlmbenchError(f"{folder}: no socket can be made there ({error.strerror}). Set LLMBENCH_HOME") from error
    name = f"{workspace.short_name(recipe.origin)}-{os.getpid()}"
    path, number = folder / f"{name}.sock", 2
    while path.exists():  # of another machine's or container's process with this number
        path, number = folder / f"{name}-{number}.sock", number + 1
    return path


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, reachable(path) as short:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(short)
        except OSError:
            return False
        return True


@contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            new = path.with_suffix(".new")  # one that is found answers
            new.unlink(missing_ok=True)
            with reachable(new) as short:
                listener.bind(short)
            new.chmod(0o600)  # nobody else reached it before: the folder is closed to others
            listener.listen()
            new.rename(path)
        except OSError as error:
            raise LlmbenchError(f"{path}: no socket can be made there ({error.strerror}). Set LLMBENCH_HOME") from error
        try:
            yield listener
        finally:
            with suppress(OSError):
                path.unlink()
