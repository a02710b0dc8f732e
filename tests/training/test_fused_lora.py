"""LoRA added in place is PEFT's LoRA: the same outputs and gradients, in each case that PEFT knows."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch


def plain(*, bias: bool = False) -> Any:
    """Two linear layers, one of them with a bias: (rows, length, 24) -> the same."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(24, 40)
            self.down = nn.Linear(40, 24, bias=bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            down: torch.Tensor = self.down(torch.tanh(self.up(x)))
            return x + down

    return Block()


def block(dtype: torch.dtype | None = None, **settings: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(target_modules=["up", "down"], **{"r": 4, "lora_alpha": 8, **settings})
    base: Any = plain(bias=settings.get("lora_bias", False)).to(dtype or torch.float32)
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
    return model


def learned(model: Any, *, half: bool = False, wide: bool = False) -> dict[str, torch.Tensor]:
    """The output, and the gradient of each trained parameter and of the input, which `wide` leaves float32 under autocast."""
    import torch

    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1))
    x = (x.bfloat16() if half and not wide else x).requires_grad_()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = model(x)
    out.float().square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"output": out.detach(), "input": x.grad, **found}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        difference = (ours[name].float() - value.float()).norm() / value.float().norm()
        assert difference <= tolerance, f"{name}: {difference:.2g}"


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"lora_dropout": 0.3}, {"rank_pattern": {"up": 2}}])
@pytest.mark.parametrize("half", [False, True])
def test_outputs_and_gradients_are_pefts(settings: dict[str, Any], half: bool) -> None:
    import torch

    from llmbench.training.kernels import fused_lora

    dtype = torch.bfloat16 if half else torch.float32
    theirs, ours = block(dtype, **settings), block(dtype, **settings)
    fused_lora.install(ours)
    assert "forward" in vars(ours.base_model.model.up), "or this would compare PEFT with itself"
    close(learned(ours, half=half), learned(theirs, half=half), 2e-2 if half else 1e-5)


def test_what_is_not_two_plain_matrices_stays_pefts() -> None:
    from llmbench.training.kernels import fused_lora

    for model in (block(use_dora=True), block(lora_bias=True)):
        assert fused_lora.obstacle(model) == "it has no plain LoRA on a linear layer"
        fused_lora.install(model)
        assert "forward" not in vars(model.base_model.model.up)
    assert fused_lora.obstacle(block()) is None


def test_a_disabled_or_merged_adapter_is_heeded() -> None:
    import torch

    from llmbench.training.kernels import fused_lora

    model = block()
    fused_lora.install(model)
    x = torch.randn(2, 5, 24)
    bare = plain().eval()
    bare.load_state_dict({name.replace(".base_layer", ""): v for name, v in model.base_model.model.state_dict().items()
                           if "lora_" not in name})  # fmt: skip
    with torch.no_grad():
        adapted = model(x)
        with model.disable_adapter():
            assert torch.equal(model(x), bare(x))
        model.merge_adapter()
        assert torch.allclose(model(x), adapted, atol=1e-5)
        model.unmerge_adapter()
        assert torch.allclose(model(x), adapted, atol=1e-5)
    assert not torch.allclose(adapted, bare(x), atol=1e-3)


def test_a_base_in_less_precision_without_autocast_is_left_to_peft() -> None:
    import torch

    from llmbench.training.kernels import fused_lora

    theirs, ours = block(torch.bfloat16), block(torch.bfloat16)
    fused_lora.install(ours)
    x = torch.randn(2, 5, 24).bfloat16()
    assert torch.equal(ours(x), theirs(x)), "PEFT multiplies in the adapter's float32 then"


@pytest.mark.parametrize(("half", "wide"), [(False, False), (True, False), (True, True)])
def test_beside_a_base_in_four_bits(half: bool, wide: bool) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from llmbench.training.kernels import fused_lora

    bitsandbytes: Any = importlib.import_module("bitsandbytes")

    def quantised() -> Any:
        torch.manual_seed(0)
        model: Any = plain()
        for name in ("up", "down"):
            layer = getattr(model, name)
            small = bitsandbytes.nn.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None,
                compute_dtype=torch.bfloat16 if half else torch.float32, quant_type="nf4",
            )  # fmt: skip
            small.load_state_dict(layer.state_dict())
            setattr(model, name, small.to("cpu"))
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["up", "down"]))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
        return adapted

    theirs, ours = quantised(), quantised()
    fused_lora.install(ours)
    assert "forward" in vars(ours.base_model.model.up)
    close(learned(ours, half=half, wide=wide), learned(theirs, half=half, wide=wide), 2e-2 if half else 1e-5)
