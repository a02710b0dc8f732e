"""All parameters with the head's own kernel: tied to the embedding or not, however batches are accumulated, as with TRL's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.training.kernels import patches

from .conftest import Write
from .test_patches import changed


def untied(tiny: Path, folder: Path) -> Path:
    """The bundled model with a head of its own."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "of its own"])
def test_batches_of_two_four_at_a_time_are_one_batch_of_eight(
    tied: bool, write: Write, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    base = tiny if tied else untied(tiny, tmp_path / "untied")
    found: list[tuple[list[float], list[float], dict[str, Any]]] = []

    def trained(name: str, rows: int, accumulated: int, *more: str) -> None:
        batches = (f"training.per_device_train_batch_size={rows}", f"training.gradient_accumulation_steps={accumulated}")
        steady = ("training.max_steps=2", "training.learning_rate=1e-3", "training.optim=sgd", "data.shuffle=false")
        model = {"model_name_or_path": str(base), "dtype": "float32"}
        recipe = write(name, *batches, *steady, *more, lora=None, model=model)
        run = runs.create(recipe)
        training.train(recipe, run)
        logged = [row for row in run.metrics() if "loss" in row]
        weights = load_file(run.model / "model.safetensors")
        found.append(([row["loss"] for row in logged], [row["grad_norm"] for row in logged], weights))

    trained("whole", 8, 1)
    trained("parts", 2, 4)
    for name in ("LEARNED_ONLY", "LOG_PROBS"):
        monkeypatch.setattr(patches, name, changed(getattr(patches, name)))
    trained("theirs", 8, 1, "training.performance=plain")
    losses, norms, weights = found[0]
    assert ("lm_head.weight" in weights) is not tied
    for other in found[1:]:
        assert other[0] == pytest.approx(losses, rel=1e-5)
        assert other[1] == pytest.approx(norms, rel=1e-4)
        for name, value in weights.items():
            assert (other[2][name] - value).abs().max() < 1e-6, name
