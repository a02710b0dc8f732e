"""Passages that say the same as an earlier one: by a hash of their words, and nearly, by MinHash (rensa).

Near is estimated, not proven: of 120 MinHash values one byte each is kept, whose agreement estimates the Jaccard similarity
of two passages' runs of five words within .04; pairs are found by 20 bands of six values, which misses two in a thousand at
the threshold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING
from zlib import crc32

from llmbench.errors import MissingPackage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["THRESHOLD", "Repeated", "Repetition", "Repetitions"]

THRESHOLD = 0.8
"""Jaccard similarity from which two passages count as near duplicates."""
EXAMPLES = 10
"""How many pairs are named."""

_RUN = 5
_BANDS, _DEPTH = 20, 6
_VALUES = _BANDS * _DEPTH
_BATCH = 2_000
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""Words; characters of scripts that are written without spaces are words each."""


@dataclass(frozen=True)
class Repeated:
    """A passage and an earlier one that says the same: where they are, and the similarity, 1 for the same words."""

    place: str
    earlier: str
    similarity: float


@dataclass(frozen=True)
class Repetitions:
    """Documents and passages that repeat an earlier one, and the first such passages."""

    documents: int
    same: int
    near: int
    examples: tuple[Repeated, ...]


class Repetition:
    """Collects passages; `result` compares them.

    Raises:
        MissingPackage: rensa is not installed.
    """

    def __init__(self) -> None:
        try:
            import rensa  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise MissingPackage("index report", "rensa", "rag") from error
        self._texts: set[bytes] = set()
        self._seen: dict[bytes, int] = {}
        self._places: list[str] = []
        self._waiting: list[list[int]] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._bytes: list[NDArray[np.uint8]] = []
        self._examples: list[Repeated] = []
        self._documents = self._same = 0

    def document(self, text: str) -> None:
        """Takes in a document's text."""
        digest = blake2b(" ".join(text.lower().split()).encode("utf-8", "surrogatepass"), digest_size=12).digest()
        self._documents += digest in self._texts
        self._texts.add(digest)

    def chunk(self, text: str, place: str) -> None:
        """Takes in a passage."""
        words = _WORD.findall(text.lower())
        digest = blake2b(" ".join(words or text.split()).encode("utf-8", "surrogatepass"), digest_size=12).digest()
        first = self._seen.setdefault(digest, len(self._places))
        if first < len(self._places):
            self._same += 1
            if len(self._examples) < EXAMPLES:
                self._examples.append(Repeated(place, self._places[first], 1.0))
            return
        self._places.append(place)
        self._waiting.append([crc32(word.encode("utf-8", "surrogatepass")) for word in words])
        if len(self._waiting) == _BATCH:
            self._digest()

    def result(self) -> Repetitions:
        """How many repeat an earlier one."""
        import numpy as np

        self._digest()
        nearest: dict[int, tuple[int, float]] = {}
        if self._keys:
            keys, values = np.concatenate(self._keys), np.concatenate(self._bytes)
            for band in keys.T:
                for later, earlier in _neighbours(band):
                    for start in range(0, len(later), 10_000):
                        a, b = later[start : start + 10_000], earlier[start : start + 10_000]
                        # Two different values share their byte once in 256.
                        alike = ((values[a] == values[b]).mean(axis=1) * 256 - 1) / 255
                        for i in np.flatnonzero(alike >= THRESHOLD).tolist():
                            found = (int(b[i]), float(alike[i]))
                            nearest[int(a[i])] = max(nearest.get(int(a[i]), (0, 0.0)), found, key=lambda pair: pair[1])
        near = sorted(nearest.items(), key=lambda item: (-item[1][1], item[0]))[:EXAMPLES]
        named = [Repeated(self._places[a], self._places[b], round(alike, 2)) for a, (b, alike) in near]
        return Repetitions(self._documents, self._same, len(nearest), tuple([*self._examples, *named][:EXAMPLES]))

    def _digest(self) -> None:
        """Turns the waiting passages into their keys."""
        import numpy as np
        from rensa import RMinHash

        if not self._waiting:
            return
        runs = [_runs(words) for words in self._waiting]
        offsets = np.cumsum([0, *map(len, runs)]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(runs), offsets, _VALUES, 1)
        digest = np.asarray(matrix.to_rows(), dtype=np.uint64)
        bands = digest.reshape(-1, _BANDS, _DEPTH)
        key = np.zeros(bands.shape[:2], dtype=np.uint64)
        for i in range(_DEPTH):
            key = key * np.uint64(0x9E3779B97F4A7C15) + bands[:, :, i]
            key ^= key >> np.uint64(29)
        self._keys.append(key)
        self._bytes.append((digest & np.uint64(255)).astype(np.uint8))
        self._waiting = []


def _runs(words: list[int]) -> NDArray[np.uint64]:
    """Hashes of all runs of five words; a shorter passage is one run."""
    import numpy as np

    codes = np.array(words or [0], dtype=np.uint64)
    length = max(len(codes) - _RUN + 1, 1)
    result = np.zeros(length, dtype=np.uint64)
    for i in range(min(_RUN, len(codes))):
        result = result * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + length]
        result ^= result >> np.uint64(31)
    return result


def _neighbours(band: NDArray[np.uint64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Passages of equal keys: each with the one before it, and with the first of them."""
    import numpy as np

    order = np.argsort(band, kind="stable")
    same = band[order][1:] == band[order][:-1]
    at = np.flatnonzero(same) + 1
    if not len(at):
        return []
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    first = begins[np.searchsorted(begins, at, side="right") - 1]
    return [(order[at], order[at - 1]), (order[at], order[first])]
