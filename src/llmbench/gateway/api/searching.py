"""Searching a pipeline's documents: its passages as `llmbench search --json` has them, and in the form of OpenAI's stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import PurePath
from threading import Event
from typing import TYPE_CHECKING, Any

from llmbench.gateway.api.fields import model_of, of_body, refuse
from llmbench.gateway.api.working import working
from llmbench.gateway.body import check_range
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.meter import Meter
from llmbench.gateway.pipeline import Searching
from llmbench.gateway.refusal import Refusal, as_json

if TYPE_CHECKING:
    from starlette.responses import Response

    from llmbench.retrieval import Hit

__all__ = [
    "COMPARE",
    "JOIN",
    "KINDS",
    "MOST",
    "MOST_QUERIES",
    "MOST_RESULTS",
    "STORE_KINDS",
    "SearchRequest",
    "StoreRequest",
    "parse",
    "parse_store",
    "search",
    "search_store",
]

MOST = 1000
KINDS = {"model": "a text", "query": "a text", "top_k": "a whole number", "filter": "an object", "user": "a text"}
_ELSEWHERE = {
    "where": "say filter",
    "filters": "say filter, such as {\"year\": {\"$gte\": 2024}}",
    "top_n": "say top_k",
    "limit": "say top_k",
    "max_num_results": "say top_k",
    "k": "say top_k",
}  # fmt: skip

MOST_QUERIES = 10
MOST_RESULTS = 50
_USUAL_RESULTS = 10
STORE_KINDS = {
    "query": None, "max_num_results": "a whole number", "filters": "an object", "ranking_options": "an object",
    "rewrite_query": "true or false",
}  # fmt: skip
_STORE_ELSEWHERE = {
    "ranking_options.hybrid_search": "the pipeline's own search.alpha weighs meaning and words",
    "ranking_options.embedding_weight": "the pipeline's own search.alpha weighs meaning and words",
    "ranking_options.text_weight": "the pipeline's own search.alpha weighs meaning and words",
}
COMPARE = {"eq": "$eq", "ne": "$ne", "gt": "$gt", "gte": "$gte", "lt": "$lt", "lte": "$lte", "in": "$in", "nin": "$nin"}
JOIN = {"and": "$and", "or": "$or"}


@dataclass(frozen=True)
class SearchRequest:
    """A checked request. `where` is a filter in the pipeline's words."""

    model: str
    query: str
    top_k: int | None = None
    where: dict[str, Any] | None = None
    user: str | None = None


@dataclass(frozen=True)
class StoreRequest:
    """A checked request of OpenAI's form. `least` is the score below which nothing is given."""

    queries: list[str]
    most: int
    where: dict[str, Any] | None
    least: float | None


def parse(raw: bytes) -> SearchRequest:
    """Checks the body of a request to search.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, KINDS, _ELSEWHERE)
    model, top_k = model_of(fields), fields.get("top_k")
    if top_k is not None:
        check_range("top_k", top_k, 1, MOST)
    return SearchRequest(model, _query(fields.get("query"), "query"), top_k, fields.get("filter"), fields.get("user"))


def parse_store(raw: bytes) -> StoreRequest:
    """Checks the body of a request to search a vector store.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, STORE_KINDS, {})
    if fields.get("rewrite_query"):
        message = (
            "rewrite_query is not accepted here: the query is searched as it is, or as the pipeline's own search.expand says."
        )
        raise Refusal(400, message, param="rewrite_query")
    given = fields.get("query")
    several = given if isinstance(given, list) else [given]
    if not 0 < len(several) <= MOST_QUERIES:
        raise Refusal(400, f"query must be a text or a list of up to {MOST_QUERIES} texts.", param="query")
    queries = [_query(one, f"query[{i}]" if isinstance(given, list) else "query") for i, one in enumerate(several)]
    most = fields.get("max_num_results", _USUAL_RESULTS)
    check_range("max_num_results", most, 1, MOST_RESULTS)
    where = _where(fields["filters"], "filters") if "filters" in fields else None
    return StoreRequest(queries, most, where, _least(fields.get("ranking_options", {})))


async def search(wanted: SearchRequest, grounding: Grounding, meter: Meter) -> Response:
    """The passages that fit a query best.

    Raises:
        Refusal: the index cannot be read, or the filter is wrong; a limit of the key is reached.
    """
    count = await working(grounding, lambda pipeline, _: _count(pipeline, wanted.query), "query")
    async with meter.taking(count):
        return as_json(await working(grounding, lambda pipeline, _: _found(pipeline, wanted, grounding.name, count), "filter"))


