"""The web application: these paths, and everything else is 404.

GET  /health               is the engine there? (needs no key)
GET  /ready                and does it serve a variant? (likewise)
GET  /v1/models            the variants and routes
GET  /v1/models/NAME       one of them
POST /v1/chat/completions  ask one of them, streamed or not
POST /v1/completions       let its model continue a text, or score one
POST /v1/responses         ask a variant in the form of OpenAI's Responses
POST /v1/embeddings        vectors, by the embedder of a variant's pipeline
POST /v1/rerank            texts by how well they answer a query, by its reranker (also /rerank and /v2/rerank)
POST /v1/search            passages of its documents
POST /v1/vector_stores/PIPELINE/search     the same in OpenAI's form
POST /tokenize             the tokens of a text
POST /detokenize           the text of tokens
GET  /metrics              counts for Prometheus
GET  /openapi.json         what all of them take and give
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llmbench import control_tokens
from llmbench.gateway import chat, completions, receiving, relay
from llmbench.gateway.answering import Answering
from llmbench.gateway.api import embeddings, rerank, searching, tokens
from llmbench.gateway.api.responses import answering as responding
from llmbench.gateway.api.responses import asking
from llmbench.gateway.catalogue import Catalogue, Served
from llmbench.gateway.charge import Quota
from llmbench.gateway.description import document
from llmbench.gateway.exchange import Exchange, Sink
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.guard import Access, Guard
from llmbench.gateway.keys import Keyring
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Limit, Open
from llmbench.gateway.meter import Meter
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.observing.trace import Traced
from llmbench.gateway.refusal import Refusal, as_json
from llmbench.gateway.traffic import Routes
from llmbench.gateway.traffic.assignment import opening_of
from llmbench.gateway.traffic.shadow import Shadows
from llmbench.gateway.turns import Turns
from llmbench.gateway.words import Words

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["build"]

_MANY = 2048
_PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/v1/search", "/v1/models",
    "/tokenize", "/detokenize", "/health", "/ready", "/metrics", "/openapi.json",
)  # fmt: skip
_NOT_HERE = {
    "/v1/messages": "This server has no Messages API. Ask /v1/chat/completions",
    "/v1/score": "This server scores no pairs of texts. Ask /v1/rerank",
}


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
    routes: Routes | None = None,
    metrics: Metrics | None = None,
    keeps: bool = False,
    traced: float | None = None,
    shadows: Shadows | None = None,
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
        routes: names whose questions are divided among the variants.
        metrics: what /metrics says; None are new ones.
        keeps: whether a sink reads what was answered (`Exchange.said`), of whichever variant.
        traced: the share of requests without a trace of their own that are traced; None: no request is.
        shadows: ask other variants of a route the same, for themselves alone.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    counting, wanted = open or Open(_MANY), access or Access()
    counts = metrics or Metrics(lambda: counting.count)
    turns = turns or Turns(_MANY, _MANY)
    answering = Answering(upstream, models.context, words or Words(control_tokens.of_unknown()))
    paths = _Paths(models, routes or Routes(), upstream, answering, counts, turns, keeps, shadows)
    if shadows is not None:
        shadows.attach(answering, models, counting, turns)
        sinks = [*sinks, shadows.told]
    keyring = Keyring(lambda: ledger.keys, ledger.clock) if ledger is not None else None

    def tell(exchange: Exchange) -> None:
        counts.tell(exchange)
        for sink in sinks:
            sink(exchange)

    charged = [Middleware(partial(Quota, ledger=ledger, tell=tell))] if ledger is not None else []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if shadows is not None:
            await shadows.close()
        await upstream.close()
        if keyring is not None:
            keyring.close()

    keyed = keyring is not None or wanted.key is not None
    app = Starlette(
        routes=[
            Route("/health", paths.health, methods=["GET"]),
            Route("/ready", paths.ready, methods=["GET"]),
            Route("/metrics", paths.count, methods=["GET"]),
            Route("/v1/models", paths.list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", paths.show_model, methods=["GET"]),
            Route("/v1/chat/completions", paths.ask, methods=["POST"]),
            Route("/v1/completions", paths.complete, methods=["POST"]),
            Route("/v1/responses", paths.respond, methods=["POST"]),
            Route("/v1/embeddings", paths.embed, methods=["POST"]),
            *[Route(path, paths.rerank, methods=["POST"]) for path in ("/rerank", "/v1/rerank", "/v2/rerank")],
            Route("/v1/search", paths.search, methods=["POST"]),
            Route("/v1/vector_stores/{name}/search", paths.search_store, methods=["POST"]),
            Route("/tokenize", paths.tokenize, methods=["POST"]),
            Route("/detokenize", paths.detokenize, methods=["POST"]),
            Route("/openapi.json", partial(paths.describe, keyed=keyed), methods=["GET"]),
        ],
        middleware=[
            *([Middleware(partial(Traced, share=traced))] if traced is not None else []),
            Middleware(partial(Guard, access=wanted, keyring=keyring, tell=tell)),
            *charged,
            Middleware(partial(Limit, open=counting, tell=tell)),
        ],
        exception_handlers={
            Refusal: partial(_refuse, wanted),
            HTTPException: partial(_no_such_path, wanted),
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Paths:
    """What answers on each path, over the variants."""

    def __init__(
        self,
        models: Catalogue,
        routes: Routes,
        upstream: relay.Upstream,
        answering: Answering,
        metrics: Metrics,
        turns: Turns,
        keeps: bool,
        shadows: Shadows | None,
    ) -> None:
        self._models = models
        self._routes = routes
        self._upstream = upstream
        self._context = models.context
        self._answering = answering
        self._metrics = metrics
        self._turns = turns
        self._keeps = keeps
        self._shadows = shadows

    async def list_models(self, request: Request) -> Response:
        cards = self._cards()
        return as_json({"object": "list", "data": [cards[name] for name in self._seen_by(request, cards)]})

    async def show_model(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException

        name = request.path_params["name"]
        if not name:
            raise HTTPException(404)
        if not self._seen_by(request, (name,)) or (card := self._cards().get(name)) is None:
            raise self._unknown(name, request)
        return as_json(card)

    async def health(self, request: Request) -> Response:
        await self._upstream.health()
        names = self._seen_by(request, self._names())
        return as_json({"status": "ok"} | ({"models": names} if request.state.has_key else {}))

    async def ready(self, request: Request) -> Response:
        if not self._models.now.known:
            raise Refusal(503, "No variant is served yet.", code="not_ready", retry_after="5")
        await self._upstream.health()
        names = self._seen_by(request, self._names())
        return as_json({"status": "ready"} | ({"models": names} if request.state.has_key else {}))

    async def count(self, request: Request) -> Response:
        from starlette.responses import Response

        if request.scope["state"].get("key") is not None:
            message = (
                "/metrics names every key, so a named key may not read it: send gateway.api_key, or ask on the admin socket."
            )
            raise Refusal(403, message, code="not_allowed")
        return Response(await self._metrics.with_engine(self._upstream), media_type="text/plain; version=0.0.4")

    async def describe(self, request: Request, *, keyed: bool) -> Response:
        return as_json(document(self._context, self._seen_by(request, self._names()), keyed=keyed))

    async def ask(self, request: Request) -> Response:
        question = chat.parse(await receiving.body(request), context=self._context)
        served = self._wanted(question.model, request, question.user, lambda: opening_of(question.messages))
        exchange = _exchange(request)
        if self._shadows is not None:
            self._shadows.keep(exchange, question)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(request, exchange, self._answering.chat(served, question, exchange, meter))

    async def complete(self, request: Request) -> Response:
        question = completions.parse(await receiving.body(request), context=self._context)
        served = self._wanted(question.model, request, question.user, lambda: str(question.prompt))
        exchange = _exchange(request)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(request, exchange, self._answering.complete(served, question, exchange, meter))

    async def respond(self, request: Request) -> Response:
        wanted = asking.parse(await receiving.body(request), context=self._context)
        question, exchange = wanted.chat, _exchange(request)
        served = self._wanted(question.model, request, question.user, lambda: opening_of(question.messages))
        if self._shadows is not None:
            self._shadows.keep(exchange, question)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(
            request, exchange, responding.answer(self._answering, served, wanted, exchange, meter)
        )

    async def embed(self, request: Request) -> Response:
        question = embeddings.parse(await receiving.body(request))
        grounding, meter = self._pipeline(question.model, request, question.user)
        return await receiving.unless_gone(request, _exchange(request), embeddings.answer(question, grounding, meter))

    async def rerank(self, request: Request) -> Response:
        question = rerank.parse(await receiving.body(request))
        grounding, meter = self._pipeline(question.model, request, question.user)
        return await receiving.unless_gone(request, _exchange(request), rerank.answer(question, grounding, meter))

    async def search(self, request: Request) -> Response:
        question = searching.parse(await receiving.body(request))
        grounding, meter = self._pipeline(question.model, request, question.user)
        return await receiving.unless_gone(request, _exchange(request), searching.search(question, grounding, meter))

    async def search_store(self, request: Request) -> Response:
        question = searching.parse_store(await receiving.body(request))
        grounding, meter = self._pipeline(request.path_params["name"], request)
        return await receiving.unless_gone(request, _exchange(request), searching.search_store(question, grounding, meter))

    async def tokenize(self, request: Request) -> Response:
        return await self._by_tokenizer(request, "/tokenize", *tokens.tokenize(await receiving.body(request)))

    async def detokenize(self, request: Request) -> Response:
        return await self._by_tokenizer(request, "/detokenize", *tokens.detokenize(await receiving.body(request)))

    async def _by_tokenizer(self, request: Request, path: str, name: str, asked: dict[str, Any]) -> Response:
        served, exchange = self._wanted(name, request), _exchange(request)
        exchange.engine_at = exchange.elapsed()

        async def work() -> dict[str, Any]:
            return await self._upstream.read(await self._upstream.ask(path, {"model": served.engine_name, **asked}))

        return as_json(await receiving.unless_gone(request, exchange, work()))

    def _wanted(
        self, name: str, request: Request, user: str | None = None, opening: Callable[[], str | None] = lambda: None
    ) -> Served:
        """The variant of this name or route, as it stays for this request, which counts as its own until it ends (`Limit`).

        A key that may ask a route need not be allowed its variants.
        """
        exchange = _exchange(request)
        if not self._seen_by(request, (name,)):
            raise self._unknown(name, request)
        exchange.asked, exchange.user = name, user
        # A reload that gives a route another variant and removes the old one may come between the two looks: look again.
        look = (self._models.take(self._routes.variant(exchange, opening)) for _ in range(2))
        if (served := next((one for one in look if one is not None), None)) is None:
            exchange.asked = ""  # what a client makes up is nothing to count by
            raise self._unknown(name, request)
        exchange.variant = served.variant.name
        exchange.keeps = exchange.keeps or self._keeps or served.grounding is not None
        request.state.served = served
        return served

    def _pipeline(self, name: str, request: Request, user: str | None = None) -> tuple[Grounding, Meter]:
        """The pipeline of this name, or that of the variant of this name, as `_wanted` gives a variant."""
        if not self._seen_by(request, (name,)) or (served := self._models.take_pipeline(name)) is None:
            raise self._unknown(name, request, pipelines=True)
        request.state.served, exchange = served, _exchange(request)
        assert served.grounding is not None
        exchange.asked, exchange.variant, exchange.user = name, served.grounding.name, user
        return served.grounding, Meter(exchange, request.scope["state"], self._context, self._turns)

    def _unknown(self, name: str, request: Request, *, pipelines: bool = False) -> Refusal:
        offer = self._models.now
        there = ", ".join(self._seen_by(request, offer.pipelines if pipelines else self._names()))
        if self._seen_by(request, (name,)) and name in (offer.known if pipelines else offer.pipelines):
            what = "has no RAG pipeline" if pipelines else "is a RAG pipeline, which embeds and searches"
            said = f"Available: {there}" if there else "The server's owner can name one: `rag:` of a variant"
            return Refusal(400, f"{name} {what}. {said}.", param="model", code="model_not_supported")
        said = f"Available: {there}" if there else "No variant of this server has a RAG pipeline"
        return Refusal(404, f"The model {name!r:.100} does not exist. {said}.", param="model", code="model_not_found")

    def _names(self) -> list[str]:
        return [*self._models.now.known, *self._routes.now]

    def _cards(self) -> dict[str, dict[str, Any]]:
        """What /v1/models says, by name."""
        routes = {name: route.card() for name, route in self._routes.now.items()}
        return {**self._models.now.cards, **routes}

    def _seen_by(self, request: Request, names: Iterable[str]) -> list[str]:
        """Those of the names that exist for the request's key."""
        key = request.scope["state"].get("key")
        return [name for name in names if key is None or key.may_ask(name)]


def _exchange(request: Request) -> Exchange:
    found: Exchange = request.scope["state"]["exchange"]
    return found


async def _refuse(access: Access, request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    error.message, error.param = access.hide(error.message), error.param and access.hide(error.param)
    exchange = request.scope.get("state", {}).get("exchange")
    if exchange is not None:
        exchange.error = error.code
    return error.response()


async def _no_such_path(access: Access, request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    path = access.hide(request.scope["path"])
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
