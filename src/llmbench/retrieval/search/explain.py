"""Why a hit stands where it does, a line for each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmbench.recipe.rag import Stage
from llmbench.retrieval.search.diversity import Move
from llmbench.retrieval.search.hits import Hit

__all__ = ["Share", "Term", "explain", "shares"]


@dataclass(frozen=True)
class Term:
    """A word of the query and what the index knows of it: its number in the passage, the passages that have it."""

    term: str
    tf: int
    df: int


@dataclass(frozen=True)
class Share:
    """A word's part of a BM25 score: in points, and of the whole, 0 to 1."""

    term: str
    points: float
    share: float


def shares(terms: Sequence[Term], *, length: int, average: float, count: int, k1: float = 1.2, b: float = 0.75) -> list[Share]:
    """Each word's part of a passage's BM25 score, largest first; words that are not in it have none.

    The formula is SQLite FTS5's (Robertson and Zaragoza 2009), whose `bm25()` gives the sum with its sign turned:

        idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average)),  idf = ln((count - df + 0.5) / (df + 0.5)), > 0

    Args:
        terms: the words of the query, each once.
        length: words of the passage.
        average: the mean of that over all passages.
        count: how many passages there are.
        k1: how soon more of the same word counts no more.
        b: how much length counts against a passage.
    """
    points = {}
    for term in terms:
        if term.tf > 0:
            # FTS5 gives a word that stands in more than half of all passages a millionth rather than less than nothing.
            idf = max(math.log((count - term.df + 0.5) / (term.df + 0.5)), 1e-6)
            points[term.term] = idf * term.tf * (k1 + 1) / (term.tf + k1 * (1 - b + b * length / average))
    total = sum(points.values())
    return [Share(word, value, value / total) for word, value in sorted(points.items(), key=lambda item: (-item[1], item[0]))]


def explain(
    hit: Hit,
    *,
    terms: Sequence[Share] = (),
    reranker: str = "",
    scale: str = "",
    unmatched: Sequence[str] = (),
) -> str:
    """One line for each stage that the hit passed, in their order.

    Args:
        hit: with its places and scores; a stage that has none did not have it among its candidates.
        terms: what `shares` gave.
        reranker: the model's name.
        scale: `Reranker.scale`.
        unmatched: words of the query that it does not have.
    """
    lines = []
    stages: tuple[Stage, ...] = ("dense", "terms", "fused", "rerank")
    for stage in stages:
        step = hit.stages.get(stage)
        if step is None:
            if stage in ("dense", "terms") and len(hit.stages) > 1:
                lines.append(f"{stage:<7}not among the candidates")
            continue
        score = f"{step.score:.4f}"
        lines.append(f"{stage:<7}rank {step.rank}, {_told(stage, score, terms, unmatched, reranker, scale, hit.windows)}")
    if hit.move is not None:
        lines.append(f"mmr    {_moved(hit.move)}")
    lines.append(f"final  rank {hit.rank}")
    return "\n".join(lines)


def _told(
    stage: Stage, score: str, terms: Sequence[Share], unmatched: Sequence[str], reranker: str, scale: str, windows: int
) -> str:
    match stage:
        case "dense":
            return f"cosine {score}"
        case "terms":
            words = ", ".join(f"{part.term} {part.share:.0%}" for part in terms)
            missing = f"; not in it: {', '.join(unmatched)}" if unmatched else ""
            return f"BM25 {score}" + (f" ({words}{missing})" if words or missing else "")
        case "fused":
            return f"score {score}"
        case "rerank":
            pieces = f", best of {windows} windows" if windows > 1 else ""
            return f"{reranker or 'model'} {score}" + (f" ({scale}{pieces})" if scale else pieces)


def _moved(move: Move) -> str:
    if move.nearest is None or move.cosine is None:
        return f"{move.before} -> {move.after}: the best scored comes first"
    like = f"most like the one chosen as candidate {move.nearest + 1}, cosine {move.cosine:.2f}"
    if move.after > move.before:
        return f"{move.before} -> {move.after}: put back, {like}"
    if move.after < move.before:
        return f"{move.before} -> {move.after}: put forward, it repeats less ({like})"
    return f"{move.before}: where it was ({like})"
