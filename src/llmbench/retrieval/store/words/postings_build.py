"""Makes files of postings: from passages, whose words FTS5 tells apart, and from smaller files.

Small files are merged into larger ones, so that adding passages costs little more than what is added, and few files answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import IndexError_
from llmbench.retrieval.store.words import terms
from llmbench.retrieval.store.words.postings import HEAD, MAGIC, Part, Plan, Segment, seal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BATCH", "LEAST", "cut", "merge", "to_merge"]

LEAST = 10_000
"""Passages from which on there are postings: FTS5 takes 5 ms for a question there."""

BATCH = 50_000
"""Passages whose words are taken apart at once: 70 MB."""

_GROWTH = 4
"""A file is merged with the one before it unless that has this many times its postings: the number of files is a logarithm."""

_CHUNK = 4_000_000
"""Postings merged at once: 60 MB."""


def cut(passages: Iterable[tuple[int, str, str, str]], first: int, end: int) -> Part:
    """The words of passages, told apart by FTS5 in a table in memory, so that they are those of the index to the letter.

    Args:
        passages: row, title, column heads and text of each.
        first: no row is below it.
        end: all are below it.
    """
    import numpy as np

    db = sqlite3.connect(":memory:")
    db.text_factory = bytes  # a word of over 32 KB is cut, maybe inside of a character
    try:
        db.executescript(terms.schema("terms"))
        db.executemany(
            "INSERT INTO terms(rowid, title, text) VALUES (?, ?, ?)",
            ((row - first, *terms.columns(*texts)) for row, *texts in passages),
        )
        db.executescript(
            "CREATE VIRTUAL TABLE words USING fts5vocab(terms, row);"
            "CREATE VIRTUAL TABLE places USING fts5vocab(terms, instance);"
        )
        words, sizes = list[bytes](), list[int]()
        for word, size in db.execute("SELECT term, cnt FROM words"):
            words.append(word)
            sizes.append(size)
        # In the order of words, then of rows: a number a place, which is the row's, and whether it is in the title.
        places = np.fromiter((place for (place,) in db.execute("SELECT doc * 2 + (col = 'title') FROM places")), dtype=np.int64)
    finally:
        db.close()
    rows = (places >> 1).astype(np.int32)
    word = np.repeat(np.arange(len(words), dtype=np.int32), sizes)
    new = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]) | (word[1:] != word[:-1])]) if len(rows) else np.zeros(0, np.int64)
    weights = 1 + (terms.TITLE - 1) * (places & 1)
    starts = np.searchsorted(word[new], np.arange(len(words) + 1))
    lengths = np.bincount(rows, minlength=end - first).astype(np.int32)
    return _part(
        first, end, words, starts, lengths, rows[new] + np.int32(first), np.add.reduceat(weights, new) if len(new) else weights
    )


def _part(
    first: int,
    end: int,
    words: Sequence[bytes],
    starts: NDArray[Any],
    lengths: NDArray[Any],
    rows: NDArray[Any],
    counts: NDArray[Any],
) -> Part:
    return Part(first, end, {**_words(words), "starts": starts, "lengths": lengths, "rows": rows, "counts": counts})


def _words(words: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays that hold words. None of them has a line's end: it is no letter and no digit."""
    import numpy as np

    bounds = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum([len(word) + 1 for word in words], out=bounds[1:])
    text = bytearray(b"".join(word + b"\n" for word in words))
    return {"words": np.frombuffer(text, dtype=np.uint8) if text else np.zeros(0, np.uint8), "bounds": bounds}


def to_merge(sizes: Sequence[int]) -> int:
    """How many of the last files, by their postings, are to become one; 1 where the last one may stay."""
    count, total = 1, sizes[-1] if sizes else 0
    while count < len(sizes) and sizes[-count - 1] <= _GROWTH * total:
        count += 1
        total += sizes[-count]
    return count


