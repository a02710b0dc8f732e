"""The listing's `fingerprint`: clients that keep answers ask again when it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbench import recipe
from llmbench.gateway.cards import fingerprint
from llmbench.recipe import ServeRecipe


def of(folder: Path, prompt: str = "{passages} {question}", **variant: Any) -> str:
    (folder / "page.md").write_text("The kettle weighs 300 grams.", encoding="utf-8")
    (folder / "pages.yaml").write_text(f"name: pages\ndocuments: [page.md]\nprompt: '{prompt}'\n", encoding="utf-8")
    (folder / "serve.yaml").write_text(json.dumps({"variants": [{"name": "a"} | variant]}), encoding="utf-8")
    document = recipe.load(folder / "serve.yaml", ServeRecipe)
    return fingerprint(document, document.variants[0], None)


def test_what_shapes_the_answers_changes_it(tmp_path: Path) -> None:
    found = [
        of(tmp_path),
        of(tmp_path, system="Be brief."),
        of(tmp_path, sampling={"temperature": 0.5}),
        of(tmp_path, rag="pages.yaml"),
        of(tmp_path, rag="pages.yaml", prompt="Read: {passages} {question}"),
    ]
    assert len(set(found)) == 5


def test_a_name_and_a_description_do_not(tmp_path: Path) -> None:
    assert of(tmp_path) == of(tmp_path, name="b", description="another name for the same")
