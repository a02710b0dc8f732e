"""The web application: three paths, and everything else is 404.

GET  /health               is the engine there? (needs no key)
GET  /v1/models            the variants
POST /v1/chat/completions  ask one of them, streamed or not
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench.errors import IndexError_, LlmbenchError
from llmbench.gateway import chat, relay
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.guard import Guard
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.room import Room
from llmbench.recipe import Variant

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Served", "build"]

_BODY_TIMEOUT = 30.0
T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A variant as it is served. `engine_name` is what vLLM calls its model, `card` what /v1/models says beside its name."""

    variant: Variant
    engine_name: str
    card: dict[str, Any]
    grounding: Grounding | None = None


def build(
    models: Sequence[Served],
    upstream: relay.Upstream,
    *,
    context: int,
    api_key: str | None = None,
    hosts: frozenset[str] | None = None,
) -> Starlette:
    """The application over variants.

    Args:
        models: the variants.
        upstream: where vLLM answers.
        context: tokens that the base takes.
        api_key: what clients must send, if anything.
        hosts: names that a request may call this server by; None allows any.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    created = int(time.time())
    known = {served.variant.name: served for served in models}
    cards = [
        {"id": name, "object": "model", "created": created, "owned_by": "llmbench", "max_model_len": context, **served.card}
        for name, served in known.items()
    ]

    async def list_models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": cards})

    async def health(_: Request) -> Response:
        await upstream.health()
        return JSONResponse({"status": "ok", "models": list(known)})

    async def ask(request: Request) -> Response:
        wanted = chat.parse(await _body(request), context=context)
        served = known.get(wanted.model)
        if served is None:
            message = f"The model {wanted.model!r:.100} does not exist. There are: {', '.join(known)}."
            raise Refusal(404, message, param="model", code="model_not_found")
        return await _unless_gone(request, _answer(served, wanted, upstream, context))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()

    app = Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/chat/completions", ask, methods=["POST"]),
        ],
        middleware=[Middleware(partial(Guard, api_key=api_key, hosts=hosts))],
        exception_handlers={Refusal: _refuse, HTTPException: _no_such_path, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _no_such_path(request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    status = error.status_code if isinstance(error, HTTPException) else 404
    return Refusal(status, f"There is no {request.method} {request.scope['path']!r:.100} here.", code="not_found").response()


async def _failed(_: Request, error: Exception) -> Response:
    return Refusal(500, f"The gateway failed ({type(error).__name__}). Its log says more.").response()


async def _body(request: Request) -> bytes:
    """The body, up to its limit in bytes and seconds. JSON only: a web page cannot send that across origins unasked."""
    import anyio
    from starlette.requests import ClientDisconnect

    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "Send the request as application/json.")
    body = bytearray()
    try:
        with anyio.fail_after(_BODY_TIMEOUT):
            async for piece in request.stream():
                body += piece
                if len(body) > chat.MAX_BODY:
                    raise Refusal(413, f"The request is larger than {chat.MAX_BODY:,} bytes.")
    except TimeoutError:
        raise Refusal(408, f"The request did not arrive within {_BODY_TIMEOUT:.0f} s.") from None
    except ClientDisconnect:
        raise Refusal(499, "The client went away.") from None
    return bytes(body)


async def _answer(served: Served, wanted: chat.ChatRequest, upstream: relay.Upstream, context: int) -> Response:
    """Grounds the conversation if the variant is a RAG one, asks vLLM, and answers under the variant's name."""
    from starlette.responses import JSONResponse

    from llmbench.gateway.stream import EventStream

    messages, sources, variant = wanted.messages, None, served.variant
    fields = chat.with_defaults(wanted.fields, variant.sampling)
    if served.grounding is not None:
        room = Room(
            upstream, served.engine_name, context=context, answer=fields.get("max_completion_tokens") or fields["max_tokens"],
            prepared=lambda given: chat.with_system(given, variant.system), tools=fields.get("tools"),
        )  # fmt: skip
        try:
            grounded = await served.grounding.ground(messages, room)
        except IndexError_ as error:
            raise Refusal(503, str(error), code="retrieval_unavailable") from error
        except LlmbenchError as error:
            raise Refusal(400, str(error), param="messages") from error
        messages, sources = list(grounded.messages), list(grounded.sources)
    body = fields | {
        "model": served.engine_name,
        "messages": chat.with_system(messages, variant.system),
        "stream": wanted.stream,
    }
    response = await upstream.chat(body)
    if wanted.stream:
        pieces = relay.events(response, upstream, engine_name=served.engine_name, name=variant.name, sources=sources)
        return EventStream(pieces, response)
    data = await upstream.read(response)
    return JSONResponse(data | {"model": variant.name} | ({} if sources is None else {"sources": sources}))


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Does the work, but drops it (and with it the request to vLLM) when the client goes away meanwhile."""
    import anyio

    result: list[T] = []
    problem: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result.append(await work)
        except Exception as error:
            problem.append(error)
        group.cancel_scope.cancel()
    if problem:
        raise problem[0]
    if not result:
        raise Refusal(499, "The client went away.")
    return result[0]
