"""Files that are packed (.gz, .bz2, .xz, .zst): opened as what they hold, unpacked while they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any, cast

from llmbench.errors import DataError

__all__ = ["PACKED", "ending", "opened"]

PACKED = (".gz", ".bz2", ".xz", ".zst")
_FREE = 256 * 2**20
"""Bytes that a packed file may always become."""
_RATIO = 1000
"""What a packed file may become above that, as a multiple of its size; text packs to a hundredth at the very most."""


def ending(path: Path) -> str:
    """The ending that says what a file holds: `.jsonl` of `rows.jsonl.gz`, in lower case."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def opened(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked where it is packed.

    Raises:
        OSError: as `open`.
        DataError: while it is read: it is no such file, cut off, or unpacks to far more than text does.
    """
    suffix = path.suffix.lower()
    if suffix not in PACKED:
        return path.open("rb")
    return cast(IO[bytes], io.BufferedReader(_Unpacked(path, suffix), 1 << 20))


class _Unpacked(io.RawIOBase):
    """What a packed file holds; its faults are DataErrors, and its growth has a bound."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path, self._done = path, 0
        self._most = max(_FREE, _RATIO * path.stat().st_size)
        self._file = _unpacker(path, suffix)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
            reason = "is cut off" if isinstance(error, EOFError) or "end" in str(error).lower() else "is damaged"
            raise DataError(
                f"{self._path}: {reason} ({str(error).splitlines()[0] if str(error) else 'no more'}). Download it again."
            ) from error
        self._done += len(data)
        if self._done > self._most:
            raise DataError(
                f"{self._path}: unpacks to over {self._most:,} bytes, {_RATIO} times its size. Decompress it yourself to "
                f"use it."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _unpacker(path: Path, suffix: str) -> Any:
    match suffix:
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case _:
            import pyarrow

            return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
