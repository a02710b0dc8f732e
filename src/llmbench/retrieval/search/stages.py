"""From candidates to hits: what repeats is left out, a reranker looks again, MMR makes room for what is new."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmbench.recipe import SearchSpec
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.search import diversity
from llmbench.retrieval.search.candidates import Candidates
from llmbench.retrieval.search.hits import Hit, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.retrieval.search.rerank import Reranker

__all__ = ["Timings", "gather", "needed", "order"]

SPARE = 3
"""Passages looked at in one go for each that is wanted, so that mostly enough are left when duplicates go."""


@dataclass
class Timings:
    """Seconds that each stage of a search took, in order."""

    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)

    def mark(self, stage: str) -> None:
        """The time since the last mark was this stage's."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0) + now - self._since
        self._since = now


def needed(spec: SearchSpec, top_k: int) -> int:
    """How many passages the stages after the fusion look at."""
    wanted = max(top_k, spec.rerank.candidates if spec.rerank else 0, spec.mmr.fetch_k if spec.mmr else 0)
    return wanted * SPARE if spec.deduplicate else wanted


def gather(
    found: Candidates, fetch: Callable[[Sequence[int]], dict[int, Chunk]], spec: SearchSpec, top_k: int
) -> list[tuple[int, Hit]]:
    """The candidates as hits with their rows, best first; those left out whose words are those of a better one.

    As many as `needed` are looked at; more only where too few of them were different.
    """
    hits: list[tuple[int, Hit]] = []
    block = needed(spec, top_k)
    for first in range(0, len(found.rows), max(block, 1)):
        rows = found.rows[first : first + block]
        chunks = fetch(rows)
        for row in rows:
            if row in chunks:
                stages = found.of(row)
                hits.append((row, Hit(chunks[row], stages[found.final].score, len(hits) + 1, found.final, stages)))
        if spec.deduplicate:
            spans = [(hit.chunk.source, hit.chunk.start, hit.chunk.end) for _, hit in hits]
            hits = [hits[i] for i in diversity.duplicates([hit.chunk.text for _, hit in hits], spans)]
        if len(hits) >= (block // SPARE if spec.deduplicate else block):
            break
    return hits


def order(
    hits: Sequence[tuple[int, Hit]],
    vectors: NDArray[np.float32] | None,
    query: str,
    spec: SearchSpec,
    top_k: int,
    reranker: Reranker | None,
    timings: Timings,
) -> list[Hit]:
    """The final hits.

    Args:
        hits: from `gather`.
        vectors: of each of the hits, where MMR will compare them.
        query: the question as it was asked.
        spec: the recipe's section.
        top_k: how many.
        reranker: the model of `spec.rerank`.
        timings: told of each stage.
    """
    chosen = [(i, hit) for i, (_, hit) in enumerate(hits)]
    if spec.rerank is not None:
        assert reranker is not None
        chosen = _reranked(chosen[: spec.rerank.candidates], query, spec, reranker)
        timings.mark("rerank")
    if spec.mmr is not None and vectors is not None and chosen:
        import numpy as np

        chosen = chosen[: spec.mmr.fetch_k]
        own = vectors[[i for i, _ in chosen]]
        scores = np.array([hit.score for _, hit in chosen], dtype=np.float32)
        picked = diversity.mmr(own, scores, top_k, spec.mmr.lambda_mult)
        why = diversity.moves(own, scores, picked)
        chosen = [(chosen[i][0], replace(chosen[i][1], move=move)) for i, move in zip(picked, why, strict=True)]
        timings.mark("mmr")
    return [replace(hit, rank=rank) for rank, (_, hit) in enumerate(chosen[:top_k], 1)]


def _read(chunk: Chunk) -> str:
    """What a reranker reads of a passage."""
    return "\n".join(filter(None, (chunk.title, chunk.head, chunk.text)))


def _reranked(hits: Sequence[tuple[int, Hit]], query: str, spec: SearchSpec, reranker: Reranker) -> list[tuple[int, Hit]]:
    """Hits in the order of a reranker, what does not reach its threshold left out."""
    judgement = reranker.judge(query, [_read(hit.chunk) for _, hit in hits])
    scores = judgement.scores.tolist()
    best = sorted(range(len(hits)), key=lambda i: (-scores[i], i))
    least = spec.min_score.get("rerank") if isinstance(spec.min_score, dict) else None
    result: list[tuple[int, Hit]] = []
    for i in best:
        if least is not None and scores[i] < least:
            break
        place, hit = hits[i]
        stages = {**hit.stages, "rerank": Step(len(result) + 1, scores[i])}
        result.append((place, replace(hit, score=scores[i], kind="rerank", stages=stages, windows=judgement.windows[i])))
    return result
