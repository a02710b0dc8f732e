"""The contract: what it holds, what it refuses, and the canaries that see what a name and a hash do not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmbench.errors import IndexError_
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Contract, Embedder, canaries

from .conftest import MakeModel


def test_a_contract_survives_json(embedder: Embedder) -> None:
    contract = embedder.contract
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract
    assert len(contract.canaries) == len(canaries.TEXTS) == 12
    assert (contract.dim, contract.window, contract.pooling, contract.precision) == (384, 256, "mean", "float32")
    assert contract.difference(contract) == "" == embedder.check_canaries(contract)
    assert contract.difference(embedder.promise) == ""
    with pytest.raises(IndexError_, match=r"in another format \(window\)"):
        Contract.from_json({key: value for key, value in contract.to_json().items() if key != "window"})


def test_one_canary_is_longer_than_the_window(embedder: Embedder) -> None:
    assert len(embedder.starts(canaries.TEXTS[-1])) > 512


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("fingerprint", "0" * 64, "the embedder's files changed (index: 0000"),
        ("query_prefix", "query: ", "query_prefix is 'query: ' in the index and '' now"),
        ("window", 512, "window is 512 in the index and 256 now"),
        ("truncate_dim", 64, "truncate_dim is 64 in the index and None now"),
        ("precision", "int8", "vectors are int8 by onnx in the index and floating point now"),
    ],
)
def test_a_broken_promise_is_named(embedder: Embedder, field: str, value: Any, says: str) -> None:
    stored = replace(embedder.promise, backend="onnx", **{field: value})
    assert stored.difference(embedder.promise).startswith(says)


def test_floating_point_precisions_stand_in_for_one_another(make_model: MakeModel) -> None:
    name = str(make_model())
    exact = Embedder(EmbedderSpec(model_name_or_path=name, backend="onnx"))
    rough = Embedder(EmbedderSpec(model_name_or_path=name, backend="torch", precision="bfloat16"))
    assert rough.contract.difference(exact.contract) == ""
    assert exact.check_canaries(rough.contract) == "" == rough.check_canaries(exact.contract)


def test_an_int8_index_is_searched_in_int8(embedder: Embedder) -> None:
    stored = Embedder(EmbedderSpec(precision="int8")).contract
    again = Embedder(EmbedderSpec(), like=stored, queries=True)
    assert again.choice.precision == "int8" and again.check_canaries(stored) == ""
    assert stored.difference(again.contract) == ""
    assert "int8" in stored.difference(embedder.contract)


def test_canaries_catch_a_changed_weight(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One matrix of one layer moved by a tenth, under the same name and, for once, the same hash."""
    from safetensors.numpy import load_file, save_file

    folder = make_model()
    spec = EmbedderSpec(model_name_or_path=str(folder), backend="torch", precision="float32")
    stored = Embedder(spec).contract
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    weights[name] = weights[name] * 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    changed = Embedder(spec)
    assert "the embedder's files changed" in stored.difference(changed.promise)
    monkeypatch.setattr(changed, "fingerprint", stored.fingerprint)
    assert stored.difference(changed.promise) == ""
    assert "the same texts get other vectors than when the index was built" in changed.check_canaries(stored)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ((), "0 canaries are stored, and 12 are known"),
        (("no base64!",) * 12, "the stored canaries cannot be read"),
        (("AAA=",) * 12, "the same texts get other vectors"),
    ],
)
def test_canaries_that_are_none_are_said_so(embedder: Embedder, stored: tuple[str, ...], says: str) -> None:
    assert embedder.check_canaries(replace(embedder.contract, canaries=stored)).startswith(says)


def test_packing_moves_a_vector_by_less_than_rounding() -> None:
    vectors = np.random.default_rng(3).normal(size=(4, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert canaries.distance(canaries.unpack(canaries.pack(vectors)), vectors) < 1e-6
