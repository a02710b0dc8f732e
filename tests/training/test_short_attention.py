"""Attention as whole products against PyTorch's own in float32."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("length", [1, 2, 37, 256])
def test_it_is_causal_attention(heads: int, groups: int, length: int) -> None:
    import torch
    from torch.nn import functional

    from llmbench.training.kernels.short_attention import ShortAttention

    draw = torch.Generator().manual_seed(length)
    shapes = [(1, heads, length, 16), (1, groups, length, 16), (1, groups, length, 16)]
    given = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
    slope = torch.randn(shapes[0], generator=draw).bfloat16()
    ours = [tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor.float().requires_grad_() for tensor in given]
    a: Any = ShortAttention.apply(*ours, 0.3)  # type: ignore[no-untyped-call]
    query, key, value = exact
    b = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
    torch.autograd.backward([a, b], [slope, slope.float()])
    assert a.dtype == torch.bfloat16
    for one, two in zip([a, *(x.grad for x in ours)], [b, *(x.grad for x in exact)], strict=True):
        assert one is not None
        assert two is not None
        assert one.shape == two.shape
        assert (one.float() - two).norm() <= 1e-2 * (two.norm() + slope.float().norm()), "within bfloat16's rounding"


def test_no_query_sees_a_later_key() -> None:
    import torch

    from llmbench.training.kernels.short_attention import ShortAttention

    query, key, value = (torch.randn(1, 2, 12, 8).bfloat16() for _ in range(3))
    before: Any = ShortAttention.apply(query, key, value, 1.0)  # type: ignore[no-untyped-call]
    key[:, :, 7:], value[:, :, 7:] = 50.0, -50.0
    after: Any = ShortAttention.apply(query, key, value, 1.0)  # type: ignore[no-untyped-call]
    assert torch.equal(before[:, :, :7], after[:, :, :7])
    assert not torch.equal(before[:, :, 7:], after[:, :, 7:])
