"""What the shell offers where a verb takes a document: bundled names, and YAML files of the working folder."""

from __future__ import annotations

from pathlib import Path

from llmbench import assets

__all__ = ["pipelines", "recipes"]


def recipes(incomplete: str) -> list[str]:
    """Documents for train, serve and compare."""
    return _offer("recipes/", incomplete)


def pipelines(incomplete: str) -> list[str]:
    """Documents for index, search and ask."""
    return _offer("rag/", incomplete)


def _offer(folder: str, incomplete: str) -> list[str]:
    bundled = {name for name in assets.documents() if name.startswith(folder)}
    mine = {path.as_posix() for path in Path(incomplete).parent.glob("*.y*ml")}
    return sorted(name for name in bundled | mine if name.startswith(incomplete))
