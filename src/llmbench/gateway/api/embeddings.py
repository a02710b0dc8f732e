"""OpenAI's embeddings: vectors of texts, by a pipeline's embedder, with the prefixes that it was trained with."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from llmbench.gateway.api.fields import model_of, of_body
from llmbench.gateway.api.working import working
from llmbench.gateway.body import check_range
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.meter import Meter
from llmbench.gateway.pipeline import Embedding, Searching
from llmbench.gateway.refusal import Refusal, as_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.responses import Response

__all__ = ["KINDS", "MOST", "EmbeddingRequest", "answer", "parse"]

MOST = 2048
"""Texts of one request, as many as OpenAI takes."""
_BLOCK = 32
"""Texts that are embedded before a search may have its turn."""
KINDS = {
    "model": "a text", "input": None, "encoding_format": "a text", "dimensions": "a whole number", "input_type": "a text",
    "user": "a text",
}  # fmt: skip
_ELSEWHERE = {
    "truncate": "a text that is too long is refused, so that no vector leaves out its end",
    "truncate_prompt_tokens": "a text that is too long is refused, so that no vector leaves out its end",
    "task": "say input_type: query or document",
    "embedding_type": "say encoding_format: float or base64",
    "embedding_types": "say encoding_format: float or base64",
    "messages": "send texts as input",
}


@dataclass(frozen=True)
class EmbeddingRequest:
    """A checked request."""

    model: str
    texts: list[str]
    encoding: Literal["float", "base64"]
    role: Literal["query", "document"]
    """Whose prefix is put before each text."""
    dimensions: int | None = None
    user: str | None = None


def parse(raw: bytes) -> EmbeddingRequest:
    """Checks the body of a request for embeddings.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, KINDS, _ELSEWHERE)
    model, encoding, role = model_of(fields), fields.get("encoding_format", "float"), fields.get("input_type", "document")
    if encoding not in ("float", "base64"):
        raise Refusal(400, f"encoding_format must be float or base64, not {encoding!r:.40}.", param="encoding_format")
    if role not in ("query", "document"):
        raise Refusal(400, f"input_type must be query or document, not {role!r:.40}.", param="input_type")
    dimensions = fields.get("dimensions")
    if dimensions is not None:
        check_range("dimensions", dimensions, 1, 2**31)
    return EmbeddingRequest(model, _texts(fields.get("input")), encoding, role, dimensions, fields.get("user"))


async def answer(wanted: EmbeddingRequest, grounding: Grounding, meter: Meter) -> Response:
    """The vectors, in the order of the texts.

    Raises:
        Refusal: a text is too long for the embedder, or it has vectors of other dimensions; a limit of the key is reached.
    """
    counts = await working(grounding, lambda pipeline, _: _counts(pipeline.embedder, wanted), "input")
    async with meter.taking(sum(counts)):
        return await working(grounding, lambda pipeline, stop: _answer(pipeline, wanted, counts, stop), "input")


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise Refusal(400, "input must be a text or a list of texts.", param="input")
    if any(isinstance(one, (int, list)) for one in texts):
        message = (
            "input holds token ids, and this embedder has a tokenizer of its own. Send texts (in LangChain's OpenAIEmbeddings: "
            "check_embedding_ctx_length=False)."
        )
        raise Refusal(400, message, param="input")
    if len(texts) > MOST:
        raise Refusal(400, f"input may hold at most {MOST:,} texts, not {len(texts):,}.", param="input")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            place = "input" if isinstance(given, str) else f"input[{i}]"
            raise Refusal(400, f"{place} must be a text that is not empty.", param=place)
    return texts


def _counts(embedder: Embedding, wanted: EmbeddingRequest) -> list[int]:
    """The tokens of each text as it is read: with its prefix and its special tokens."""
    if wanted.dimensions not in (None, embedder.dim):
        message = f"dimensions is {wanted.dimensions}, and the vectors of {wanted.model} have {embedder.dim}. Leave it out."
        raise Refusal(400, message, param="dimensions")
    prefix = embedder.query_prefix if wanted.role == "query" else embedder.document_prefix
    counts = []
    for i, text in enumerate(wanted.texts):
        count = len(embedder.starts(prefix + text)) + embedder.special_tokens
        if count > embedder.max_tokens:
            message = f"input[{i}] has {count:,} tokens, and {wanted.model} reads {embedder.max_tokens:,}. Split it."
            raise Refusal(400, message, param=f"input[{i}]", code="context_length_exceeded")
        counts.append(count)
    return counts


def _answer(pipeline: Searching, wanted: EmbeddingRequest, counts: list[int], stop: Event) -> Response:
    """The whole answer, written here: a megabyte of numbers is not written in the event loop."""
    embedder, data = pipeline.embedder, list[dict[str, Any]]()
    for at in range(0, len(wanted.texts), _BLOCK):
        some = wanted.texts[at : at + _BLOCK]
        if wanted.role == "query" and not stop.is_set():
            vectors = embedder.embed_queries(some)
        else:
            vectors = embedder.embed_documents(some, counts[at : at + _BLOCK], stop=stop)
        for vector in vectors:
            data.append({"object": "embedding", "index": len(data), "embedding": _written(vector, wanted.encoding)})
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return as_json({"object": "list", "data": data, "model": wanted.model, "usage": usage})


def _written(vector: NDArray[np.float32], encoding: str) -> Any:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector.tolist()
