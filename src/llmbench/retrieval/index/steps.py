"""What a writer is handed, step by step: each is one change of the index, and a batch of them one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.store import FileState

__all__ = ["BeginFile", "EndFile", "PutDocument", "SeeDocument", "Step", "Tally", "TouchFile"]


@dataclass(frozen=True)
class BeginFile:
    """The documents of a file follow, read by such settings (see `FileState`)."""

    source: str
    settings: str


@dataclass(frozen=True)
class SeeDocument:
    """A document is there unchanged."""

    source: str
    identity: str


@dataclass(frozen=True)
class PutDocument:
    """A document is new or has changed. `texts` are embedded, one for each passage, known by their digests."""

    document: Document
    chunks: Sequence[Chunk]
    texts: Sequence[str]
    digests: Sequence[bytes]
    file: str | None


@dataclass(frozen=True)
class EndFile:
    """All documents of a file were handed over: those of earlier passes leave."""

    state: FileState


@dataclass(frozen=True)
class TouchFile:
    """A file has another size or time, but the same content."""

    state: FileState


Step = BeginFile | SeeDocument | PutDocument | EndFile | TouchFile


@dataclass
class Tally:
    """How many documents were added, changed and removed, and how many passages embedded, by what is written so far."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    embedded: int = 0
