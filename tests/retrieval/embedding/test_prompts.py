"""A model's own prompts, and a recipe's, which replace them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder

from .conftest import MakeModel, write


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({"query": "query: ", "document": "passage: "}, "query: ", "passage: "),
        ({"query": "q ", "passage": "p "}, "q ", "p "),
        ({"query": "only q "}, "only q ", ""),
        ({}, "", ""),
        ({"query": None, "document": None}, "", ""),
    ],
)
def test_a_models_prompts_are_honoured(make_model: MakeModel, prompts: dict[str, Any], query: str, document: str) -> None:
    folder = make_model(prompts=prompts)
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="onnx"))
    assert (embedder.query_prefix, embedder.document_prefix) == (query, document)
    assert np.abs(embedder.embed_queries(["cats", "a"]) - embedder.embed([query + "cats", query + "a"])).max() < 1e-5
    assert np.abs(embedder.embed_documents(["cats"]) - embedder.embed([document + "cats"])).max() < 1e-5
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder), device="cpu")
    assert 1 - embedder.embed_queries(["cats"])[0] @ theirs.encode_query("cats") < 1e-5
    if "passage" not in prompts:  # 6.2 looks for it after its own, empty `document`, and so never uses it
        assert 1 - embedder.embed_documents(["cats"])[0] @ theirs.encode_document("cats") < 1e-5


def test_a_recipes_prefix_replaces_the_models_prompt_and_may_be_empty(make_model: MakeModel) -> None:
    folder = make_model(prompts={"query": "query: ", "document": "passage: "})
    spec = EmbedderSpec(model_name_or_path=str(folder), backend="onnx", query_prefix="", document_prefix="other ")
    embedder = Embedder(spec)
    assert (embedder.promise.query_prefix, embedder.promise.document_prefix) == ("", "other ")
    assert np.abs(embedder.embed_queries(["cats"]) - embedder.embed(["cats"])).max() < 1e-5
    assert np.abs(embedder.embed_documents(["cats"]) - embedder.embed(["other cats"])).max() < 1e-5


def test_a_models_default_prompt_is_for_neither_queries_nor_documents(make_model: MakeModel) -> None:
    folder = make_model()
    write(folder / "config_sentence_transformers.json", {"prompts": {"general": "g "}, "default_prompt_name": "general"})
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), precision="float32"))
    assert (embedder.query_prefix, embedder.document_prefix) == ("", "")
    from sentence_transformers import SentenceTransformer

    assert 1 - embedder.embed_queries(["cats"])[0] @ SentenceTransformer(str(folder), device="cpu").encode_query("cats") < 1e-5
