"""Muon takes the hidden matrices, AdamW the rest, and a scheduler moves both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.recipe import TrainingSpec

if TYPE_CHECKING:
    import torch


def small() -> torch.nn.Module:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model: torch.nn.Module = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
    return model


def test_each_parameter_has_its_part() -> None:
    from llmbench.training.loop.optimizer import MuonWithAdamW

    model = small()
    optimizer = MuonWithAdamW(model, TrainingSpec(optim="muon", learning_rate=1e-2, weight_decay=0.1, adam_beta2=0.98))
    names = {id(p): name for name, p in model.named_parameters()}
    muon, adamw = ({names[id(p)] for g in part.param_groups for p in g["params"]} for part in optimizer.parts.values())
    assert muon == {name for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2}
    assert muon | adamw == set(names.values()) and not muon & adamw
    assert "model.embed_tokens.weight" in adamw
    assert optimizer.parts["adamw"].param_groups[0]["betas"] == (0.9, 0.98)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_a_scheduler_reaches_both_also_after_the_state_was_loaded() -> None:
    import torch

    from llmbench.training.loop.optimizer import MuonWithAdamW

    model = small()
    optimizer = MuonWithAdamW(model, TrainingSpec(optim="muon", learning_rate=1.0))
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for part in optimizer.parts.values() for group in part.param_groups] == [0.5, 0.5]


def test_a_step_changes_every_parameter() -> None:
    import torch

    from llmbench.training.loop.optimizer import MuonWithAdamW

    model = small()
    optimizer = MuonWithAdamW(model, TrainingSpec(optim="muon", learning_rate=1e-2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.arange(20)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(before[name], p)] == []
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
