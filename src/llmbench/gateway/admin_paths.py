"""What answers on the paths of the admin API (`gateway.admin` says which those are, and where)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench.errors import LlmbenchError
from llmbench.gateway.reload_plan import ReloadPlan
from llmbench.gateway.server import Gateway
from llmbench.gateway.traffic import Control
from llmbench.recipe import Guardrails, RolloutSpec, ServeRecipe, Variant

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["app"]

T = TypeVar("T")
S = TypeVar("S", bound="BaseModel")


def app(gateway: Gateway, reread: Callable[[], ServeRecipe]) -> Starlette:
    """The application.

    Args:
        gateway: what is steered.
        reread: the serving document as it is now.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route

    deployment = gateway.deployment

    async def done(work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(gateway.ask(work))

    async def show(_: Request) -> Response:
        told = {"base_url": gateway.base_url, "engine": gateway.state, "engines": gateway.engines}
        return JSONResponse(told | {"variants": deployment.listing(), "shadows": deployment.routes.shadowed()})

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

    async def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": {"message": str(error)}}, 400)

    return Starlette(
        routes=[
            Route("/variants", show, methods=["GET"]),
            Route("/metrics", count, methods=["GET"]),
            Route("/variants", add, methods=["POST"]),
            Route("/variants/{name}", remove, methods=["DELETE"]),
            Route("/reload", reload, methods=["POST"]),
            *_traffic(gateway, done),
        ],
        exception_handlers={LlmbenchError: refuse},
    )


def _traffic(gateway: Gateway, done: Callable[[Callable[[], Any]], Awaitable[Any]]) -> list[Route]:
    """The paths of routes and rollouts. `done` has a change done by whoever attends to the gateway."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def rollouts() -> Control:
        if gateway.rollouts is None:
            raise LlmbenchError("This server has no rollouts")
        return gateway.rollouts

    async def routes(_: Request) -> Response:
        rows = [
            route.card() | route.spec.model_dump(mode="json", include={"rollout", "guardrails"})
            for route in gateway.deployment.routes.now.values()
        ]
        return JSONResponse({"routes": rows, "shadows": gateway.deployment.routes.shadowed()})

    async def list_rollouts(_: Request) -> Response:
        return JSONResponse({"rollouts": rollouts().listing()})

    async def show_rollout(request: Request) -> Response:
        name = request.path_params["name"]
        shadows = [row for row in gateway.deployment.routes.shadowed() if row["route"] == name]
        return JSONResponse(await asyncio.to_thread(rollouts().status, name) | {"shadows": shadows})

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

    return [
        Route("/routes", routes, methods=["GET"]),
        Route("/rollouts", list_rollouts, methods=["GET"]),
        Route("/rollouts", start, methods=["POST"]),
        Route("/rollouts/{name}", show_rollout, methods=["GET"]),
        Route("/rollouts/{name}/{verb}", change, methods=["POST"]),
    ]


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
