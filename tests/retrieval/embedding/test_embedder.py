"""The real embedder: against sentence-transformers itself, and the models that cannot be had."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llmbench.errors import LlmbenchError
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder, locate

MakeModel = Callable[..., Path]
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


def test_order_is_kept_and_neighbours_do_not_matter(embedder: Embedder) -> None:
    texts = [f"{'word ' * (i * 37 % 90)}number {i}" for i in range(24)]
    together = embedder.embed(texts)
    for i in (0, 1, 23):
        assert 1 - embedder.embed([texts[i]])[0] @ together[i] < 1e-5
    assert np.abs(embedder.embed(texts[::-1])[::-1] - together).max() < 1e-5


def test_known_token_counts_and_streams_change_nothing(embedder: Embedder) -> None:
    texts = [f"{'word ' * (i % 7)}number {i}" for i in range(20)]
    whole = embedder.embed_documents(texts)
    counts = [len(embedder.starts(text)) for text in texts]
    assert np.abs(embedder.embed_documents(texts, counts) - whole).max() < 1e-5
    streamed = list(embedder.stream_documents(iter(texts), block=8))
    assert [len(part) for part in streamed] == [8, 8, 4]
    assert np.abs(np.concatenate(streamed) - whole).max() < 1e-5
    assert list(embedder.stream_documents([])) == []


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "🙂", "\ud800 half a pair", "水は百度で沸騰します。", "e\u0301", "\x00", "a" * 5000]
)
def test_any_text_has_a_vector(embedder: Embedder, text: str) -> None:
    vectors = embedder.embed([text, "another"])
    assert vectors.shape == (2, 384) and np.isfinite(vectors).all()


def test_several_threads_get_their_own_vectors(embedder: Embedder) -> None:
    texts = [f"text of thread {i}" for i in range(6)]
    expected = embedder.embed(texts)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda text: embedder.embed([text])[0], texts))
    assert np.abs(np.stack(found) - expected).max() < 1e-5


@pytest.mark.parametrize("own", [False, True])
def test_embedding_stops_between_batches_when_it_is_told_to(embedder: Embedder, make_model: MakeModel, own: bool) -> None:
    class After(threading.Event):
        """Set at the third look."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks >= 3

    one = Embedder(EmbedderSpec(model_name_or_path=str(make_model("mpnet")), batch_size=2)) if own else embedder
    texts, stop = [f"{'word ' * 100}number {i}" for i in range(200)], After()
    with pytest.raises(CancelledError):
        one.embed_documents(texts, stop=stop)
    assert stop.looks >= 3
    assert one.embed_documents(texts[:3], stop=threading.Event()).shape == (3, one.dim)


def test_a_short_vector_is_the_head_of_the_long_one_at_length_one(embedder: Embedder) -> None:
    short = Embedder(EmbedderSpec(truncate_dim=64, precision="float32"))
    assert short.dim == 64
    vectors, whole = short.embed(TEXTS), embedder.embed(TEXTS)[:, :64]
    assert np.abs(vectors - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 1e-5
    with pytest.raises(LlmbenchError, match=r"truncate_dim is 400, and vectors have 384\. Lower it\."):
        Embedder(EmbedderSpec(truncate_dim=400)).embed(["a"])


def test_a_window_of_the_recipe_cuts_there_and_never_past_the_models_positions(embedder: Embedder) -> None:
    short = Embedder(EmbedderSpec(max_seq_length=16, precision="float32"))
    assert short.max_tokens == 16
    assert 1 - short.embed(["word " * 14 + "other " * 30])[0] @ embedder.embed(["word " * 14])[0] < 1e-5
    assert Embedder(EmbedderSpec(max_seq_length=512)).max_tokens == 512
    with pytest.raises(LlmbenchError, match=r"max_seq_length is 600, and the model has 512 positions"):
        Embedder(EmbedderSpec(max_seq_length=600))


def test_a_search_needs_no_heavy_package() -> None:
    code = (
        "import sys\n"
        "from llmbench.recipe import EmbedderSpec\n"
        "from llmbench.retrieval.embedding import Embedder\n"
        "embedder = Embedder(EmbedderSpec(), dtype='float32', queries=True)\n"
        "assert embedder.embed_queries(['a question']).shape == (1, 384)\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
