"""A finished comparison of three variants, on 24 questions of 8 pages, made by a hand-written endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbench import compare, recipe
from llmbench.compare import Comparison
from llmbench.endpoint import Delta, Message, Reply
from llmbench.message import text_of
from llmbench.recipe import CompareRecipe

HOSTILE = "<script>window.harmed='script'</script><img src=x onerror=\"window.harmed='img'\"> \x1b[2J\x1b[31mred **bold**"


class _Teller:
    """Answers at once: `base` is wrong and long, `tuned` right and short, `loud` right, long and hostile."""

    async def listing(self) -> list[dict[str, Any]]:
        return [{"id": name, "adapter": {"id": f"hash-{name}"}, "rag": None} for name in ("base", "tuned", "loud")]

    async def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        await asyncio.sleep(0)
        question = text_of(messages[-1])
        number = int(question.split()[-1].rstrip("?"))
        text = {
            "base": f"It weighs {number + 90} grams, I think, but I would not be too sure about any of this at all.",
            "tuned": f"It weighs {number + 100} grams.",
            "loud": f"# Answer\n\n- **It weighs {number + 100} grams**\n- {HOSTILE}",
        }[model]
        took = {"base": 0.5, "tuned": 1.25, "loud": 2.0}[model]
        yield Delta(reply=Reply(text, model, latency=took, first_token=0.1, prompt_tokens=9, completion_tokens=4))


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Comparison]:
    """Makes the comparison `kettles`; takes the split that its questions are of."""

    def make(split: str = "train", variants: Sequence[str] = ("base", "tuned", "loud"), count: int = 24) -> Comparison:
        rows = [
            {
                "id": f"q{i}", "question": f"How heavy is kettle {i}?", "answer": f"It weighs {i + 100} grams.",
                "value": f"{i + 100} grams", "source": f"kettle-{i // 3}.md", "split": split,
            }
            for i in range(count)
        ]  # fmt: skip
        (tmp_path / "kettles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        document = {
            "name": "kettles", "questions": {"path": "kettles.jsonl", "split": split}, "variants": list(variants),
            "metrics": ["contains_value"],
        }  # fmt: skip
        file = tmp_path / "kettles.yaml"
        file.write_text(json.dumps(document), encoding="utf-8")
        return compare.run(recipe.load(file, CompareRecipe), endpoint=_Teller())

    return make
