"""A checkpoint's state comes back as it was, without pickle."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest


def test_nested_values_and_tensors_come_back(tmp_path: Path) -> None:
    import torch

    from llmbench.training.loop import checkpoint

    value = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 1: {}},
        "groups": [{"lr": 1e-3, "betas": [0.9, 0.95], "fused": True, "params": [0, 1], "name": None}],
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    checkpoint.write(tmp_path, "x", value)
    found = checkpoint.read(tmp_path, "x")
    assert list(found["state"]) == [0, 1] and found["groups"] == value["groups"]
    assert torch.equal(found["state"][0]["exp_avg"], value["state"][0]["exp_avg"])  # type: ignore[index]
    assert found["half"].dtype == torch.bfloat16
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_an_optimizer_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    import torch

    from llmbench.training.loop import checkpoint

    def stepped(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> torch.Tensor:
        for factor in (1.0, -0.3):
            optimizer.zero_grad()
            (weight * factor).square().sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return weight.detach().clone()

    start = torch.arange(4.0)
    weight = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    middle = stepped(optimizer, weight)
    checkpoint.write(tmp_path, "o", optimizer.state_dict())
    end = stepped(optimizer, weight)
    other = torch.nn.Parameter(middle)
    again = torch.optim.AdamW([other], lr=0.1)
    again.load_state_dict(checkpoint.read(tmp_path, "o"))
    assert torch.equal(stepped(again, other), end)


def test_random_numbers_go_on(tmp_path: Path) -> None:
    import torch

    from llmbench.training.loop import checkpoint, random_state

    random.gauss(0, 1)  # leaves a second number waiting
    checkpoint.write(tmp_path, "r", random_state.random_state())

    def drawn() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(1))]

    first = drawn()
    random_state.restore_random_state(checkpoint.read(tmp_path, "r"))
    assert drawn() == first


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    from llmbench.training.loop import checkpoint

    with pytest.raises(TypeError, match="cannot hold a set"):
        checkpoint.write(tmp_path, "x", {"a": {1}})