def merge(parts: Sequence[Part], alive: NDArray[np.bool_] | None, folder: Path) -> Plan:
    """Writes one file of several parts that follow one another, whole or not at all.

    Args:
        parts: by their rows.
        alive: which rows have a passage, at least as many as the parts cover; words of the others are left out. None is all.
        folder: of the generation.

    Raises:
        BrokenPostings: a part is a file, and damaged.
        IndexError_: the disk is full.
    """
    for part in parts:
        if isinstance(part, Segment):
            part.check()
    temporary = folder / "postings.tmp"
    try:
        plan = _write(_Merge(parts, alive), temporary)
        temporary.replace(folder / plan.file)
        workspace.to_disk(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        advice = "Free some space and run it again; earlier work is kept."
        raise IndexError_(f"{folder / 'postings'} cannot be written ({error.strerror}). {advice}") from error
    return plan


class _Merge:
    """The head of what parts become together, and its postings a stretch of words at a time."""

    def __init__(self, parts: Sequence[Part], alive: NDArray[np.bool_] | None) -> None:
        import numpy as np

        self.parts, self.alive = parts, alive
        self.first, self.end = parts[0].first, parts[-1].end
        vocabularies = [part.words() for part in parts]
        union = sorted(set().union(*vocabularies)) if len(parts) > 1 else vocabularies[0]
        place = {word: i for i, word in enumerate(union)}
        # Which word each word of a part becomes; ascending, as the words are.
        self.maps = [np.fromiter((place[word] for word in words), np.int64, len(words)) for words in vocabularies]
        self.kept = [self._alive_of(part) for part in parts]
        totals = np.zeros(len(union), dtype=np.int64)
        for to, kept in zip(self.maps, self.kept, strict=True):
            totals[to] += kept
        self.used = np.flatnonzero(totals)
        self.totals = totals
        self.words = [union[i] for i in self.used]
        self.starts = np.r_[0, np.cumsum(totals[self.used])].astype(np.int64)
        self.lengths = np.concatenate([part.lengths for part in parts])
        if alive is not None:
            self.lengths = np.where(alive[self.first : self.end], self.lengths, 0).astype(np.int32)
        most = max((int(part.counts.max()) for part in parts if len(part.counts)), default=1)
        self.kind = np.dtype(next(kind for kind in ("uint8", "uint16", "uint32") if most <= np.iinfo(kind).max))

    def _alive_of(self, part: Part) -> NDArray[np.int64]:
        """How many living rows hold each word of a part."""
        import numpy as np

        if self.alive is None:
            return np.diff(part.starts)
        found = np.empty(len(part.starts) - 1, dtype=np.int64)
        for low, high in _stretches(part.starts):
            inside = self.alive[part.between(low, high)[0]].astype(np.int64)
            begins = part.starts[low:high] - part.starts[low]
            found[low:high] = np.add.reduceat(inside, begins) if len(inside) else 0
        return found

    def stretches(self) -> Iterator[tuple[int, NDArray[np.int32], NDArray[Any]]]:
        """The first word of each stretch of words that are used, and the postings of all its words."""
        import numpy as np

        for low, high in _stretches(self.starts):
            rows = np.empty(int(self.starts[high] - self.starts[low]), dtype=np.int32)
            counts = np.empty(len(rows), dtype=self.kind)
            free = np.zeros(len(self.totals), dtype=np.int64)
            free[self.used[low:high]] = self.starts[low:high] - self.starts[low]
            words = self.used[low], self.used[high - 1] + 1
            for part, to, kept in zip(self.parts, self.maps, self.kept, strict=True):
                begin, stop = np.searchsorted(to, words)
                own, often = part.between(begin, stop)
                if self.alive is not None:
                    living = self.alive[own]
                    own, often = own[living], often[living]
                sizes = kept[begin:stop]
                before = np.cumsum(sizes) - sizes
                at = np.repeat(free[to[begin:stop]] - before, sizes) + np.arange(len(own))
                rows[at], counts[at] = own, often
                free[to[begin:stop]] += sizes
            yield low, rows, counts


def _stretches(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Words in stretches whose postings are merged at once; a word is never divided."""
    import numpy as np

    low, last = 0, len(starts) - 1
    while low < last:
        high = int(np.searchsorted(starts, starts[low] + _CHUNK, side="right")) - 1
        high = min(max(high, low + 1), last)
        yield low, high
        low = high


def _write(merged: _Merge, path: Path) -> Plan:
    """Writes the file; the head comes last, when the postings' checksums are known."""
    import numpy as np

    arrays = {
        **_words(merged.words),
        "starts": merged.starts,
        "sums": np.zeros(len(merged.words), dtype=np.uint32),
        "lengths": merged.lengths,
    }
    total = int(merged.starts[-1])
    places: dict[str, tuple[str, int, int]] = {}
    at = 4096
    sizes = {name: (array.dtype, len(array)) for name, array in arrays.items()}
    for name, (kind, count) in {**sizes, "rows": (np.dtype(np.int32), total), "counts": (merged.kind, total)}.items():
        places[name] = (kind.str, count, at)
        at += -(-kind.itemsize * count // 64) * 64
    header = json.dumps({"arrays": places}).encode()
    assert tuple(places) == (*HEAD, "rows", "counts")
    with path.open("w+b") as file:
        for low, rows, counts in merged.stretches():
            for name, some in (("rows", rows), ("counts", counts)):
                file.seek(places[name][2] + int(merged.starts[low]) * some.itemsize)
                file.write(some.data)
            inside = merged.starts[low:] - merged.starts[low]
            last = int(np.searchsorted(inside, len(rows)))
            for i in range(last):
                one = slice(int(inside[i]), int(inside[i + 1]))
                arrays["sums"][low + i] = seal(rows[one], counts[one])
        head = bytearray(places["rows"][2])
        head[:16] = MAGIC + len(header).to_bytes(8, "little")
        head[16 : 16 + len(header)] = header
        for name in HEAD:
            _, _, offset = places[name]
            raw = arrays[name].tobytes()
            head[offset : offset + len(raw)] = raw
        file.seek(0)
        file.write(head)
        file.truncate(at)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        whole = hashlib.file_digest(file, "blake2b").hexdigest()
    digest = hashlib.blake2b(head).hexdigest()
    return Plan(f"postings-{whole[:16]}.bin", merged.first, merged.end, total, digest, whole)
