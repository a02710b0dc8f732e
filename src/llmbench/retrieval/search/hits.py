"""What a search finds: passages with their scores, stage by stage, and a conversation that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbench.message import Message
from llmbench.recipe import Stage
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Scalar
from llmbench.retrieval.search.diversity import Move

__all__ = ["Grounded", "Hit", "Step", "doubt"]

_WEAK = 0.3
"""Below this cosine, and without a common word, a passage is the nearest and no more."""


@dataclass(frozen=True)
class Step:
    """A hit's place (from 1) and score in one stage."""

    rank: int
    score: float


@dataclass(frozen=True)
class Hit:
    """A passage that was found. `rank` counts from 1; `score` is of the stage `kind`, and higher is better in each.

    `dense` is the cosine similarity, -1 to 1; `terms` BM25, from 0; `fused` what the fusion made of both, 0 to 1; `rerank` the
    reranker's own scale. `stages` holds every stage that saw the passage.
    """

    chunk: Chunk
    score: float
    rank: int
    kind: Stage = "dense"
    stages: Mapping[Stage, Step] = field(default_factory=dict)
    windows: int = 1
    """In how many pieces a reranker read it; the best one's score counts."""
    move: Move | None = None
    """What MMR did with it."""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    """Its document's fields, which filters ask for."""

    def source(self) -> dict[str, Any]:
        """The hit as a JSON object; its number in the prompt is its rank, and `kind` is the stage that its score is of.

        `head`, the column heads of a table that it goes on with, is only there where there is one.
        """
        c = self.chunk
        place = {"source": c.source, "title": c.title, "start": c.start, "end": c.end, "page": c.page, "line": c.line}
        stages = {name: {"rank": step.rank, "score": round(step.score, 4)} for name, step in self.stages.items()}
        return {
            "n": self.rank,
            "id": c.id,
            **place,
            "score": round(self.score, 4),
            "kind": self.kind,
            "stages": stages,
            "metadata": dict(self.metadata),
            **({"head": c.head} if c.head else {}),
            "text": c.text,
        }


@dataclass(frozen=True)
class Grounded:
    """A conversation whose last user message carries passages; `sources[i]` is passage `i + 1`."""

    messages: list[Message]
    sources: tuple[dict[str, Any], ...]
    tokens: int | None = None
    """What the passages take in the prompt, where the recipe names a tokenizer that counts them."""


def doubt(hits: Sequence[Hit]) -> str:
    """That no hit has a word of the query or comes near its meaning, where the search looked at meaning; else empty.

    A fused score is relative to its query: the best passage of a nonsense query has a high one too.
    """
    cosines = [hit.stages["dense"].score for hit in hits if "dense" in hit.stages]
    if not cosines or any("terms" in hit.stages for hit in hits) or max(cosines) >= _WEAK:
        return ""
    return f"No passage matches well; these are the closest ones (best cosine {max(cosines):.2f})."
