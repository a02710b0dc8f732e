"""Whether the embedder was made for the language of the documents, and what weight meaning has in a search where it was not.

An English model reads Russian letter by letter and Chinese not at all; its vectors of such texts are next to noise, and at
the usual weight they spoil what words find. So a sample of the passages is looked at. Where the vocabulary hardly knows some
of them, queries are made of these (a quarter of each, cut out), and it is measured how often their vectors find the passage
that they were cut from. That share decides the weight, for questions in such a language alone: any other keeps the usual one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.embedding import Embedder, Reading
from llmbench.retrieval.store import WritableIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ALPHA", "Language", "measure", "stored", "weight"]

ALPHA = 0.6
"""The weight of dense where nothing was tuned: the best of those that need no judged queries (docs/decisions/006-fusion.md)."""
SAMPLE = 300
"""Passages that are looked at: a share of 1 % is seen with a chance of 95 %."""
QUERIES = 100
"""Queries made at most: a share of 0.8 is known to 0.08."""
POOL = 1000
"""Passages among which a query must find its own."""
NOISE, SOUND = 0.7, 0.9
"""Mean reciprocal ranks from which meaning counts at all, and as usual. Of English collections 0.86 to 0.99; of 752
Chinese answers 0.46, where nDCG@10 is .428 at the usual weight and .864 at 0; of collections whose letters were exchanged for
others of the same script 0.49 and 0.67, of another one 0.04 to 0.38, where weight 0 was within 0.011 of the best one."""
_SHORTEST = 40
"""Characters of a passage of which a query is made."""
GROWN = 0.1
"""The share of passages that may come or go before it is looked at again."""


@dataclass(frozen=True)
class Language:
    """What was seen of the passages.

    `share` is the part of them that the embedder hardly knows, `blind` that of which it knows next to nothing, `found` the mean
    reciprocal rank of passages for queries made of them (None: none were made), `alpha` the weight of meaning for questions in
    such a language.
    """

    passages: int
    share: float
    blind: float
    found: float | None
    alpha: float
    examples: tuple[str, ...] = ()

    def words(self, model: str) -> str:
        """What a user should know, in a line; empty where meaning counts as usual."""
        if self.share == 0 or (self.alpha >= ALPHA and not self.blind):
            return ""
        part = "most of the text" if self.share > 0.5 else f"{max(self.share, 0.01):.0%} of the passages"
        told = f" (such as {', '.join(self.examples)})" if self.examples else ""
        how = "by words only" if self.alpha == 0 else f"mostly by words (alpha {self.alpha:g})"
        return (
            f"{model} barely knows the language or script of {part}{told}; questions in it are searched {how}. For semantic "
            f"search choose a multilingual embedder, such as embedder.model_name_or_path=intfloat/multilingual-e5-small, or "
            f"tune "
            "the weight on judged questions (llmbench evaluate rag --tune)."
        )


def stored(index: Any) -> Language | None:
    """What an index notes; None where nothing was measured."""
    noted = index.get("language")
    return None if noted is None else Language(**{**noted, "examples": tuple(noted["examples"])})


def weight(found: Language | None, reading: Reading) -> float:
    """The weight of meaning in a question of which so much is known, where nothing was tuned."""
    if reading.blind:
        return 0.0
    if found is None or found.alpha >= ALPHA:
        return ALPHA
    if not reading.letters:  # figures alone: as most of the passages are
        return found.alpha if found.share > 0.5 else ALPHA
    return found.alpha if reading.foreign else ALPHA


def measure(index: WritableIndex, embedder: Embedder) -> Language:
    """Looks at the passages of an index anew where they have become others, and notes what it finds."""
    before, now = stored(index), index.count()
    if before is not None and abs(now - before.passages) <= GROWN * before.passages:
        return before
    try:
        found = _measured(index, embedder, now)
    except IndexError_:  # a passage is damaged, which whoever searches it, or verifies the index, is told
        return before or Language(now, 0.0, 0.0, None, ALPHA)
    with index.transaction():
        index.set(language=asdict(found))
    return found


def _measured(index: WritableIndex, embedder: Embedder, passages: int) -> Language:
    import numpy as np

    rng = np.random.default_rng(0)
    living = np.flatnonzero(index.expected() >= 0)
    looked = index.chunks(np.sort(rng.permutation(living)[:SAMPLE]).tolist())
    readings = {row: embedder.reading(chunk.text) for row, chunk in looked.items()}
    foreign = {row: chunk for row, chunk in looked.items() if _is_foreign(readings[row])}
    blind = sum(readings[row].blind for row in foreign)
    if not foreign:
        return Language(passages, 0.0, 0.0, None, ALPHA)
    sources = tuple(dict.fromkeys(chunk.source for chunk in foreign.values()))[:3]
    shares = round(len(foreign) / len(looked), 3), round(blind / len(looked), 3)
    asked = {row: chunk.text for row, chunk in foreign.items() if len(chunk.text) >= _SHORTEST}
    rows = list(asked)[:QUERIES]
    if not rows or 2 * blind > len(foreign):  # vectors of what is unknown say nothing
        return Language(passages, *shares, None, 0.0, sources)
    others = [row for row in rng.permutation(living)[:POOL].tolist() if row not in set(rows)]
    vectors = index.vectors.take([*rows, *others], index.identities([*rows, *others]))
    queries = embedder.embed_queries([_cut_out(asked[row], rng) for row in rows])
    found = _reciprocal(queries @ vectors.T)
    alpha = round(ALPHA * min(1.0, max(0.0, (found - NOISE) / (SOUND - NOISE))), 2)
    return Language(passages, *shares, round(found, 3), alpha, sources)


def _is_foreign(reading: Reading) -> bool:
    """Whether a passage is text, and of a language that the vocabulary was not made for: codes and figures are of none."""
    is_text = reading.letters >= _SHORTEST // 2 and 2 * reading.letters >= reading.characters
    return reading.blind or (is_text and reading.foreign)


def _cut_out(text: str, rng: np.random.Generator) -> str:
    """A quarter of a passage, from anywhere in it."""
    length = max(len(text) // 4, _SHORTEST // 4)
    start = int(rng.integers(0, len(text) - length))
    return text[start : start + length]


def _reciprocal(scores: NDArray[np.float32]) -> float:
    """The mean reciprocal rank of row i among all, for query i; only the first ten places count."""
    import numpy as np

    own = np.diagonal(scores)
    ranks = (scores > own[:, None] + 1e-6).sum(axis=1) + 1
    # Vectors of unknown texts are equal: a query that fits many alike finds its own by chance.
    ties = (np.abs(scores - own[:, None]) <= 1e-6).sum(axis=1) - 1
    ranks = ranks + ties / 2
    return float(np.where(ranks <= 10, 1 / ranks, 0).mean())
