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
from llmbench.gateway.deployment import ReloadPlan
from llmbench.gateway.server import Gateway
from llmbench.gateway.traffic import Control
from llmbench.recipe import Guardrails, RolloutSpec, ServeRecipe, Variant

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

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
            _app(gateway, reread),
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


def _app(gateway: Gateway, reread: Callable[[], ServeRecipe]) -> Starlette:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    deployment = gateway.deployment

    async def done(work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(gateway.ask(work))

    async def show(_: Request) -> Response:
        return JSONResponse({"base_url": gateway.base_url, "engine": gateway.state, "variants": deployment.listing()})

    async def count(_: Request) -> Response:
        return PlainTextResponse(await asyncio.to_thread(gateway.metrics), media_type="text/plain; version=0.0.4")

    async def add(request: Request) -> Response:
        variant = _variant(await _json(request))
        served = await done(lambda: deployment.add(variant))
        return JSONResponse(next(row for row in deployment.listing() if row["name"] == served.variant.name))

    async def remove(request: Request) -> Response:
        drain = request.query_params.get("drain")
        seconds = _seconds(drain) if drain is not None else None
        cut = await done(lambda: deployment.remove(request.path_params["name"], drain=seconds))
        return JSONResponse({"cut": cut})

    async def reload(request: Request) -> Response:
        dry = (await _json(request)).get("dry_run") is True

        def work() -> ReloadPlan:
            return deployment.plan(reread()) if dry else deployment.reload(reread())

        plan = await done(work)
        return JSONResponse(plan.as_json() | {"complete": plan.complete})

    def rollouts() -> Control:
        if gateway.rollouts is None:
            raise LlmbenchError("This server has no rollouts")
        return gateway.rollouts

    async def routes(_: Request) -> Response:
        rows = [
            route.card() | route.spec.model_dump(mode="json", include={"rollout", "guardrails"})
            for route in deployment.routes.now.values()
        ]
        return JSONResponse({"routes": rows})

    async def list_rollouts(_: Request) -> Response:
        return JSONResponse({"rollouts": rollouts().listing()})

    async def show_rollout(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(rollouts().status, request.path_params["name"]))

    async def start(request: Request) -> Response:
        body = await _json(request)
        route, canary = body.get("route"), body.get("canary")
        if not isinstance(route, str) or not isinstance(canary, str):
            raise LlmbenchError("A rollout needs a route and a canary, both names")
        given, rails = body.get("rollout"), body.get("guardrails")
        spec = _section(RolloutSpec, "rollout", given) if given is not None else None
        margins = _section(Guardrails, "guardrails", rails) if rails is not None else None
        return JSONResponse(await done(lambda: rollouts().start(route, canary, rollout=spec, guardrails=margins)))

    async def change(request: Request) -> Response:
        name, verb = request.path_params["name"], request.path_params["verb"]
        verbs = {"pause": rollouts().pause, "resume": rollouts().resume, "abort": rollouts().abort}
        if verb not in verbs:
            raise LlmbenchError(f"A rollout can be paused, resumed and aborted, not {verb!r:.40}")
        return JSONResponse(await asyncio.to_thread(verbs[verb], name))  # at once, whatever change is being made meanwhile

    async def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": {"message": str(error)}}, 400)

    return Starlette(
        routes=[
            Route("/variants", show, methods=["GET"]),
            Route("/metrics", count, methods=["GET"]),
            Route("/variants", add, methods=["POST"]),
            Route("/variants/{name}", remove, methods=["DELETE"]),
            Route("/reload", reload, methods=["POST"]),
            Route("/routes", routes, methods=["GET"]),
            Route("/rollouts", list_rollouts, methods=["GET"]),
            Route("/rollouts", start, methods=["POST"]),
            Route("/rollouts/{name}", show_rollout, methods=["GET"]),
            Route("/rollouts/{name}/{verb}", change, methods=["POST"]),
        ],
        exception_handlers={LlmbenchError: refuse},
    )


async def _json(request: Request) -> dict[str, Any]:
    raw = await request.body()
    try:
        value = await request.json() if raw else {}
    except ValueError as error:
        raise LlmbenchError(f"The body is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise LlmbenchError("The body must be a JSON object")
    return value


def _variant(values: dict[str, Any]) -> Variant:
    return _section(Variant, "", values)


def _section(kind: type[S], above: str, values: object) -> S:
    """A section of a document, from values.

    Raises:
        LlmbenchError: with its first fault.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        place, message = _fault(error, above)
        raise LlmbenchError(f"{place}: {message}" if place else message) from None


def _fault(error: ValidationError, above: str) -> tuple[str, str]:
    first = error.errors()[0]
    return ".".join(map(str, [*([above] if above else []), *first["loc"]])), first["msg"].removeprefix("Value error, ")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise LlmbenchError(f"drain must be seconds from 0 on, not {text!r:.40}")
    return seconds
