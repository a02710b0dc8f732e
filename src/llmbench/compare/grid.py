"""The 2x2 table: base and adapter, without and with RAG, when the variants are just these four."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Grid", "find"]


@dataclass(frozen=True)
class Grid:
    """The names of the four variants."""

    base: str
    base_rag: str
    adapter: str
    adapter_rag: str

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, str]], ...]:
        """Row label and the variants without and with RAG."""
        return ("Base", (self.base, self.base_rag)), ("Adapter", (self.adapter, self.adapter_rag))

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """All four, the plain base first and the one with both last."""
        return self.base, self.adapter, self.base_rag, self.adapter_rag


def find(listed: Mapping[str, Mapping[str, Any]]) -> Grid | None:
    """The grid that the endpoint's listing tells of, or None.

    It takes one adapter and one RAG pipeline, each with and without the other, and nothing else.
    """
    if len(listed) != 4 or any(not entry.keys() >= {"adapter", "rag"} for entry in listed.values()):
        return None
    adapters = {str(entry["adapter"]) for entry in listed.values() if entry["adapter"]}
    pipelines = {str(entry["rag"]) for entry in listed.values() if entry["rag"]}
    cells = {(bool(entry["adapter"]), bool(entry["rag"])): variant for variant, entry in listed.items()}
    if len(adapters) != 1 or len(pipelines) != 1 or len(cells) != 4:
        return None
    return Grid(cells[False, False], cells[False, True], cells[True, False], cells[True, True])
