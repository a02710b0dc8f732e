"""Interim."""

from __future__ import annotations

import warnings
from typing import Any


class Nearest:
    """Interim exact index."""

    def __init__(self, dim: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
        self.faiss = faiss
        self.index = faiss.IndexFlatIP(dim)

    @property
    def count(self) -> int:
        """Rows."""
        return int(self.index.ntotal)

    def add(self, block: Any) -> None:
        """Adds."""
        self.index.add(block)

    def search(self, queries: Any, k: int, *, rows: Any, dead: Any) -> Any:
        """Searches."""
        import numpy as np

        allowed = np.zeros(self.count, bool)
        allowed[slice(None) if rows is None else rows] = True
        allowed[dead] = False
        bits = np.packbits(allowed, bitorder="little")
        parameters = self.faiss.SearchParameters(sel=self.faiss.IDSelectorBitmap(bits))
        k = min(k, int(allowed.sum()))
        return self.index.search(queries, k, params=parameters) if k else (np.zeros((1, 0)), np.zeros((1, 0), int))
