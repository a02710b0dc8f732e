"""The vectors of a generation: records in one file that only grows, each with its passage's number and a checksum.

A record is `id` (int64, the passage's vector id), `crc` (CRC-32 of id and vector, begun with the index's own salt, so that no
record of another index fits) and `vector` (float32). A row is a record's place, from 0. A deleted passage's row is overwritten
with zeros, its id with -1; its place is never used again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import IndexError_

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Vectors", "record"]

BLOCK = 8192
"""Rows handled at once: 12 MB of all-MiniLM-L6-v2's vectors."""


def record(dim: int) -> np.dtype[Any]:
    """The layout of one record."""
    import numpy as np

    return np.dtype([("id", "<i8"), ("crc", "<u4"), ("pad", "<u4"), ("vector", "<f4", (dim,))])


class Vectors:
    """The open file. `rows` is how many records count: what lies behind them was never committed.

    Raises (every method):
        IndexError_: the file is shorter than it must be, or cannot be written.
    """

    def __init__(self, path: Path, dim: int, rows: int, *, salt: int = 0, writable: bool = False) -> None:
        """Opens or, when writable, creates the file, and cuts off what an interrupted transaction left behind."""
        self.path, self.dim, self.rows, self.salt = path, dim, rows, salt
        self.dtype = record(dim)
        self._map: Any = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY, 0o644)
        except OSError as error:
            raise IndexError_(f"{path} cannot be opened ({error.strerror}). Run: llmbench index repair PIPELINE") from error
        size = os.fstat(self._file).st_size
        self.short = size < rows * self.dtype.itemsize
        if writable and size != rows * self.dtype.itemsize:
            # A file that was too short reads as zeros from then on, which no checksum fits.
            os.ftruncate(self._file, rows * self.dtype.itemsize)
        if writable and not size:
            workspace.to_disk(path.parent)

    def close(self) -> None:
        """Lets go of the file."""
        self._map = None
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    @property
    def records(self) -> Any:
        """All records, mapped: a structured array of shape (rows,)."""
        import numpy as np

        # Looked at each time: reading a map behind the end of its file kills the process.
        if os.fstat(self._file).st_size < self.rows * self.dtype.itemsize:
            raise IndexError_(f"{self.path} is too short. Run: llmbench index repair PIPELINE")
        if self._map is None or len(self._map) < self.rows:
            if self.rows == 0:
                return np.zeros(0, self.dtype)
            with open(os.dup(self._file), "rb") as file:  # noqa: PTH123 - the open file, not whatever has its name by now
                self._map = np.memmap(file, dtype=self.dtype, mode="r", shape=(self.rows,))
        return self._map[: self.rows]

    def append(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> range:
        """Writes records behind the last one that counts and returns their rows. `flush` before they are committed."""
        import numpy as np

        block = np.zeros(len(ids), self.dtype)
        block["id"], block["vector"] = ids, vectors
        block["crc"] = checksums(block, self.salt)
        self._write(block.tobytes(), self.rows)
        rows = range(self.rows, self.rows + len(ids))
        self.rows = rows.stop
        return rows

    def erase(self, rows: list[int]) -> None:
        """Overwrites rows with zeros and the id -1, on disk when it returns."""
        import numpy as np

        empty = np.zeros(1, self.dtype)
        empty["id"] = -1
        for row in rows:
            if row < self.rows:
                self._write(empty.tobytes(), row)
        self.flush()

    def _write(self, data: bytes, row: int) -> None:
        view, at = memoryview(data), row * self.dtype.itemsize
        try:
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            advice = "Free some space and run it again; earlier work is kept."
            raise IndexError_(f"{self.path} cannot be written ({error.strerror}). {advice}") from error

    def flush(self) -> None:
        """Waits until everything written is on disk."""
        os.fdatasync(self._file)

    def take(self, rows: Sequence[int] | NDArray[np.int64], ids: Sequence[int] | None = None) -> NDArray[np.float32]:
        """The vectors of some rows, checked: shape (len(rows), dim).

        Args:
            rows: which.
            ids: the passages' numbers that the records must name: those of another index's file have checksums that fit.

        Raises:
            IndexError_: a record is damaged, or another passage's; it is not handed out.
        """
        import numpy as np

        block = self.records[np.asarray(rows, dtype=np.int64)]
        self._check(block, rows)
        if ids is not None:
            wrong = block["id"] != np.asarray(ids, dtype=np.int64)
            if wrong.any():
                raise self._damaged(int(rows[int(wrong.argmax())]))
        return np.ascontiguousarray(block["vector"])

    def blocks(self, start: int = 0, size: int = BLOCK) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """All rows from `start`, block by block and checked: the first row, ids (n,) and vectors (n, dim); -1 is deleted."""
        import numpy as np

        for first in range(start, self.rows, size):
            block = np.array(self.records[first : first + size])
            self._check(block, np.arange(first, first + len(block)))
            yield first, np.array(block["id"]), np.ascontiguousarray(block["vector"])

    def _check(self, block: Any, rows: Any) -> None:
        wrong = (checksums(block, self.salt) != block["crc"]) & (block["id"] >= 0)
        if wrong.any():
            raise self._damaged(int(rows[int(wrong.argmax())]))

    def _damaged(self, row: int) -> IndexError_:
        return IndexError_(f"{self.path} is damaged at row {row}. Run: llmbench index repair PIPELINE")

    def move_living(self, target: Vectors, dead: NDArray[np.int64], expected: NDArray[np.int64]) -> dict[int, int]:
        """Writes the living rows to another file, in order and on disk; returns the new row of each.

        Args:
            target: where to.
            dead: rows that are not taken along, ascending; not all of them need be erased yet.
            expected: the passage's number of each row.

        Raises:
            IndexError_: a record is damaged, or another passage's.
        """
        import numpy as np

        moved: dict[int, int] = {}
        for first, ids, vectors in self.blocks():
            living = ~np.isin(np.arange(first, first + len(ids)), dead)
            wrong = living & (ids != expected[first : first + len(ids)])
            if wrong.any():
                raise self._damaged(first + int(wrong.argmax()))
            alive = living.nonzero()[0]
            places = target.append(ids[alive], vectors[alive])
            moved.update(zip((first + alive).tolist(), places, strict=True))
        target.flush()
        return moved

    def damaged(self, expected: NDArray[np.int64]) -> list[int]:
        """The rows whose record does not fit its checksum, names another passage, or is missing at the end of the file.

        Args:
            expected: the passage's number of each row, -1 where there is none.
        """
        import numpy as np

        whole = min(self.rows, os.fstat(self._file).st_size // self.dtype.itemsize)
        found = list(range(whole, self.rows))
        with open(os.dup(self._file), "rb") as file:  # noqa: PTH123
            for first in range(0, whole, BLOCK):
                file.seek(first * self.dtype.itemsize)
                block = np.fromfile(file, self.dtype, min(BLOCK, whole - first))
                alive = block["id"] >= 0
                wrong = ((checksums(block, self.salt) != block["crc"]) & alive) | (~alive & (block["vector"] != 0).any(axis=1))
                mine = expected[first : first + len(block)]
                wrong |= (mine >= 0) & (block["id"] != mine) | (block["pad"] != 0)
                found += (first + np.flatnonzero(wrong)).tolist()
        return sorted(found)


def checksums(block: Any, salt: int) -> NDArray[np.uint32]:
    """The CRC-32 of each record's id and vector, begun with a salt."""
    import numpy as np

    ids, vectors = np.ascontiguousarray(block["id"]), np.ascontiguousarray(block["vector"])
    width = vectors.shape[1] * 4
    raw, keys = memoryview(vectors.tobytes()), memoryview(ids.tobytes())
    crc32 = zlib.crc32
    return np.fromiter(
        (crc32(raw[i * width : (i + 1) * width], crc32(keys[i * 8 : i * 8 + 8], salt)) for i in range(len(ids))),
        dtype=np.uint32,
        count=len(ids),
    )
