"""The seam to retrieval: `ground(messages)` puts passages into a conversation and says where they are from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from llmbench import assets, recipe
from llmbench.endpoint import Budget, Message
from llmbench.gateway.pipeline import Searching
from llmbench.gateway.probing import PipelineProbe, probe
from llmbench.recipe import RagRecipe

if TYPE_CHECKING:
    from llmbench.retrieval import Retriever

__all__ = ["Grounded", "Grounder", "Grounding", "open_retriever"]


_THREADS = 32
"""Questions of a pipeline that are searched for at once, and so as many as are embedded as one batch."""
T = TypeVar("T")


class Grounded(Protocol):
    """A conversation with its passages in it; `sources[i]` is passage `i + 1`, as a JSON object."""

    @property
    def messages(self) -> Sequence[Message]:
        """What the model is asked."""
        ...

    @property
    def sources(self) -> Sequence[dict[str, Any]]:
        """The passages, in the order of their numbers."""
        ...


class Grounder(Protocol):
    """Whatever finds passages for a conversation."""

    def ground(self, messages: Sequence[Message], *, budget: Budget | None = None) -> Grounded:
        """Searches with the last user message; passages take no more than the budget leaves them."""
        ...

    def close(self) -> None:
        """Lets go of the index."""
        ...


class Grounding:
    """One grounder in threads of its own, so that searching never holds up the event loop; variants share it.

    It opens there at once, while vLLM loads; `ready` tells when, or raises why not. Questions that come while others are
    embedded are embedded together, and take turns in the index; one whose client has gone before its turn is not searched for.
    """

    def __init__(
        self,
        name: str,
        opening: Callable[[], Grounder],
        card: Mapping[str, Any] | None = None,
        probe: Callable[[], PipelineProbe | None] = lambda: None,
        document: RagRecipe | None = None,
    ) -> None:
        """`probe` is called once the grounder is open."""
        self.name = name
        self.document = document
        """What it was opened from; None where it is no pipeline of a document."""
        self.card = card or {}
        """What /v1/models says of the pipeline, next to its name; whole once it is open."""
        self._thread = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix=f"ground-{name}")
        self._grounder: Future[Grounder] = self._thread.submit(opening)
        self._probe = self._thread.submit(self._probed, probe)

    @property
    def failed(self) -> bool:
        """Whether opening ended in an error."""
        return self._grounder.done() and self._grounder.exception() is not None

    def ready(self) -> None:
        """Blocks until the grounder is open; raises what went wrong."""
        self._grounder.result()

    def probed(self) -> PipelineProbe | None:
        """Blocks until it was asked for its own documents; what came of that, None where nothing was asked."""
        return self._probe.result()

    def _probed(self, probe: Callable[[], PipelineProbe | None]) -> PipelineProbe | None:
        self._grounder.result()
        return probe()

    async def ground(self, messages: Sequence[Message], budget: Budget | None = None) -> Grounded:
        """The conversation with its passages."""
        return await asyncio.wrap_future(self._thread.submit(lambda: self._grounder.result().ground(messages, budget=budget)))

    async def use(self, work: Callable[[Searching], T]) -> T:
        """What some work with the pipeline gives, in a thread of its own. One whose client has gone is not begun."""
        return await asyncio.wrap_future(self._thread.submit(lambda: work(cast(Searching, self._grounder.result()))))

    def close(self) -> None:
        """Lets go of the index and of the thread."""
        if not self._grounder.done():
            self._grounder.add_done_callback(_close)
        else:
            _close(self._grounder)
        self._thread.shutdown(wait=False, cancel_futures=True)


def open_retriever(pipeline: Path, document: RagRecipe | None = None, *, probed: bool = True) -> Grounding:
    """The retriever of a RAG pipeline, opening in its thread. `document` is what the file says, where it has been read."""
    document = document or recipe.load(pipeline, RagRecipe)
    reranker = document.search.rerank
    card: dict[str, Any] = {
        "embedder": assets.plain_name(document.embedder.model_name_or_path),
        "reranker": assets.plain_name(reranker.model_name_or_path) if reranker is not None else None,
    }

    opened: list[Retriever] = []

    def opening() -> Grounder:
        from llmbench.retrieval import Retriever

        opened.append(Retriever.open(document))
        embedder = opened[0].embedder
        card.update(dimensions=embedder.dim, max_model_len=embedder.max_tokens)
        return opened[0]

    return Grounding(document.name, opening, card, lambda: probe(opened[0]) if probed else None, document)


def _close(opened: Future[Grounder]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()
