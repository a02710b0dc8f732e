"""The real embedder: against sentence-transformers itself, and the models that cannot be had."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from llmbench.errors import LlmbenchError
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder, locate

TEXTS = ["A dog sleeps.", "The dog is asleep.", "Shares fell on Monday. " * 60, "x"]


def test_vectors_are_those_of_sentence_transformers(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (4, 384) == (4, embedder.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate("all-MiniLM-L6-v2")), device="cpu")
    expected = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    assert np.abs(vectors - expected).max() < 1e-5
    assert np.abs(embedder.embed(TEXTS[3:]) - vectors[3:]).max() < 1e-5
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]


def test_bfloat16_gives_nearly_the_same_vectors(embedder: Embedder) -> None:
    half = Embedder(EmbedderSpec(), dtype="bfloat16").embed(TEXTS)
    assert half.dtype == np.float32
    assert (half * embedder.embed(TEXTS)).sum(axis=1).min() > 0.999


def test_no_texts_are_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_the_window_is_the_one_that_the_model_was_given(embedder: Embedder) -> None:
    assert (embedder.max_tokens, embedder.special_tokens) == (256, 2)
    assert len(embedder.starts("word " * 700)) == 700


def test_a_model_is_known_by_its_files_not_by_its_name(embedder: Embedder, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(locate("all-MiniLM-L6-v2"), folder)
    spec = EmbedderSpec(model_name_or_path=str(folder))
    assert Embedder(spec).fingerprint == embedder.fingerprint
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('"pooling_mode_cls_token": false', '"pooling_mode_cls_token": true'))
    assert Embedder(spec).fingerprint != embedder.fingerprint


def test_a_model_that_is_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LlmbenchError, match=r"embedder nobody/nothing is neither a folder nor in the hub's cache") as caught:
        locate("nobody/nothing")
    assert "\n" not in str(caught.value)
    with pytest.raises(LlmbenchError, match=r"no modules\.json"):
        locate(str(tmp_path))