async def search_store(wanted: StoreRequest, grounding: Grounding, meter: Meter) -> Response:
    """The same in OpenAI's form. Of several queries each passage keeps its best score.

    Raises:
        Refusal: as `search`.
    """
    count = await working(grounding, lambda pipeline, _: sum(_count(pipeline, query) for query in wanted.queries), "query")
    async with meter.taking(count):
        hits = await working(grounding, lambda pipeline, stop: _of_all(pipeline, wanted, stop), "filters")
    page = {
        "object": "vector_store.search_results.page",
        "search_query": wanted.queries,
        "data": [_result(hit) for hit in hits],
        "has_more": False,
        "next_page": None,
    }
    return as_json(page)


def _query(given: Any, place: str) -> str:
    if not isinstance(given, str) or not given.strip():
        raise Refusal(400, f"{place} must be a text that is not empty.", param=place)
    return given


def _where(words: Any, place: str) -> dict[str, Any]:
    """OpenAI's filter in the pipeline's words. The body is nested 64 deep at most, and so is this."""
    kind = words.get("type") if isinstance(words, dict) else None
    if not isinstance(kind, str) or kind not in (*COMPARE, *JOIN):
        kinds = ", ".join([*COMPARE, *JOIN])
        raise Refusal(400, f"{place}.type must be one of {kinds}.", param="filters")
    if kind in JOIN:
        parts = words.get("filters")
        refuse(words, {"type", "filters"}, {}, f"{place}.")
        if not isinstance(parts, list) or not parts:
            raise Refusal(400, f"{place}.filters must be a list of filters.", param="filters")
        return {JOIN[kind]: [_where(part, f"{place}.filters[{i}]") for i, part in enumerate(parts)]}
    refuse(words, {"type", "key", "value"}, {}, f"{place}.")
    key = words.get("key")
    if not isinstance(key, str) or key.startswith("$") or words.get("value") is None:
        raise Refusal(400, f"{place} must have a key, the name of a field, and a value.", param="filters")
    return {key: {COMPARE[kind]: words["value"]}}


def _least(options: Mapping[str, Any]) -> float | None:
    given = {key: value for key, value in options.items() if value is not None}
    refuse(given, {"ranker", "score_threshold"}, _STORE_ELSEWHERE, "ranking_options.")
    if given.get("ranker", "auto") not in ("auto", "none"):
        message = "ranking_options.ranker must be auto or none: the pipeline's own search.rerank decides."
        raise Refusal(400, message, param="ranking_options")
    least = given.get("score_threshold")
    if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float))):
        raise Refusal(400, "ranking_options.score_threshold must be a number.", param="ranking_options")
    return least


def _count(pipeline: Searching, query: str) -> int:
    """The tokens of a query, as far as it is read."""
    from llmbench.retrieval.search import asked

    embedder = pipeline.embedder
    return min(len(embedder.starts(embedder.query_prefix + asked(query))) + embedder.special_tokens, embedder.max_tokens)


def _found(pipeline: Searching, wanted: SearchRequest, name: str, tokens: int) -> dict[str, Any]:
    from llmbench.retrieval import Timings, doubt

    timings = Timings()
    hits = pipeline.search(wanted.query, wanted.top_k, where=wanted.where, timings=timings)
    return {
        "pipeline": name,
        "query": wanted.query,
        "hits": [hit.source() for hit in hits],
        "seconds": {stage: round(value, 5) for stage, value in timings.seconds.items()},
        "notes": [*timings.notes, *filter(None, [doubt(hits)])],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _of_all(pipeline: Searching, wanted: StoreRequest, stop: Event) -> Sequence[Hit]:
    best: dict[str, Hit] = {}
    for query in wanted.queries:
        if stop.is_set():
            raise CancelledError
        for hit in pipeline.search(query, wanted.most, where=wanted.where):
            if hit.chunk.id not in best or best[hit.chunk.id].score < hit.score:
                best[hit.chunk.id] = hit
    kept = [hit for hit in best.values() if wanted.least is None or hit.score >= wanted.least]
    if len(wanted.queries) > 1:  # one query's are in order, which MMR may have made another than the scores'
        kept.sort(key=lambda hit: -hit.score)
    return kept[: wanted.most]


def _result(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    place = {"title": chunk.title, "start": chunk.start, "end": chunk.end, "page": chunk.page, "line": chunk.line}
    attributes = {**hit.metadata, **{key: value for key, value in place.items() if value is not None}}
    return {
        "file_id": chunk.source,
        "filename": PurePath(chunk.source).name,
        "score": round(hit.score, 4),
        "attributes": attributes,
        "content": [{"type": "text", "text": f"{chunk.head}\n{chunk.text}" if chunk.head else chunk.text}],
    }
