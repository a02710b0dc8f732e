"""Whether a pipeline gives answers the passages that `llmbench search` finds: asked before anybody is answered.

A few documents are asked for with their own words. What a conversation is given must be what a search finds, and at least one
of the documents must be found, as it is where questions and passages are embedded by the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbench.retrieval import Retriever

__all__ = ["PipelineProbe", "probe"]

_DOCUMENTS = 5
_WORDS = 30


@dataclass(frozen=True)
class PipelineProbe:
    """What came of it. `problem` is what differs, or None; `found` of `asked` documents were found by their own words."""

    asked: int
    found: int
    problem: str | None = None
    remedy: str = ""
    note: str = ""
    """Why nothing was asked."""

    def line(self) -> str:
        """The verdict in one line."""
        if self.problem is not None:
            return f"{self.problem}. {self.remedy}"
        if self.asked == 0:
            return self.note or "its index holds no passage"
        return f"found {self.found} of {self.asked} sampled documents; answers get the passages that `llmbench search` finds"


def probe(retriever: Retriever) -> PipelineProbe:
    """Asks for up to five documents, spread over the index.

    Raises:
        IndexError_: the index cannot be read.
    """
    name, spec = retriever.recipe.name, retriever.recipe
    if spec.search.expand is not None and spec.search.expand.method != "feedback":
        return PipelineProbe(0, 0, note="its query expansion needs a model that may not be running yet")
    holding = [source for source, _, passages in retriever.sources() if passages]
    step = max(1, len(holding) // _DOCUMENTS)
    asked = found = 0
    for source in holding[::step][:_DOCUMENTS]:
        question = " ".join(retriever.document(source).text.split()[:_WORDS])
        if not question:
            continue
        asked += 1
        hits = retriever.search(question)
        given = retriever.ground([{"role": "user", "content": question}]).sources
        known = {hit.chunk.id for hit in hits}
        if strange := [str(one["source"]) for one in given if one["id"] not in known]:
            return PipelineProbe(
                asked, found,
                f"pipeline {name} gives answers a passage of {strange[0]}, which `llmbench search` does not find",
                f"Check the index: llmbench index verify {spec.source}",
            )  # fmt: skip
        if hits and not given:
            return PipelineProbe(
                asked, found,
                f"pipeline {name} gives answers no passage, though `llmbench search` finds {len(hits)}",
                "Raise context.max_tokens",
            )  # fmt: skip
        found += any(hit.chunk.source == source for hit in hits)
    if asked and not found and spec.search.filter is None:
        return PipelineProbe(
            asked, found,
            f"pipeline {name} finds none of {asked} of its documents by their own words",
            f"Index it again: llmbench index build {spec.source}",
        )  # fmt: skip
    return PipelineProbe(asked, found)
