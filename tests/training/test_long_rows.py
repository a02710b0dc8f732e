"""Long rows: the largest tensor of a step grows with the row, not with its square, and the losses are those of all logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.errors import RecipeError

from .conftest import Write


def extended(tiny: Path, folder: Path, context: int) -> Path:
    """The bundled model with positions for longer rows, as docs/guide/speed.md says how."""
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = {"rope_type": "yarn", "factor": context / 1024, "original_max_position_embeddings": 1024}
    config["rope_parameters"] |= rope
    config["max_position_embeddings"] = context
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def long_row(path: Path, words: int) -> Path:
    """One row with about so many tokens, most of them learned."""
    said = " ".join(f"The code of the Alba {i} is AB-{i}." for i in range(words // 14))
    turns = [{"role": "user", "content": "Name the codes."}, {"role": "assistant", "content": said}]
    path.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    return path


def test_no_tensor_of_a_step_has_the_square_of_a_long_row(write: Write, tiny: Path, tmp_path: Path) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from llmbench.training import methods
    from llmbench.training.kernels import fused_head
    from llmbench.training.loop.record import Recorder, Stop

    class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(one, torch.Tensor):
                    self.bytes = max(self.bytes, one.untyped_storage().nbytes())
            return out

    base = extended(tiny, tmp_path / "long", 8192)
    data = {"train": [{"path": str(long_row(tmp_path / "long.jsonl", 3600))}], "max_length": 8192}
    model = {"model_name_or_path": str(base), "dtype": "float32"}
    recipe = write("long", "training.gradient_checkpointing=true", "training.torch_compile=false", data=data, model=model)
    job = training.prepare(recipe)
    trainer = methods.of("sft").trainer(job, runs.create(recipe), Recorder(runs.create(recipe, overwrite=True), Stop()))
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    length = batch["input_ids"].shape[1]
    assert 2500 < length <= 8192, length
    with fused_head.scoring(job.loaded.model), Largest() as seen:  # type: ignore[no-untyped-call]
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    assert seen.bytes < length * length, "logits, masks and scores of all pairs of positions would be larger"
    with torch.no_grad():
        logits = job.loaded.model(input_ids=batch["input_ids"]).logits[0, :-1]
    labels = batch["labels"][0, 1:]
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_a_row_that_the_model_cannot_read_is_refused_with_what_to_do(write: Write, tmp_path: Path) -> None:
    data = {"train": [{"path": str(long_row(tmp_path / "long.jsonl", 3000))}], "max_length": 8192}
    with pytest.raises(RecipeError, match=r"the longest row has [\d,]+ tokens and the model reads 1,024.*max_length=1024"):
        training.prepare(write("refused", data=data))


def test_a_window_is_attended_to_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    monkeypatch.setattr(packed_attention, "_BLOCK", 4)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 40, 8, generator=draw, requires_grad=True) for heads in (4, 2, 2))
    found = []
    for window in (3, 6):
        out = packed_attention._split(q, k, v, [23, 2, 15], None, 0.0, window)
        parts = zip(*(torch.split(x, [23, 2, 15], 2) for x in (q, k, v)), strict=True)
        whole = [
            torch.nn.functional.scaled_dot_product_attention(
                a, b, c, attn_mask=packed_attention._window(a.shape[2], window, a.device), enable_gqa=True
            )
            for a, b, c in parts
        ]
        expected = torch.cat(whole, 2).transpose(1, 2)
        assert torch.allclose(out, expected, atol=1e-6)
        slopes = [torch.autograd.grad(one.square().sum(), (q, k, v)) for one in (out, expected)]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*slopes, strict=True))
        found.append(out)
    assert not torch.allclose(found[0], found[1])
