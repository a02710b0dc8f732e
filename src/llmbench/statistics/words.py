"""What clusters do to the figures, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmbench.statistics.clusters import SIGNS, clusters
from llmbench.statistics.values import Difference, Estimate

__all__ = ["clustering"]


def clustering(
    ids: Sequence[str],
    groups: Mapping[str, str],
    of: Sequence[Difference] | Sequence[Estimate],
    questions: str = "questions",
    pages: tuple[str, str] = ("page", "pages"),
) -> tuple[str, ...]:
    """How many questions share a page, and the design effect of these figures; nothing where none do."""
    named = [groups[id] for id in ids if id in groups]
    count = len(set(named))
    if count == len(named):
        return ()
    about = f"{len(named):,} {questions} are about {count:,} {pages[count != 1]}"
    if len(clusters(ids, groups).sizes) == len(ids):
        return (
            f"{about}: too few to cluster by {pages[0]}, so each counts as independent. The intervals hold for more "
            f"{questions} about the "
            f"same {pages[1]}, not for other {pages[1]}.",
        )
    effects = [one.deff for one in of] or [1.0]
    low, high = min(effects), max(effects)
    size = f"{high:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
    what = "differences" if of and isinstance(of[0], Difference) else "means"
    words = f"{about}, and are clustered by {pages[0]}. Design effect of the {what}: {size} (1 if no two shared a {pages[0]})."
    return (words + (f" Showing a difference takes at least {SIGNS} {pages[1]}." if count < SIGNS else ""),)
