"""A training leaves other packages as they were, and does not begin where what it overrides is no longer there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmbench import borrowed, runs, training
from llmbench.borrowed import Patch
from llmbench.errors import LlmbenchError
from llmbench.training.kernels import patches

from .conftest import Write


def changed(row: Patch) -> Patch:
    """The row as if it had been recorded of another version."""
    return replace(row, signature="(self, something_else)")


def test_a_training_puts_back_what_it_replaced(write: Write) -> None:
    import torch
    from trl.kernels import ChunkedLogProbFunction, chunked_logprob
    from trl.trainer import utils

    limit = torch._dynamo.config.recompile_limit
    recipe = write("left", "training.max_steps=1")
    training.train(recipe, runs.create(recipe))
    assert vars(utils)["_use_triton"] is vars(chunked_logprob)["_use_triton"]
    assert vars(utils)["_ChunkedLogProbFunction"] is ChunkedLogProbFunction
    assert torch._dynamo.config.recompile_limit == limit


def test_the_number_of_experts_has_another_name_inside_the_block_alone() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmbench.training.kernels import fused_head

    config: Any = AutoConfig.for_model(
        "granitemoe", vocab_size=97, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with pytest.raises(ZeroDivisionError), fused_head.scoring(model):
        assert config.num_experts == 4 and "num_experts" not in config.to_dict()
        raise ZeroDivisionError
    assert not hasattr(config, "num_experts")


def test_a_head_that_is_called_otherwise_is_scored_by_trl_itself(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plain path gives the same losses, and a line says that it was taken."""
    exact = ("model.dtype=float32", "training.max_steps=2")
    losses = []
    for name in ("ours", "theirs"):
        recipe = write(name, *exact)
        run = runs.create(recipe)
        training.train(recipe, run)
        losses.append([row["loss"] for row in run.metrics()])
        monkeypatch.setattr(patches, "LEARNED_ONLY", changed(patches.LEARNED_ONLY))
        monkeypatch.setattr(patches, "LOG_PROBS", changed(patches.LOG_PROBS))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    said = [line for line in capsys.readouterr().err.splitlines() if "Without it" in line]
    assert [line.split(" is ")[0] for line in said] == [
        f"trl {borrowed.version('trl')}: trl.trainer.utils._ChunkedLogProbFunction",
        f"trl {borrowed.version('trl')}: trl.trainer.utils._use_triton",
    ]


def test_a_training_that_would_report_to_others_does_not_begin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "TRAINER", (changed(patches.TELEMETRY),))
    with pytest.raises(
        LlmbenchError, match=r"_send_telemetry is \(self\) and not .*pip install 'trl>=1\.16,<1\.17'$"
    ) as caught:
        training.prepare(write("refused"))
    assert "\n" not in str(caught.value)


def test_another_lora_layer_keeps_its_own_forward(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.kernels import fused_lora

    monkeypatch.setattr(patches, "LORA_FORWARD", changed(patches.LORA_FORWARD))
    choices = {choice.name: choice for choice in training.prepare(write("other")).choices}
    assert (choices["fused_lora"].value, choices["fused_lora"].reason) == (False, fused_lora.obstacle(None))
