"""The listing's `fingerprint`: clients that keep answers ask again when it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe
from llmbench.gateway import cards
from llmbench.gateway.cards import documents, fingerprint, pipelines, served
from llmbench.gateway.grounding import open_retriever
from llmbench.recipe import ServeRecipe


def of(folder: Path, prompt: str = "{passages} {question}", **variant: Any) -> str:
    (folder / "page.md").write_text("The kettle weighs 300 grams.", encoding="utf-8")
    (folder / "pages.yaml").write_text(f"name: pages\ndocuments: [page.md]\nprompt: '{prompt}'\n", encoding="utf-8")
    (folder / "serve.yaml").write_text(json.dumps({"variants": [{"name": "a"} | variant]}), encoding="utf-8")
    document = recipe.load(folder / "serve.yaml", ServeRecipe)
    read = documents(document)
    return fingerprint(document, document.variants[0], None, read.get(folder / "pages.yaml"))


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


def test_a_pipeline_s_document_is_read_once_however_many_variants_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of(tmp_path)
    variants = [{"name": name, "rag": "pages.yaml"} for name in ("a", "b")] + [{"name": "c", "rag": "broken.yaml"}]
    (tmp_path / "broken.yaml").write_text("name: [", encoding="utf-8")
    (tmp_path / "serve.yaml").write_text(json.dumps({"variants": variants}), encoding="utf-8")
    document, reads, load = recipe.load(tmp_path / "serve.yaml", ServeRecipe), list[str](), recipe.load

    def counted(path: Path, *rest: Any) -> Any:
        reads.append(path.name)
        return load(path, *rest)

    monkeypatch.setattr(cards, "load", counted)
    monkeypatch.setattr("llmbench.gateway.grounding.recipe.load", counted)
    read = documents(document)
    assert pipelines(document, read) == {"a": "pages", "b": "pages", "c": None}
    grounding = open_retriever(tmp_path / "pages.yaml", read[tmp_path / "pages.yaml"], probed=False)
    try:
        found = [served(document, variant, None, grounding, None).fingerprint for variant in document.variants[:2]]
    finally:
        grounding.close()
    assert sorted(reads) == ["broken.yaml", "pages.yaml"] and len(set(found)) == 1
