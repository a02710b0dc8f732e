"""Standard input as a place of documents: read once, whole, within the bounds of a file, and called the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from llmbench.errors import DataError
from llmbench.recipe import STDIN, RagRecipe
from llmbench.retrieval.reading.walk import File

__all__ = ["LARGEST_FILE", "SOURCE", "read_input"]

SOURCE = "stdin"
"""What its document is called, so that the next one takes its place; rows are `stdin#ID`."""
LARGEST_FILE = 256 * 2**20
"""Bytes up to which a file is read that is not read row by row, and standard input in any case: it is held in memory."""


def read_input(recipe: RagRecipe, stream: BinaryIO | None) -> File | None:
    """What standard input holds, where the pipeline names it.

    Raises:
        DataError: it is not there, a terminal, empty or too large; nothing was indexed then.
    """
    place = next((place for place in recipe.documents if place.path == STDIN), None)
    if place is None:
        return None
    how = f"Run: cat FILE | llmbench index build {recipe.source}"
    if stream is None:
        raise DataError(f"{recipe.source}: documents: - is standard input, but nothing is piped in. {how}")
    if stream.isatty():
        raise DataError(f"{recipe.source}: documents: - is standard input, but this is a terminal. {how}")
    try:
        data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"{recipe.source}: standard input cannot be read ({error.strerror}). {how}") from error
    if len(data) > LARGEST_FILE:
        size = f"{LARGEST_FILE // 2**20} MiB"
        raise DataError(f"{recipe.source}: standard input has more than {size}. Save it as files, and name their folder.")
    if not data.strip():
        raise DataError(f"{recipe.source}: standard input is empty; the index stays as it is. {how}")
    return File(Path(f"{SOURCE}.{place.format}" if place.format else SOURCE), SOURCE, place, data)
