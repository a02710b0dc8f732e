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
POST /v1/feedback          a vote about an answer, or a judge's score
POST /tokenize             the tokens of a text
POST /detokenize           the text of tokens
GET  /metrics              counts for Prometheus
GET  /openapi.json         what all of them take and give
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from llmbench import control_tokens
from llmbench.gateway import relay
from llmbench.gateway.answering import Answering
from llmbench.gateway.catalogue import Catalogue
from llmbench.gateway.charge import Quota
from llmbench.gateway.exchange import Exchange, Sink
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.guard import Access, Guard
from llmbench.gateway.keys import Keyring
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Limit, Open
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.paths import Paths
from llmbench.gateway.recording import Recorded
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.traffic import Routes
from llmbench.gateway.traffic.shadow import Shadows
from llmbench.gateway.turns import Turns
from llmbench.gateway.words import Words

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["build"]

_MANY = 2048
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
    feedbacks: Feedbacks | None = None,
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
        sinks: are told of each request after the last byte of its answer, in the event loop.
        routes: names whose questions are divided among the variants.
        metrics: what /metrics says; None are new ones.
        keeps: whether a sink reads what was answered (`Exchange.said`), of whichever variant.
        traced: the share of requests without a trace of their own that are traced; None: no request is.
        shadows: ask other variants of a route the same, for themselves alone.
        feedbacks: the requests that can be voted on, and who is told of votes; None counts them alone.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware

    counting, wanted = open or Open(_MANY), access or Access()
    counts = metrics or Metrics(lambda: counting.count)
    turns = turns or Turns(_MANY, _MANY)
    answering = Answering(upstream, models.context, words or Words(control_tokens.of_unknown()))
    feedbacks = feedbacks or Feedbacks([counts.tell_feedback])
    paths = Paths(models, routes or Routes(), upstream, answering, counts, turns, keeps, shadows, feedbacks)
    if shadows is not None:
        shadows.attach(answering, models, counting, turns)
        counts.shadowed(shadows.listing)
        sinks = [*sinks, shadows.told]
    keyring = Keyring(lambda: ledger.keys, ledger.clock) if ledger is not None else None
    app = Starlette(
        routes=paths.routes(keyed=keyring is not None or wanted.key is not None),
        middleware=[
            Middleware(partial(Recorded, tell=_all_of([counts.tell, *sinks, feedbacks.told]), traced=traced)),
            Middleware(partial(Guard, access=wanted, keyring=keyring)),
            *([Middleware(partial(Quota, ledger=ledger))] if ledger is not None else []),
            Middleware(partial(Limit, open=counting)),
        ],
        exception_handlers={
            Refusal: partial(_refuse, wanted),
            HTTPException: partial(_no_such_path, wanted),
        },
        lifespan=partial(_lifespan, shadows=shadows, upstream=upstream, keyring=keyring),
    )
    app.router.redirect_slashes = False
    return app


def _all_of(sinks: Sequence[Sink]) -> Sink:
    """Tells each of the sinks, in turn."""

    def tell(exchange: Exchange) -> None:
        for sink in sinks:
            sink(exchange)

    return tell


@asynccontextmanager
async def _lifespan(
    _: Starlette, *, shadows: Shadows | None, upstream: relay.Upstream, keyring: Keyring | None
) -> AsyncIterator[None]:
    """Closes, at the end, what was opened while answering."""
    yield
    if shadows is not None:
        await shadows.close()
    await upstream.close()
    if keyring is not None:
        keyring.close()


async def _refuse(access: Access, request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    error.message, error.param = access.hide(error.message), error.param and access.hide(error.param)
    request.scope["state"]["exchange"].error = error.code
    return error.response()


async def _no_such_path(access: Access, request: Request, error: Exception) -> Response:
    from starlette.exceptions import HTTPException

    path = access.hide(request.scope["path"])
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path:.100} takes {allowed}, not {request.method}."
        return Refusal(405, message, code="method_not_allowed", allow=allowed).response()
    paths = [route.path for route in request.app.routes if "{" not in route.path]
    plain = "/" + path.strip("/").removeprefix("v1/").removeprefix("v1/")
    meant = next((known for known in paths if known.removeprefix("/v1") == plain and known != path), None)
    hint = _NOT_HERE.get(path) or (f"Did you mean {meant}? The base URL ends in /v1" if meant else "")
    message = f"There is no {request.method} {path!r:.100} here.{' ' + hint + '.' if hint else ''}"
    return Refusal(404, message, code="not_found").response()
