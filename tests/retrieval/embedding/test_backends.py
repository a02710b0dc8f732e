"""Every backend against sentence-transformers' own `encode`, on the packaged model and on small ones of every kind."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.errors import LlmbenchError
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder, canaries, probe

from .conftest import MakeModel, write

TEXTS = [*canaries.TEXTS, "", "the cat: 12 dogs, 3 birds.", "end " * 200]


def reference(folder: Any, texts: list[str] = TEXTS, **keywords: Any) -> NDArray[np.float32]:
    """What sentence-transformers gives in float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu").float()
    return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False, **keywords))


def distance(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return canaries.distance(mine, theirs)


KINDS: list[dict[str, Any]] = [
    {},
    {"pooling": "cls"},
    {"pooling": "max"},
    {"pooling": "lasttoken", "old_names": True},
    {"pooling": "cls", "old_names": True},
    {"hidden_act": "relu"},
    {"hidden_act": "gelu_new"},
    {"kind": "distilbert"},
    {"kind": "roberta"},
    {"kind": "xlm-roberta", "pooling": "cls", "window": None},
    {"dtype": "bfloat16"},
    {"dtype": "float16"},
]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("settings", KINDS, ids=lambda s: "-".join(map(str, s.values())) or "plain")
def test_a_plain_encoder_has_the_vectors_of_sentence_transformers(
    make_model: MakeModel, settings: dict[str, Any], backend: Any
) -> None:
    folder = make_model(**settings)
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend=backend, precision="float32"))
    assert embedder.layout.light is None
    assert distance(embedder.embed(TEXTS), reference(folder)) < 1e-5
    assert embedder.choice.light and embedder.choice.backend == backend


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kind": "mpnet"}, "it is a mpnet"),
        ({"pooling": "weightedmean"}, "its pooling is weightedmean"),
        ({"hidden_act": "silu"}, "its activation is silu"),
        ({"include_prompt": False}, "its pooling excludes prompts"),
    ],
)
def test_any_other_model_is_computed_by_sentence_transformers(
    make_model: MakeModel, settings: dict[str, Any], why: str
) -> None:
    folder = make_model(**settings)
    spec = EmbedderSpec(model_name_or_path=str(folder), document_prefix="doc: ")
    embedder = Embedder(spec)
    assert embedder.layout.light == why
    assert embedder.embed(TEXTS).shape == (len(TEXTS), embedder.dim) == (len(TEXTS), 32)
    assert not embedder.choice.light
    assert distance(embedder.embed_documents(TEXTS), reference(folder, prompt="doc: ")) < 1e-3
    with pytest.raises(LlmbenchError, match=f"backend onnx is for plain encoders, and {why}. Use torch."):
        Embedder(spec.model_copy(update={"backend": "onnx"})).load()


def test_int8_and_bfloat16_stay_within_their_bounds(embedder: Embedder) -> None:
    texts = [text for text in TEXTS if len(text) < 200]  # a CPU without AVX512-BF16 takes long for more
    exact = embedder.embed(texts)
    bounds: list[tuple[dict[str, Any], str]] = [({"precision": "bfloat16"}, "torch"), ({"precision": "int8"}, "onnx")]
    for settings, backend in bounds:
        other = Embedder(EmbedderSpec(**settings))
        assert distance(other.embed(texts), exact) < 1 - probe.BOUND[settings["precision"]]
        assert (other.choice.backend, other.dtype) == (backend, settings["precision"])


def test_an_int8_vector_does_not_depend_on_its_neighbours_at_all() -> None:
    embedder = Embedder(EmbedderSpec(precision="int8"))
    together = embedder.embed(TEXTS)
    assert (embedder.embed(TEXTS[3:4])[0] == together[3]).all()


def test_lower_case_is_the_models_setting(make_model: MakeModel) -> None:
    folder = make_model(cased=True)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="onnx"))
    assert distance(embedder.embed(["THE CAT", "the cat"]), embedder.embed(["the cat", "the cat"])) < 1e-6


