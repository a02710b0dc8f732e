"""The bundled model's tokenizer, and rows written to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    """A real tokenizer: ChatML with generation markers, 1,024 pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


def write_jsonl(path: Path, *rows: Any) -> Path:
    """One row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def talk(*contents: str) -> dict[str, Any]:
    """A row of messages, user and assistant by turns."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]}
