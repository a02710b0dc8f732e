"""Where hits stand on the pages of their PDFs: boxes for programs, and pictures with the passages marked for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.written import check_file

if TYPE_CHECKING:
    from llmbench.retrieval import Document, Hit, Retriever

__all__ = ["boxes", "written"]


def boxes(retriever: Retriever, hits: Sequence[Hit]) -> dict[int, list[dict[str, Any]]]:
    """By position, the boxes of each hit that stands in a PDF."""
    from llmbench.retrieval.reading import pages

    return {i: pages.boxes(document, hits[i].chunk.start, hits[i].chunk.end) for i, document in _paged(retriever, hits)}


def written(retriever: Retriever, hits: Sequence[Hit], folder: Path) -> dict[int, list[Path]]:
    """By position, the pictures of each hit's pages, written as `hit-1-page-3.png`; what cannot be drawn is told once."""
    from llmbench.retrieval.reading import pages

    found: dict[int, list[Path]] = {}
    told: set[str] = set()
    for i, document in _paged(retriever, hits):
        found[i] = []
        chunk = hits[i].chunk
        try:
            for number in pages.pages_of(document, chunk.start, chunk.end):
                picture = pages.draw(retriever.recipe, document, number, [(chunk.start, chunk.end)], painted=True)
                path = folder / f"hit-{hits[i].rank}-page-{number}.png"
                check_file(path, "Software\0llmbench")
                with workspace.atomic(path, "wb") as file:
                    file.write(picture.png)
                found[i].append(path)
        except pages.NotShown as error:
            told.add(str(error))
    for line in sorted(told):
        print(line, file=sys.stderr)
    if hits and not found:
        print("--show: none of these passages is from a PDF, so no page was written.", file=sys.stderr)
    return found


def _paged(retriever: Retriever, hits: Sequence[Hit]) -> Iterator[tuple[int, Document]]:
    """Position and document of each hit in a PDF; a document of several hits is read once."""
    from llmbench.retrieval.reading import pages

    read: dict[str, Document] = {}
    for i, hit in enumerate(hits):
        source = hit.chunk.source
        if hit.chunk.page is None:
            continue
        if source not in read:
            read[source] = retriever.document(source)
        if pages.has_pages(read[source]):
            yield i, read[source]
