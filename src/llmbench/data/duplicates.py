"""Rows that say the same: exactly, or nearly, within the training rows and between them and the held-out ones.

Exact is by hash of the token ids. Near is the Jaccard similarity of the rows' shingles of five words, found by MinHash and
locality-sensitive hashing (rensa) and then computed exactly, so that no pair is reported that does not reach the threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

__all__ = ["THRESHOLD", "Group", "Words", "candidates", "digests", "groups"]

THRESHOLD = 0.8
"""Jaccard similarity from which two rows count as near duplicates."""

_WORDS = 5
_PERMUTATIONS = 256
_RECALL = 0.98
_CROWD = 24
"""Rows of one bucket up to which each pair is looked at; above, each with the first and with its neighbour."""
_CHUNK = 5_000
_APART = r"([^\p{L}\p{N}\s]|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
"""What is a word of its own: every sign, and characters of scripts that are written without spaces."""


@dataclass(frozen=True)
class Group:
    """Rows that are duplicates of each other, by their numbers."""

    rows: tuple[int, ...]
    similarity: float
    """The lowest Jaccard similarity by which a row came in; 1.0 for rows of the same tokens."""
    exact: bool


class Words:
    """The shingles of texts: hashes of five words in a row; a shorter text is one shingle. Case and spacing do not count."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def shingles(self, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Arrow strings -> all shingles (uint64) one after another, and where each text's begin (int64, one more)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        apart = pc.replace_substring_regex(pc.utf8_lower(texts.cast(pa.large_string())), _APART, r" \1 ")
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(apart))
        coded = pc.dictionary_encode(words.flatten())
        known = [self._numbers.setdefault(word, len(self._numbers)) for word in coded.dictionary.to_pylist()]
        codes = np.asarray(known, dtype=np.uint64)[coded.indices.to_numpy()] if known else np.zeros(0, np.uint64)
        real = codes != self._numbers.setdefault("", len(self._numbers))  # splitting an empty text gives one empty word
        starts = np.concatenate([[0], np.cumsum(real)])[words.offsets.to_numpy() - words.offsets[0].as_py()]
        return _rolled(_mixed(codes[real]), starts)


def _rolled(codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shingles of word codes, none of which spans two texts."""
    counts = np.diff(starts)
    lengths = np.maximum(counts - _WORDS + 1, np.minimum(counts, 1))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    first = np.repeat(starts[:-1] - offsets[:-1], lengths) + np.arange(offsets[-1])
    last = np.repeat(starts[1:], lengths)
    found = np.zeros(offsets[-1], dtype=np.uint64)
    for i in range(_WORDS):
        inside = first + i < last
        found[inside] = found[inside] * np.uint64(0x9E3779B97F4A7C15) + codes[first[inside] + i]
    return _mixed(found), offsets


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spreads numbers over 64 bits (the finalizer of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = values ^ (values >> np.uint64(31))
    return result


def digests(ids: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
    """A hash of each row's token ids."""
    view = np.ascontiguousarray(ids)
    return [hashlib.blake2b(view[a:b].tobytes(), digest_size=12).digest() for a, b in zip(starts, ends, strict=True)]


def groups(texts: Any, hashes: Sequence[bytes], threshold: float = THRESHOLD) -> list[Group]:
    """Every group of duplicates, the largest first.

    Args:
        texts: Arrow strings, what a row says without what every row has in common.
        hashes: of each row's token ids.
        threshold: the Jaccard similarity from which two rows are near duplicates.
    """
    same: dict[bytes, list[int]] = {}
    for row, key in enumerate(hashes):
        same.setdefault(key, []).append(row)
    firsts = [rows[0] for rows in same.values()]
    members = {rows[0]: rows for rows in same.values()}
    found = [Group(tuple(rows), 1.0, True) for rows in same.values() if len(rows) > 1]
    for linked, similarity in _near(texts, firsts, threshold):
        together = sorted(row for first in linked for row in members[first])
        found = [group for group in found if group.rows[0] not in linked]
        found.append(Group(tuple(together), similarity, False))
    return sorted(found, key=lambda group: (-len(group.rows), group.rows))


def _near(texts: Any, rows: list[int], threshold: float) -> list[tuple[set[int], float]]:
    """Groups of near duplicates among rows that all differ, each with its lowest similarity."""
    import pyarrow as pa

    if len(rows) < 2:
        return []
    words, chosen = Words(), texts.take(pa.array(rows))
    pairs = candidates(words, chosen, threshold)
    needed = sorted({row for pair in pairs for row in pair})
    if not needed:
        return []
    shingles, offsets = words.shingles(chosen.take(pa.array(needed)))
    sets = {row: np.unique(shingles[offsets[i] : offsets[i + 1]]) for i, row in enumerate(needed)}
    leader = list(range(len(rows)))
    lowest: dict[int, float] = {}
    for a, b in pairs:
        x, y = _leader(leader, a), _leader(leader, b)
        if x == y:
            continue
        similarity = _jaccard(sets[a], sets[b])
        if similarity >= threshold:
            leader[y] = x
            lowest[x] = min(similarity, lowest.get(x, 1.0), lowest.get(y, 1.0))
    together: dict[int, set[int]] = {}
    for i in needed:
        together.setdefault(_leader(leader, i), set()).add(rows[i])
    return [(group, lowest[x]) for x, group in together.items() if len(group) > 1]


def candidates(words: Words, texts: Any, threshold: float) -> list[tuple[int, int]]:
    """Pairs of texts that may be as alike as the threshold says: some band of their MinHash is equal."""
    from rensa import RMinHash  # type: ignore[import-untyped]

    depth = _depth(threshold)
    keys, empty = [], []
    for start in range(0, len(texts), _CHUNK):
        shingles, offsets = words.shingles(texts.slice(start, _CHUNK))
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets.astype(np.uint64), _PERMUTATIONS, 1)
        digest = np.asarray(matrix.to_rows(), dtype=np.uint64).reshape(-1, _PERMUTATIONS // depth, depth)
        empty.append(np.diff(offsets) == 0)
        key = np.zeros(digest.shape[:2], dtype=np.uint64)
        for i in range(depth):
            key = _mixed(key ^ digest[:, :, i])
        keys.append(key)
    bands, nothing = np.concatenate(keys), np.concatenate(empty)
    found: set[tuple[int, int]] = set()
    for band in bands.T:
        for bucket in _buckets(band, ~nothing):
            found.update(_pairs(bucket))
    return sorted(found)


def _depth(threshold: float) -> int:
    """Rows a band: as many as still find nearly every pair at the threshold."""
    for depth in (32, 16, 8, 4, 2):
        if 1 - (1 - threshold**depth) ** (_PERMUTATIONS // depth) >= _RECALL:
            return depth
    return 1


def _buckets(band: np.ndarray, used: np.ndarray) -> Iterator[list[int]]:
    """Rows whose keys are equal, where there are two or more."""
    rows = np.flatnonzero(used)
    order = rows[np.argsort(band[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(band[order])) + 1
    edges = np.concatenate([[0], cuts, [len(order)]])
    for i in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[i] : edges[i + 1]].tolist()


def _pairs(bucket: list[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= _CROWD:
        yield from combinations(bucket, 2)
        return
    yield from ((bucket[0], row) for row in bucket[1:])
    yield from pairwise(bucket)


def _leader(leader: list[int], row: int) -> int:
    while leader[row] != row:
        leader[row] = leader[leader[row]]
        row = leader[row]
    return row


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
