"""Hits into a conversation: with what belongs around them, as many as the prompt has room for, each with a number to cite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmbench.control_tokens import of_unknown
from llmbench.endpoint import Budget
from llmbench.errors import LlmbenchError
from llmbench.message import Message, images_of, text_of, with_text
from llmbench.recipe import RagRecipe
from llmbench.retrieval.search.hits import Grounded, Hit
from llmbench.retrieval.search.packing import Count, Packed, pack
from llmbench.retrieval.search.passages import Fetch, Passage, from_hits, with_neighbours, with_parents
from llmbench.retrieval.search.prompt import fill

__all__ = ["NOTHING", "NO_ROOM", "around", "ground", "said"]

NOTHING = "(No passage was found.)"
"""What stands in a prompt where passages would: a model that sees an empty place makes some up."""
NO_ROOM = "(There was no room for a passage.)"
"""And where some were found, and not even a sentence of one fitted."""

TRIES = 3
"""Tokens are not additive, so what was taken away may not have been enough."""


def ground(
    recipe: RagRecipe,
    messages: Sequence[Message],
    last: int,
    hits: Sequence[Hit],
    passages: Sequence[Passage],
    count: Count | None,
    budget: Budget | None = None,
) -> Grounded:
    """Puts the passages of some hits into message number `last`.

    Args:
        recipe: the pipeline.
        messages: the conversation.
        last: which message asks.
        hits: best first.
        passages: what `around` made of them.
        count: how many tokens a text has, where the recipe bounds the passages.
        budget: the served model's room. Where the conversation is over it, the worst passages give way, by whole sentences.
    """
    by_rank = {hit.rank: hit for hit in hits}
    packed = pack(passages, recipe.context, recipe.passage, count=count)
    grounded = _filled(recipe, messages, last, packed, by_rank)
    for left in reversed(range(TRIES)):
        if budget is None or not packed.passages or (excess := budget.excess(grounded.messages)) <= 0:
            break
        room = budget.count(packed.text) - excess if left else 0
        context = recipe.context.model_copy(update={"max_tokens": max(1, room)})
        packed = pack(passages if room > 0 else (), context, recipe.passage, count=budget.count)
        grounded = _filled(recipe, messages, last, packed, by_rank)
    return grounded


def _filled(recipe: RagRecipe, messages: Sequence[Message], last: int, packed: Packed, by_rank: dict[int, Hit]) -> Grounded:
    passages = of_unknown().split(packed.text)  # a page must not open a turn of the model's, whichever model is asked
    prompt = fill(recipe.prompt, {"passages": passages or (NO_ROOM if by_rank else NOTHING), "question": said(messages[last])})
    grounded = [message.copy() for message in messages]
    grounded[last] = with_text(messages[last], prompt)
    if recipe.system:
        if grounded[0]["role"] == "system":  # chat templates take one system message
            grounded[0] = with_text(grounded[0], f"{recipe.system}\n\n{said(grounded[0])}")
        else:
            grounded.insert(0, {"role": "system", "content": recipe.system})
    sources = tuple(_source(n, passage, by_rank) for n, passage in enumerate(packed.passages, 1))
    return Grounded(grounded, sources, packed.tokens)


def said(message: Message) -> str:
    """The text of a message, which is what is searched with; images go on to the model as they are.

    Raises:
        LlmbenchError: its content is neither a string nor a list of parts of text and images, or it holds no text.
    """
    content: Any = message.get("content")
    if not (isinstance(content, str) or (isinstance(content, list) and all(map(_is_part, content)))):
        raise LlmbenchError(
            f"A {message.get('role')} message's content is not text. Send a string, or parts of type text and image_url."
        )
    text = text_of(message)
    if images_of(message) and not text.strip():
        raise LlmbenchError(
            f"A {message.get('role')} message has images alone, and documents are searched with text. Add some."
        )
    return text


def _is_part(part: Any) -> bool:
    match part:
        case {"type": "text", "text": str()} | {"type": "image_url", "image_url": {"url": str()}}:
            return True
    return False


def around(recipe: RagRecipe, hits: Sequence[Hit], fetch: Fetch) -> list[Passage]:
    """Hits with what belongs around them; the store must be of a state in which all of them stand."""
    if recipe.chunking.parent_tokens is not None:
        return with_parents(hits, [hit.chunk.parent for hit in hits], fetch)
    if recipe.search.neighbours:
        return with_neighbours(hits, recipe.search.neighbours, fetch)
    return from_hits(hits)


def _source(n: int, passage: Passage, hits: dict[int, Hit]) -> dict[str, Any]:
    """A passage as a JSON object: the hit that it is; or, of several, the best one's figures and every one's place."""
    best = hits[passage.hits[0]]
    place = {"start": passage.start, "end": passage.end, "page": passage.page, "line": passage.line}
    source = {**best.source(), "n": n, **place, "title": passage.title, "text": passage.text}
    source.pop("head", None)
    if passage.head:
        source["head"] = passage.head
    if (passage.start, passage.end) != (best.chunk.start, best.chunk.end) or len(passage.hits) > 1:
        source["hits"] = [
            {"id": hits[rank].chunk.id, "rank": rank, "start": hits[rank].chunk.start, "end": hits[rank].chunk.end}
            for rank in passage.hits
        ]
    return source
