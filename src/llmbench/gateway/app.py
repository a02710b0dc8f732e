"""The web application: these paths, and everything else is 404.

GET  /health               is the engine there? (needs no key)
GET  /v1/models            the variants
GET  /v1/models/NAME       one of them
POST /v1/chat/completions  ask one of them, streamed or not
POST /v1/completions       let its model continue a text, or score one
POST /tokenize             the tokens of a text
GET  /metrics              counts for Prometheus
GET  /openapi.json         what all of them take and give
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llmbench import control_tokens
from llmbench.gateway import body as body_of
from llmbench.gateway import chat, completions, relay
from llmbench.gateway.answering import Answering
from llmbench.gateway.catalogue import Catalogue, Served
from llmbench.gateway.charge import Quota
from llmbench.gateway.description import document
from llmbench.gateway.exchange import Exchange, Sink
from llmbench.gateway.guard import Access, Guard
from llmbench.gateway.keys import Keyring
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Limit, Open
from llmbench.gateway.meter import Meter
from llmbench.gateway.metrics import Metrics
from llmbench.gateway.refusal import Refusal, as_json
from llmbench.gateway.turns import TIMED_OUT, Turns
from llmbench.gateway.words import Words

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["build"]

_BODY_TIMEOUT = 30.0
_MANY = 2048
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/health", "/metrics", "/openapi.json")
_NOT_HERE = {
    "/v1/responses": "This server has no Responses API. Ask /v1/chat/completions",
    "/v1/messages": "This server has no Messages API. Ask /v1/chat/completions",
    "/v1/embeddings": "This server's models write text. `llmbench index` and `llmbench search` embed",
    "/v1/rerank": "This server's models write text. `llmbench search` reranks where its pipeline says so",
    "/v1/score": "This server's models write text. `llmbench search` reranks where its pipeline says so",
}
T = TypeVar("T")


def build(
    models: Catalogue,
    upstream: relay.Upstream,
    *,
    access: Access | None = None,
    open: Open | None = None,
    words: Words | None = None,
    ledger: Ledger | None = None,
    turns: Turns | None = None,
    sinks: Sequence[Sink] = (),
) -> Starlette:
    """The application over variants.

    Args:
        models: the variants, which may change while it answers.
        upstream: where vLLM answers.
        access: what a request must bring; None is nothing.
        open: counts the questions that are being answered, and bounds them.
        words: how the model's control tokens are kept out of what clients and documents say; None knows the usual ones.
        ledger: named keys that clients may send as well, with what they have spent.
        turns: the places at the engine, and who is next; None has as many as may be asked.
        sinks: are told of each question after the last byte of its answer, in the event loop.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    entry, counting = access or Access(), open or Open(_MANY)
    metrics = Metrics(lambda: counting.count)
    paths = _Paths(models, upstream, words or Words(control_tokens.of_unknown()), metrics, turns or Turns(_MANY, _MANY))
    keyring = Keyring(lambda: ledger.keys, ledger.clock) if ledger is not None else None

    def tell(exchange: Exchange) -> None:
        metrics.tell(exchange)
        for sink in sinks:
            sink(exchange)

    async def describe(request: Request) -> Response:
        names, keyed = paths._seen_by(request, models.now.known), keyring is not None or entry.key is not None
        return as_json(document(models.context, names, keyed=keyed))

    charged = [Middleware(partial(Quota, ledger=ledger, tell=tell))] if ledger is not None else []

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
            Route("/openapi.json", describe, methods=["GET"]),
        ],
        middleware=[
            Middleware(partial(Guard, access=entry, keyring=keyring)),
            *charged,
            Middleware(partial(Limit, open=counting, tell=tell)),
        ],
        exception_handlers={Refusal: _refuse, HTTPException: _no_such_path, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Paths:
    """What answers on each path, over the variants."""

    def __init__(self, models: Catalogue, upstream: relay.Upstream, words: Words, metrics: Metrics, turns: Turns) -> None:
        self._models = models
        self._upstream = upstream
        self._context = models.context
        self._answering = Answering(upstream, models.context, words)
        self._metrics = metrics
        self._turns = turns

    async def list_models(self, request: Request) -> Response:
        cards = self._models.now.cards
        return as_json({"object": "list", "data": [cards[name] for name in self._seen_by(request, cards)]})

    async def show_model(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException

        name = request.path_params["name"]
        if not name:
            raise HTTPException(404)
        if not self._seen_by(request, (name,)) or (card := self._models.now.cards.get(name)) is None:
            raise self._unknown(name, request)
        return as_json(card)

    async def health(self, request: Request) -> Response:
        await self._upstream.health()
        names = self._seen_by(request, self._models.now.known)
        return as_json({"status": "ok"} | ({"models": names} if request.state.has_key else {}))

    async def count(self, _: Request) -> Response:
        from starlette.responses import Response

        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def ask(self, request: Request) -> Response:
        question = chat.parse(await _body(request), context=self._context)
        served, exchange = self._wanted(question.model, request, question.user), _exchange(request)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await _unless_gone(request, exchange, self._answering.chat(served, question, exchange, meter))

    async def complete(self, request: Request) -> Response:
        question = completions.parse(await _body(request), context=self._context)
        served, exchange = self._wanted(question.model, request, question.user), _exchange(request)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await _unless_gone(request, exchange, self._answering.complete(served, question, exchange, meter))

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

    def _wanted(self, name: str, request: Request, user: str | None = None) -> Served:
        """The variant of this name, as it stays for this request; the request counts as its own until it ends (`Limit`)."""
        if not self._seen_by(request, (name,)) or (served := self._models.take(name)) is None:
            raise self._unknown(name, request)
        exchange = _exchange(request)
        exchange.asked, exchange.variant, exchange.user = name, served.variant.name, user
        request.state.served = served
        return served

    def _unknown(self, name: str, request: Request) -> Refusal:
        there = ", ".join(self._seen_by(request, self._models.now.known))
        message = f"The model {name!r:.100} does not exist. Available: {there}."
        return Refusal(404, message, param="model", code="model_not_found")

    def _seen_by(self, request: Request, names: Iterable[str]) -> list[str]:
        """Those of the variants' names that exist for the request's key."""
        key = request.scope["state"].get("key")
        return [name for name in names if key is None or key.may_ask(name)]


def _exchange(request: Request) -> Exchange:
    found: Exchange = request.scope["state"]["exchange"]
    return found


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    exchange = request.scope.get("state", {}).get("exchange")
    if exchange is not None:
        exchange.error = error.code
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


async def _unless_gone(request: Request, exchange: Exchange, work: Awaitable[T]) -> T:
    """Does the work, but drops it (and with it the request to vLLM) when the client goes away, or waits no longer."""
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
            result.append(await _in_time(exchange, work))
        except Exception as error:
            problem.append(error)
        group.cancel_scope.cancel()
    if problem:
        raise problem[0]
    if not result:
        raise Refusal(499, "The client disconnected.")
    return result[0]


async def _in_time(exchange: Exchange, work: Awaitable[T]) -> T:
    """Does the work within the client's own time, if it has said how much that is."""
    if exchange.deadline is None:
        return await work
    try:
        async with asyncio.timeout(max(0.0, exchange.deadline - exchange.elapsed())):
            return await work
    except TimeoutError:
        message = f"The answer took longer than the {exchange.deadline:g} s that the client waits."
        raise Refusal(504, message, code=TIMED_OUT, retry=False) from None