def test_the_graph_is_kept_in_the_workspace_and_not_in_the_models_folder(make_model: MakeModel, home: Any) -> None:
    folder = make_model()
    before = sorted(folder.rglob("*"))
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="onnx"))
    embedder.embed(["a"])
    assert sorted(folder.rglob("*")) == before
    [graph] = (home / "cache").rglob("*.onnx")
    written = graph.stat().st_mtime_ns
    Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="onnx")).embed(["a"])
    assert graph.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "onnx", "precision": "bfloat16"}, "backend onnx computes in float32 or int8, not in bfloat16"),
        ({"backend": "torch", "precision": "int8"}, "backend torch does not compute in int8"),
        ({"precision": "float16"}, "float16 needs a GPU"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(LlmbenchError, match=says) as caught:
        Embedder(EmbedderSpec(**settings)).embed(["a"])
    assert "\n" not in str(caught.value)


def test_a_backend_whose_vectors_do_not_hold_is_refused_or_passed_over(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model()
    monkeypatch.setitem(probe.BOUND, "int8", 1.1)
    with pytest.raises(LlmbenchError, match=r"onnx in int8 gives vectors at cosine 0\.\d+ to float32's, under 1\.1") as caught:
        Embedder(EmbedderSpec(model_name_or_path=str(folder), precision="int8")).embed(["a"])
    assert "\n" not in str(caught.value)
    # A tokenizer that reads otherwise than the one that sentence-transformers makes of the same folder.
    monkeypatch.setattr("llmbench.retrieval.embedding.tokens.Tokens.numbers", lambda self, texts: [[2, 5, 3] for _ in texts])
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder)))
    assert not embedder.choice.light
    assert distance(embedder.embed(TEXTS), reference(folder)) < 1e-3


def test_openvino_reads_the_same_graph(make_model: MakeModel) -> None:
    pytest.importorskip("openvino", reason="openvino is an extra")
    folder = make_model()
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="openvino"))
    assert distance(embedder.embed(TEXTS), reference(folder)) < 1e-5


@pytest.mark.parametrize("packaged", [True, False])
def test_a_cache_that_cannot_be_written_keeps_nobody_from_embedding(make_model: MakeModel, home: Any, packaged: bool) -> None:
    spec = EmbedderSpec(backend="onnx") if packaged else EmbedderSpec(model_name_or_path=str(make_model()), backend="onnx")
    expected = Embedder(spec).embed(TEXTS)
    shutil.rmtree(home / "cache" / "embedders")
    (home / "cache" / "embedders").write_text("no folder", encoding="utf-8")
    assert distance(Embedder(spec).embed(TEXTS), expected) < 1e-6


@pytest.mark.parametrize("settings", KINDS[:-1], ids=lambda s: "-".join(map(str, s.values())) or "plain")
def test_bfloat16_stays_near_float32_in_batches_and_one_by_one(make_model: MakeModel, settings: dict[str, Any]) -> None:
    folder = make_model(**settings)
    embedder = Embedder(EmbedderSpec(model_name_or_path=str(folder), backend="torch", precision="bfloat16"))
    texts = [text for n in range(1, 40) for text in (f"the cat {n}", "the " * n, "a b c: " * n)]
    found = embedder.embed(texts)
    assert distance(found, reference(folder, texts)) < 5e-3
    assert distance(found, np.concatenate([embedder.embed([text]) for text in texts])) < 2e-3


def test_threads_that_embed_side_by_side_leave_the_others_their_cores() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Embedder(EmbedderSpec(backend="torch", precision="bfloat16")).embed(["a cat", "a dog"])
        with ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (2, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cells", [1, 200, 1 << 20])
def test_attention_by_blocks_is_attention(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    import torch
    from torch.nn import functional

    from llmbench.retrieval.embedding.light import onednn

    monkeypatch.setattr(onednn, "_CELLS", cells)
    torch.manual_seed(3)
    lengths, heads, width = [9, 9, 8, 5, 1], 2, 8
    qkv = torch.randn(len(lengths), 9, 3 * width)
    found = onednn.attention(qkv, heads, lengths)
    for row, length in enumerate(lengths):
        query, key, value = qkv[row, :length].view(length, 3, heads, -1).permute(1, 2, 0, 3)
        expected = functional.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(0, 1).reshape(length, width)
        assert torch.allclose(found[row, :length], expected, atol=1e-5)
    assert found.isfinite().all()
