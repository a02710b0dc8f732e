"""Why a hit stands where it does, a line for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmbench.recipe import Stage
from llmbench.retrieval.search.diversity import Move
from llmbench.retrieval.search.hits import Hit

__all__ = ["Share", "explain", "shares"]


@dataclass(frozen=True)
class Share:
    """A word's part of a BM25 score: in points, and of the whole, 0 to 1."""

    term: str
    points: float
    share: float


def shares(points: Mapping[str, float]) -> list[Share]:
    """Each word's part of a passage's BM25 score, largest first; words that are not in it have none.

    BM25 is a sum over the words of a query, so that the parts of `Index.word_points` make up the whole.
    """
    total = sum(points.values())
    found = sorted(((value, word) for word, value in points.items() if value > 0), key=lambda item: (-item[0], item[1]))
    return [Share(word, value, value / total) for value, word in found]


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
        return f"{move.before} -> {move.after}: moved down, {like}"
    if move.after < move.before:
        return f"{move.before} -> {move.after}: moved up, it repeats less ({like})"
    return f"{move.before}: unchanged ({like})"
