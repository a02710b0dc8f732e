"""The web application: these paths, and everything else is 404.

GET  /health               is the engine there? (needs no key)
GET  /v1/models            the variants
GET  /v1/models/NAME       one of them
POST /v1/chat/completions  ask one of them, streamed or not
POST /v1/completions       let its model continue a text, or score one
POST /tokenize             the tokens of a text
GET  /metrics              counts for Prometheus
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench import control_tokens
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.gateway import body as body_of
from llmbench.gateway import chat, completions, relay
from llmbench.gateway.charge import Quota
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.guard import Guard
from llmbench.gateway.keys import Keyring
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Limit, Open
from llmbench.gateway.meter import Meter
from llmbench.gateway.metrics import Metrics
from llmbench.gateway.refusal import Refusal, as_json
from llmbench.gateway.room import Room
from llmbench.gateway.words import Words
from llmbench.message import Message
from llmbench.recipe import Variant

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Served", "build"]

_BODY_TIMEOUT = 30.0
_MANY = 2048
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/health", "/metrics")
_NOT_HERE = {
    "/v1/responses": "This server has no Responses API. Ask /v1/chat/completions",
    "/v1/messages": "This server has no Messages API. Ask /v1/chat/completions",
    "/v1/embeddings": "This server's models write text. `llmbench index` and `llmbench search` embed",
    "/v1/rerank": "This server's models write text. `llmbench search` reranks where its pipeline says so",
    "/v1/score": "This server's models write text. `llmbench search` reranks where its pipeline says so",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A variant as it is served. `engine_name` is what vLLM calls its model, `card` what /v1/models says beside its name."""

    variant: Variant
    engine_name: str
    card: dict[str, Any]
    grounding: Grounding | None = None
    stops: tuple[int, ...] = ()
    """Tokens at which its answers end, besides those of the base."""

    def ends(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What asks the engine to stop there, unless the client asked it not to stop."""
        return {"stop_token_ids": list(self.stops)} if self.stops and not fields.get("ignore_eos") else {}


def build(
    models: Sequence[Served],
    upstream: relay.Upstream,
    *,
    context: int,
    api_key: str | None = None,
    hosts: frozenset[str] | None = None,
    open: Open | None = None,
    words: Words | None = None,
    ledger: Ledger | None = None,
) -> Starlette:
    """The application over variants.

    Args:
        models: the variants.
        upstream: where vLLM answers.
        context: tokens that the base takes.
        api_key: what clients must send, if anything.
        hosts: names that a request may call this server by; None allows any.
        open: counts the questions that are being answered, and bounds them.
        words: how the model's control tokens are kept out of what clients and documents say; None knows the usual ones.
        ledger: named keys that clients may send as well, with what they have spent.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    metrics = Metrics()
    paths = _Paths(models, upstream, context, words or Words(control_tokens.of_unknown()), metrics)
    keyring = Keyring(lambda: ledger.keys, ledger.clock) if ledger is not None else None
    charged = [Middleware(partial(Quota, ledger=ledger, metrics=metrics))] if ledger is not None else []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()
        if keyring is not None:
            keyring.close()

    app = Starlette(
        routes=[
            Route("/health", paths.health, methods=["GET"]),
            Route("/metrics", paths.count, methods=["GET"]),
            Route("/v1/models", paths.list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", paths.show_model, methods=["GET"]),
            Route("/v1/chat/completions", paths.ask, methods=["POST"]),
            Route("/v1/completions", paths.complete, methods=["POST"]),
            Route("/tokenize", paths.tokenize, methods=["POST"]),
        ],
        middleware=[
            Middleware(partial(Guard, api_key=api_key, hosts=hosts, keyring=keyring)),
            *charged,
            Middleware(partial(Limit, open=open or Open(_MANY), metrics=metrics)),
        ],
        exception_handlers={Refusal: _refuse, HTTPException: _no_such_path, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Paths:
    """What answers on each path, over the variants."""

    def __init__(
        self, models: Sequence[Served], upstream: relay.Upstream, context: int, words: Words, metrics: Metrics
    ) -> None:
        created = int(time.time())
        self._known = {served.variant.name: served for served in models}
        self._cards = {
            name: {"id": name, "object": "model", "created": created, "owned_by": "llmbench", "max_model_len": context}
            | served.card
            for name, served in self._known.items()
        }
        self._upstream = upstream
        self._context = context
        self._words = words
        self._metrics = metrics

    async def list_models(self, request: Request) -> Response:
        return as_json({"object": "list", "data": [self._cards[name] for name in self._known_to(request)]})

    async def show_model(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException

        if not request.path_params["name"]:
            raise HTTPException(404)
        return as_json(self._cards[self._wanted(request.path_params["name"], request).variant.name])

    async def health(self, request: Request) -> Response:
        await self._upstream.health()
        return as_json({"status": "ok"} | ({"models": list(self._known_to(request))} if request.state.has_key else {}))

    async def count(self, _: Request) -> Response:
        from starlette.responses import Response

        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def ask(self, request: Request) -> Response:
        question = chat.parse(await _body(request), context=self._context)
        served, meter = self._wanted(question.model, request), self._meter(question.model, request)
        work = _answer(served, question, self._upstream, self._context, self._words, meter)
        return await _unless_gone(request, work)

    async def complete(self, request: Request) -> Response:
        question = completions.parse(await _body(request), context=self._context)
        served, meter = self._wanted(question.model, request), self._meter(question.model, request)
        return await _unless_gone(request, _complete(served, question, self._upstream, meter))

    async def tokenize(self, request: Request) -> Response:
        body = body_of.read(await _body(request))
        name, text = body.get("model"), body.get("prompt")
        if not isinstance(name, str) or not isinstance(text, str):
            raise Refusal(400, "/tokenize takes a model and a prompt, both texts.", param="prompt")
        asked = {"model": self._wanted(name, request).engine_name, "prompt": text}
        for key in ("add_special_tokens", "return_token_strs"):
            if body.get(key) is not None:
                body_of.check_type(key, body[key], "true or false")
                asked[key] = body[key]
        return as_json(await self._upstream.read(await self._upstream.ask("/tokenize", asked)))

    def _wanted(self, name: str, request: Request) -> Served:
        known = self._known_to(request)
        if name not in known:
            message = f"The model {name!r:.100} does not exist. Available: {', '.join(known)}."
            raise Refusal(404, message, param="model", code="model_not_found")
        request.state.model = name
        return known[name]

    def _known_to(self, request: Request) -> dict[str, Served]:
        """The variants that exist for the request's key."""
        key = request.scope["state"].get("key")
        if key is None or key.models is None:
            return self._known
        return {name: served for name, served in self._known.items() if key.may_ask(name)}

    def _meter(self, name: str, request: Request) -> Meter:
        return Meter(self._metrics, name, request.scope["state"], self._context)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _no_such_path(request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    path: str = request.scope["path"]
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path:.100} takes {allowed}, not {request.method}."
        return Refusal(405, message, code="method_not_allowed", allow=allowed).response()
    plain = "/" + path.strip("/").removeprefix("v1/").removeprefix("v1/")
    meant = next((known for known in _PATHS if known.removeprefix("/v1") == plain and known != path), None)
    hint = _NOT_HERE.get(path) or (f"Did you mean {meant}? The base URL ends in /v1" if meant else "")
    message = f"There is no {request.method} {path!r:.100} here.{' ' + hint + '.' if hint else ''}"
    return Refusal(404, message, code="not_found").response()


async def _failed(_: Request, error: Exception) -> Response:
    return Refusal(500, f"The gateway failed ({type(error).__name__}). See its log.").response()


async def _body(request: Request) -> bytes:
    """The body, up to its limit in bytes and seconds. JSON only: a web page cannot send that across origins unasked."""
    import anyio
    from starlette.requests import ClientDisconnect

    kind, _, rest = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise Refusal(415, "Send the request as application/json.")
    charset = rest.replace(" ", "").partition("charset=")[2].partition(";")[0].strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Refusal(415, f"Send the request as UTF-8, not as {charset!r:.40}.")
    packed = request.headers.get("content-encoding", "identity").lower()
    if packed not in ("", "identity"):
        raise Refusal(415, f"The body is compressed ({packed!r:.40}). Send it as it is, without Content-Encoding.")
    if int(request.headers.get("content-length", "0")) > chat.MAX_BODY:
        raise Refusal(413, f"The request is larger than {chat.MAX_BODY:,} bytes.")
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
        raise Refusal(499, "The client disconnected.") from None
    return bytes(body)


async def _answer(
    served: Served,
    wanted: chat.ChatRequest,
    upstream: relay.Upstream,
    context: int,
    words: Words,
    meter: Meter,
) -> Response:
    """Grounds the conversation if the variant is a RAG one, asks vLLM, and answers under the variant's name."""
    from llmbench.gateway.stream import EventStream

    messages, sources, variant = wanted.messages, None, served.variant
    words.refuse_endless(messages, context)
    fields = words.apart_in(chat.with_defaults(wanted.fields, variant.sampling))

    def prepared(given: list[Message]) -> list[Message]:
        return chat.with_system(words.apart(given), variant.system)

    if served.grounding is not None:
        room = Room(
            upstream, served.engine_name, context=context, answer=fields.get("max_completion_tokens") or fields["max_tokens"],
            prepared=prepared, fields=fields,
        )  # fmt: skip
        await room.refuse_too_long(messages)
        try:
            grounded = await served.grounding.ground(messages, room)
        except IndexError_ as error:
            raise Refusal(503, str(error), code="retrieval_unavailable") from error
        except LlmbenchError as error:
            raise Refusal(400, str(error), param="messages") from error
        messages, sources = list(grounded.messages), list(grounded.sources)
    body = fields | {
        "model": served.engine_name,
        "messages": prepared(messages),
        "stream": wanted.stream,
        **served.ends(fields),
    }
    response = await meter.ask(upstream, "/v1/chat/completions", body)
    if wanted.stream:
        pieces = relay.events(
            response, upstream, engine_name=served.engine_name, name=variant.name, sources=sources, used=meter.used,
            hide_usage=meter.hides_usage,
        )  # fmt: skip
        return EventStream(pieces, response)
    data = await upstream.read(response)
    meter.used(data.get("usage"))
    return as_json(data | {"model": variant.name} | ({} if sources is None else {"sources": sources}))


async def _complete(served: Served, wanted: completions.CompletionRequest, upstream: relay.Upstream, meter: Meter) -> Response:
    """Asks vLLM to continue a text, and answers under the variant's name."""
    from llmbench.gateway.stream import EventStream

    completions.refuse_conversational(served.variant, grounded=served.grounding is not None)
    fields = chat.with_defaults(wanted.fields, served.variant.sampling)
    body = fields | {"model": served.engine_name, "prompt": wanted.prompt, "stream": wanted.stream, **served.ends(fields)}
    response = await meter.ask(upstream, "/v1/completions", body)
    if wanted.stream:
        pieces = relay.events(
            response, upstream, engine_name=served.engine_name, name=served.variant.name, sources=None, used=meter.used,
            hide_usage=meter.hides_usage,
        )  # fmt: skip
        return EventStream(pieces, response)
    data = await upstream.read(response)
    meter.used(data.get("usage"))
    return as_json(data | {"model": served.variant.name})


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
        raise Refusal(499, "The client disconnected.")
    return result[0]
