"""What answers on each path, over the variants: reads the request, finds who is asked, and hands it on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from llmbench.gateway import chat, completions, receiving, relay
from llmbench.gateway.answering import Answering
from llmbench.gateway.api import embeddings, feedback, rerank, searching, tokens
from llmbench.gateway.api.responses import answering as responding
from llmbench.gateway.api.responses import asking
from llmbench.gateway.catalogue import Catalogue, Served
from llmbench.gateway.description import document
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.meter import Meter
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.refusal import Refusal, as_json
from llmbench.gateway.traffic import Routes
from llmbench.gateway.traffic.assignment import opening_of
from llmbench.gateway.traffic.shadow import Shadows
from llmbench.gateway.turns import Turns

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["Paths"]


class Paths:
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
        feedbacks: Feedbacks,
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
        self._feedbacks = feedbacks

    def routes(self, *, keyed: bool) -> list[Route]:
        """Every path with its method. `keyed` is whether clients must send a key."""
        from starlette.routing import Route

        return [
            Route("/v1/chat/completions", self._ask, methods=["POST"]),  # first, as starlette tries one after the other
            Route("/health", self._health, methods=["GET"]),
            Route("/ready", self._ready, methods=["GET"]),
            Route("/metrics", self._count, methods=["GET"]),
            Route("/v1/models", self._list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._show_model, methods=["GET"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/responses", self._respond, methods=["POST"]),
            Route("/v1/embeddings", self._embed, methods=["POST"]),
            *[Route(path, self._rerank, methods=["POST"]) for path in ("/rerank", "/v1/rerank", "/v2/rerank")],
            Route("/v1/search", self._search, methods=["POST"]),
            Route("/v1/vector_stores/{name}/search", self._search_store, methods=["POST"]),
            Route("/v1/feedback", self._take_feedback, methods=["POST"]),
            Route("/tokenize", self._tokenize, methods=["POST"]),
            Route("/detokenize", self._detokenize, methods=["POST"]),
            Route("/openapi.json", partial(self._describe, keyed=keyed), methods=["GET"]),
        ]

    async def _list_models(self, request: Request) -> Response:
        cards = self._cards()
        return as_json({"object": "list", "data": [cards[name] for name in self._seen_by(request, cards)]})

    async def _show_model(self, request: Request) -> Response:
        from starlette.exceptions import HTTPException

        name = request.path_params["name"]
        if not name:
            raise HTTPException(404)
        if not self._seen_by(request, (name,)) or (card := self._cards().get(name)) is None:
            raise self._unknown(name, request)
        return as_json(card)

    async def _health(self, request: Request) -> Response:
        await self._upstream.health()
        names = self._seen_by(request, self._names())
        return as_json({"status": "ok"} | ({"models": names} if request.state.has_key else {}))

    async def _ready(self, request: Request) -> Response:
        if not self._models.now.known:
            raise Refusal(503, "No variant is served yet.", code="not_ready", retry_after="5")
        await self._upstream.health()
        names = self._seen_by(request, self._names())
        return as_json({"status": "ready"} | ({"models": names} if request.state.has_key else {}))

    async def _count(self, request: Request) -> Response:
        from starlette.responses import Response

        if request.scope["state"].get("key") is not None:
            message = (
                "/metrics names every key, so a named key may not read it: send gateway.api_key, or ask on the admin socket."
            )
            raise Refusal(403, message, code="not_allowed")
        return Response(await self._metrics.with_engine(self._upstream), media_type="text/plain; version=0.0.4")

    async def _describe(self, request: Request, *, keyed: bool) -> Response:
        return as_json(
            document(
                self._context,
                self._seen_by(request, self._names()),
                self._seen_by(request, self._models.now.pipelines),
                keyed=keyed,
            )
        )

    async def _ask(self, request: Request) -> Response:
        question = chat.parse(await receiving.body(request), context=self._context)
        served = self._wanted(question.model, request, question.user, lambda: opening_of(question.messages))
        exchange = _exchange(request)
        if self._shadows is not None:
            self._shadows.keep(exchange, question)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(request, exchange, self._answering.chat(served, question, exchange, meter))

    async def _complete(self, request: Request) -> Response:
        question = completions.parse(await receiving.body(request), context=self._context)
        served = self._wanted(question.model, request, question.user, lambda: str(question.prompt))
        exchange = _exchange(request)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(request, exchange, self._answering.complete(served, question, exchange, meter))

    async def _respond(self, request: Request) -> Response:
        wanted = asking.parse(await receiving.body(request), context=self._context)
        question, exchange = wanted.chat, _exchange(request)
        served = self._wanted(question.model, request, question.user, lambda: opening_of(question.messages))
        if self._shadows is not None:
            self._shadows.keep(exchange, question)
        meter = Meter(exchange, request.scope["state"], self._context, self._turns, question.tier)
        return await receiving.unless_gone(
            request, exchange, responding.answer(self._answering, served, wanted, exchange, meter)
        )

    async def _embed(self, request: Request) -> Response:
        question = embeddings.parse(await receiving.body(request))
        return await self._by_pipeline(request, question.model, question.user, partial(embeddings.answer, question))

    async def _rerank(self, request: Request) -> Response:
        question = rerank.parse(await receiving.body(request))
        return await self._by_pipeline(request, question.model, question.user, partial(rerank.answer, question))

    async def _search(self, request: Request) -> Response:
        question = searching.parse(await receiving.body(request))
        return await self._by_pipeline(request, question.model, question.user, partial(searching.search, question))

    async def _search_store(self, request: Request) -> Response:
        answer = partial(searching.search_store, searching.parse_store(await receiving.body(request)))
        return await self._by_pipeline(request, request.path_params["name"], None, answer)

    async def _by_pipeline(
        self, request: Request, name: str, user: str | None, answer: Callable[[Grounding, Meter], Awaitable[Response]]
    ) -> Response:
        grounding, meter = self._pipeline(name, request, user)
        return await receiving.unless_gone(request, _exchange(request), answer(grounding, meter))

    async def _take_feedback(self, request: Request) -> Response:
        wanted, key = feedback.parse(await receiving.body(request)), request.scope["state"].get("key")
        given = self._feedbacks.give(wanted, None if key is None else key.name)
        return as_json(feedback.answer(wanted, replaced=given.repeated))

    async def _tokenize(self, request: Request) -> Response:
        return await self._by_tokenizer(request, "/tokenize", *tokens.tokenize(await receiving.body(request)))

    async def _detokenize(self, request: Request) -> Response:
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
        self._feedbacks.begun(exchange)
        exchange.keeps = exchange.keeps or self._keeps or served.grounding is not None
        request.scope["state"]["served"] = served
        return served

    def _pipeline(self, name: str, request: Request, user: str | None = None) -> tuple[Grounding, Meter]:
        """The pipeline of this name, or that of the variant of this name, as `_wanted` gives a variant."""
        if not self._seen_by(request, (name,)) or (served := self._models.take_pipeline(name)) is None:
            raise self._unknown(name, request, pipelines=True)
        request.scope["state"]["served"], exchange = served, _exchange(request)
        assert served.grounding is not None
        exchange.asked, exchange.pipeline, exchange.user = name, served.grounding.name, user
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
