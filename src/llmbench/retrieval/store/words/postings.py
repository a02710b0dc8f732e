"""Postings: which passages hold each word and how often, in files that are mapped and searched without SQLite.

FTS5 looks at every passage that holds a word of the question, a row at a time, so that its searches grow with the collection.
A file here covers a range of rows; it never changes, and is derived from the passages' words, which FTS5 tells apart.

    magic, length of the header, header (JSON: where each array lies)
    words      every word, in the order of its bytes, a line each
    bounds     (words + 1,) int64        where each begins
    starts     (words + 1,) int64        where its postings begin
    sums       (words,) uint32           CRC-32 of its postings
    lengths    (rows,) int32             words of each passage
    rows       (postings,) int32         ascending within a word
    counts     (postings,) uint8 to 32   how often it stands there; in a title it counts twice

Everything before `rows` is checked when a file is opened, a word's postings when the word is first asked for.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HEAD", "MAGIC", "BrokenPostings", "Part", "Plan", "Segment", "plans", "seal", "to_json", "written"]

MAGIC = b"LLMBPOS1"
HEAD = ("words", "bounds", "starts", "sums", "lengths")
"""The arrays of the head, in their order."""


class BrokenPostings(IndexError_):
    """A file of postings is missing, damaged, or not the one the store knows. The passages' words make it again."""


@dataclass(frozen=True)
class Plan:
    """What the store notes of one file."""

    file: str
    first: int
    """It covers rows first to end."""
    end: int
    postings: int
    head: str
    """BLAKE2b of everything before the postings."""
    checksum: str
    """BLAKE2b of the file."""


class Part:
    """Postings of the rows `first` to `end`, in memory or mapped."""

    def __init__(self, first: int, end: int, arrays: dict[str, NDArray[Any]]) -> None:
        self.first, self.end = first, end
        self.text: NDArray[np.uint8] = arrays["words"]
        self.bounds: NDArray[np.int64] = arrays["bounds"]
        self.starts: NDArray[np.int64] = arrays["starts"]
        self.lengths: NDArray[np.int32] = arrays["lengths"]
        self.rows: NDArray[np.int32] = arrays["rows"]
        self.counts: NDArray[Any] = arrays["counts"]
        self._places: dict[bytes, int] = {}

    def words(self) -> list[bytes]:
        """All of them, ascending."""
        return self.text.tobytes().split(b"\n")[:-1]

    def place(self, word: bytes) -> int:
        """Which word it is, or -1."""
        place = self._places.get(word)
        if place is None:
            low, high = 0, len(self.bounds) - 1
            while low < high:
                middle = (low + high) // 2
                if self._word(middle) < word:
                    low = middle + 1
                else:
                    high = middle
            place = low if low < len(self.bounds) - 1 and self._word(low) == word else -1
            if len(self._places) > 10_000:
                self._places.clear()
            self._places[word] = place
        return place

    def _word(self, place: int) -> bytes:
        return self.text[self.bounds[place] : self.bounds[place + 1] - 1].tobytes()

    def of(self, place: int) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """The rows that hold a word, ascending, and how often each."""
        inside = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return self.rows[inside], self.counts[inside]

    def between(self, low: int, high: int) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """The postings of the words `low` to `high`, one after another."""
        inside = slice(int(self.starts[low]), int(self.starts[high]))
        return self.rows[inside], self.counts[inside]


class Segment(Part):
    """A file of postings, mapped."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Opens the file that a plan describes.

        Raises:
            BrokenPostings: it is not there, or its head is not byte for byte what was written.
        """
        import numpy as np

        self.plan, self.path = plan, folder / plan.file
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            data = np.frombuffer(self._map, dtype=np.uint8)
            size = int.from_bytes(data[8:16].tobytes(), "little")
            header = json.loads(data[16 : 16 + size].tobytes())
            places = header["arrays"]
            if hashlib.blake2b(data[: places["rows"][2]].data).hexdigest() != plan.head:
                raise self._broken("is damaged")
            arrays = {
                name: data[offset : offset + count * np.dtype(kind).itemsize].view(kind)
                for name, (kind, count, offset) in places.items()
            }
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise self._broken(f"cannot be read ({error})") from error
        super().__init__(plan.first, plan.end, arrays)
        self._size = len(self._map)
        self._sums: NDArray[np.uint32] = arrays["sums"]
        self._sound = np.zeros(len(self._sums), dtype=bool)

    def of(self, place: int) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """The rows that hold a word, ascending, and how often each.

        Raises:
            BrokenPostings: they are not as they were written.
        """
        rows, counts = super().of(place)
        if not self._sound[place]:
            if seal(rows, counts) != int(self._sums[place]):
                raise self._broken("is damaged")
            self._sound[place] = True
        return rows, counts

    def stands(self) -> None:
        """To be called before a search: to touch what was cut off from a mapped file would kill the process.

        Raises:
            BrokenPostings: the file is shorter than when it was opened.
        """
        if self._map.size() < self._size:
            raise self._broken("is damaged")

    def check(self) -> None:
        """Looks at the whole file, as it was opened: it may have been removed since.

        Raises:
            BrokenPostings: it is not byte for byte what was written.
        """
        self.stands()
        if hashlib.blake2b(self._map).hexdigest() != self.plan.checksum:
            raise self._broken("is damaged")

    def _broken(self, how: str) -> BrokenPostings:
        return BrokenPostings(f"{self.path} {how}. Run llmbench index build: it is rebuilt.")


def seal(rows: NDArray[np.int32], counts: NDArray[Any]) -> int:
    """The checksum of a word's postings: CRC-32 of both arrays' bytes."""
    return zlib.crc32(counts.data, zlib.crc32(rows.data))


def written(path: Path) -> set[str]:
    """The words that stand in a file; none where it is not a whole one."""
    try:
        data = path.read_bytes()
        header = json.loads(data[16 : 16 + int.from_bytes(data[8:16], "little")])
        _, count, offset = header["arrays"]["words"]
        return set(data[offset : offset + count].decode("utf-8", "replace").split("\n")[:-1])
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def plans(noted: Any) -> list[Plan]:
    """What the store notes, as plans."""
    return [Plan(**one) for one in noted or ()]


def to_json(found: Sequence[Plan]) -> list[dict[str, Any]]:
    """Plans as the store notes them."""
    return [asdict(plan) for plan in found]
