"""`llmbench export --format onnx`: the graph says what was trained, read at once and piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Make

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.mark.parametrize(
    ("name", "precision"), [("lora", "float32"), ("tokens", "float32"), ("full", "float32"), ("lora", "int8"), ("whole", "int4")]
)
def test_a_graph_is_proven(made: Make, tmp_path: Path, name: str, precision: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "onnx", precision=precision, output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    lost = done.proof.figures["lost"]
    assert lost["kl"] < 1e-8 and lost["logit"] < 1e-3 if precision == "float32" else lost["kl"] > 1e-8
    assert not list(done.folder.glob("*.safetensors*"))


def test_a_model_of_several_kinds_of_layers_sees_what_transformers_sees(tmp_path: Path) -> None:
    """Gemma 3's layers with a window of 4, and rows longer than that."""
    import numpy as np
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from llmbench.exporting import onnx_graph
    from llmbench.onnx_model import GRAPH, OnnxModel

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"], max_position_embeddings=64,
    )  # fmt: skip
    model = Gemma3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    onnx_graph.write(tmp_path, tmp_path / GRAPH)
    read = OnnxModel(tmp_path)
    ids = [3, 9, 27, 17, 51, 25, 11, 33, 35, 41, 59, 49]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0].numpy()
    first, cache = read.read(ids[:7], read.start())
    found = np.concatenate([first, read.read(ids[7:], cache)[0]])
    assert np.abs(found - wanted).max() < 1e-4
