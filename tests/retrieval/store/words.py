"""The embedder of the store's tests: a vector counts hashed words, so that it takes microseconds and equal texts are equal."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmbench.retrieval.embedding import Contract, Reading


class Words:
    """What `Writer` asks of an embedder."""

    dim = 32
    max_tokens = 64
    special_tokens = 2
    fingerprint = "words"

    def __init__(self, name: str = "words") -> None:
        self.contract = self.promise = Contract(
            name, name, "mean", True, "", "", self.max_tokens, None, self.dim, "torch", "float32", canaries=()
        )
        self.document_prefix = ""
        self.embedded = 0

    def check_canaries(self, stored: Contract) -> str:
        return "" if stored.model == self.contract.model else "another model"

    def embed_documents(
        self, texts: Sequence[str], tokens: Sequence[int] | None = None, *, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        return self.embed(texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.embed(texts)

    def starts(self, text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+", text)]

    def reading(self, text: str) -> Reading:
        count = len("".join(text.split()))
        return Reading(count, 0, count, count)

    def load(self) -> None:
        pass

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += len(texts)
        vectors = np.full((len(texts), self.dim), 1e-3, dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                vector[zlib.crc32(word.encode()) % self.dim] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
