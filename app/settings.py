"""What the program is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbench.gateway.background import Background

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The endpoint to talk to, and the RAG pipeline that Documents shows first.

    `api_key` goes to `url` and to no other address: a URL typed in the app starts without a key. `engine` is what serves at
    `url` where the app itself started it.
    """

    url: str = "http://127.0.0.1:8000/v1"
    api_key: str | None = None
    pipeline: Path | None = None
    engine: Background | None = None
