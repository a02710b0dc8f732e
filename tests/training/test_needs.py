"""The estimate's activations are what autograd really keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmbench.estimate import needs

if TYPE_CHECKING:
    import torch

TOKENS, WIDTHS = (
    96,
    {"hidden_size": 192, "intermediate_size": 320, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32},
)


def kept(kind: str, layers: int, dtype: torch.dtype, *, adapter: bool) -> int:
    """Bytes that a forward pass of two rows leaves for the way back, parameters left out."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmbench.training.kernels import packed_attention

    config = AutoConfig.for_model(kind, vocab_size=256, num_hidden_layers=layers, **WIDTHS)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype if adapter else torch.float32)  # type: ignore[no-untyped-call]
    if adapter:
        model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    packed_attention.install(model)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    half = TOKENS // 2
    ends = torch.tensor([0, half, TOKENS], dtype=torch.int32)
    backbone = (model.get_base_model() if adapter else model).model
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        backbone(
            input_ids=torch.arange(TOKENS)[None], position_ids=torch.arange(half).repeat(2)[None], cu_seq_lens_q=ends,
            cu_seq_lens_k=ends, max_length_q=half, max_length_k=half, use_cache=False,
        )  # fmt: skip
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("adapter", [True, False])
def test_a_layer_keeps_what_the_estimate_says(kind: str, half: bool, adapter: bool) -> None:
    import torch

    dtype = torch.bfloat16 if half else torch.float32
    layer = (kept(kind, 3, dtype, adapter=adapter) - kept(kind, 1, dtype, adapter=adapter)) / 2 / TOKENS
    coefficients = needs._KEPT[half, adapter][0 if kind == "qwen3" else 1]
    widths = (192, 320, 6 * 32, 2 * 32, 6, 1)
    said = sum(a * b for a, b in zip(coefficients, widths, strict=True)) + (8 * 7 * (2 if half else 4) if adapter else 0)
    # autocast's copies of the trained weights: LoRA's matrices, or all of a layer's
    trained = 8 * (2 * (192 + 192) + 2 * (192 + 64) + 3 * (192 + 320)) if adapter else 192 * (2 * 192 + 2 * 64) + 3 * 192 * 320
    assert layer == pytest.approx(said + (2 * trained / TOKENS if half else 0), rel=0.02)
