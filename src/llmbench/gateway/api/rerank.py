"""Reranking in the form of Jina and Cohere: documents by how well they answer a query, judged by a pipeline's reranker."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from llmbench.gateway.api.fields import model_of, of_body
from llmbench.gateway.api.working import working
from llmbench.gateway.body import check_range
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.meter import Meter
from llmbench.gateway.pipeline import Reranking, Searching
from llmbench.gateway.refusal import Refusal, as_json

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["KINDS", "MOST", "RerankRequest", "answer", "parse"]

MOST = 1000
"""Documents of one request."""
KINDS = {
    "model": "a text", "query": "a text", "documents": "a list", "top_n": "a whole number", "return_documents": "true or false",
    "user": "a text",
}  # fmt: skip
_WHOLE = "documents are read whole, those that are too long in overlapping pieces of which the best counts"
_ELSEWHERE = {
    "max_tokens_per_doc": _WHOLE,
    "max_chunks_per_doc": _WHOLE,
    "truncate_prompt_tokens": _WHOLE,
    "truncation": _WHOLE,
    "rank_fields": "send each document as one text",
    "top_k": "say top_n",
    "texts": "say documents",
    "priority": "all requests of a pipeline take turns",
}


@dataclass(frozen=True)
class RerankRequest:
    """A checked request."""

    model: str
    query: str
    documents: list[str]
    top_n: int | None = None
    returns: bool = True
    """Whether the answer repeats the documents."""
    user: str | None = None


def parse(raw: bytes) -> RerankRequest:
    """Checks the body of a request to rerank.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, KINDS, _ELSEWHERE)
    model, query, top_n = model_of(fields), fields.get("query"), fields.get("top_n")
    if not isinstance(query, str) or not query.strip():
        raise Refusal(400, "query must be a text that is not empty.", param="query")
    if top_n is not None:
        check_range("top_n", top_n, 1, 2**31)
    documents = _documents(fields.get("documents"))
    return RerankRequest(model, query, documents, top_n, fields.get("return_documents", True), fields.get("user"))


async def answer(wanted: RerankRequest, grounding: Grounding, meter: Meter) -> Response:
    """The documents' scores, best first, on the reranker's own scale.

    Raises:
        Refusal: the pipeline has no reranker, or the query is too long for it; a limit of the key is reached.
    """

    def measure(pipeline: Searching, _: Event) -> tuple[list[int], bool]:
        return _reranker(pipeline, grounding.name).measure(wanted.query, wanted.documents)

    counts, cut = await working(grounding, measure, "documents")
    if cut:
        message = "query is longer than half of what the reranker reads at once. Shorten it."
        raise Refusal(400, message, param="query", code="context_length_exceeded")

    def judge(pipeline: Searching, stop: Event) -> Response:
        scores = _reranker(pipeline, grounding.name).scores(wanted.query, wanted.documents, stop=stop)
        return _answer(wanted, [float(score) for score in scores], sum(counts))

    async with meter.taking(sum(counts)):
        return await working(grounding, judge, "documents")


def _documents(given: Any) -> list[str]:
    if not isinstance(given, list) or not 0 < len(given) <= MOST:
        raise Refusal(400, f"documents must be a list of 1 to {MOST:,} texts.", param="documents")
    texts = []
    for i, one in enumerate(given):
        text = one.get("text") if isinstance(one, dict) and one.keys() == {"text"} else one
        if not isinstance(text, str):
            place = f"documents[{i}]"
            raise Refusal(400, f'{place} must be a text, or {{"text": "..."}}.', param=place)
        texts.append(text)
    return texts


def _reranker(pipeline: Searching, name: str) -> Reranking:
    if (found := pipeline.reranker) is None:
        message = f"{name} has no reranker. Its owner can set search.rerank.model_name_or_path in the pipeline's YAML."
        raise Refusal(400, message, param="model", code="model_not_supported")
    return found


def _answer(wanted: RerankRequest, scores: list[float], tokens: int) -> Response:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: wanted.top_n]
    results = [
        {"index": i, "relevance_score": scores[i]} | ({"document": {"text": wanted.documents[i]}} if wanted.returns else {})
        for i in order
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return as_json({"id": f"rerank-{uuid.uuid4().hex}", "model": wanted.model, "results": results, "usage": usage})
