"""The register of what the light encoder borrows from inside PyTorch. See `llmbench.borrowed`.

It stands in this room and not in the one above, which borrows nothing, because the encoder asks it before it computes.
"""

from __future__ import annotations

from functools import partial

from llmbench.borrowed import Patch

__all__ = ["BFLOAT16", "OPERATORS", "ROWS"]

_torch = partial(
    Patch,
    package="torch",
    versions="==2.13.0",
    use="called",
    without="the encoder computes by PyTorch's own operators, in 1.4 times the time",
)

BFLOAT16 = _torch(
    "torch:ops.mkldnn._is_mkldnn_bf16_supported", "default", "mkldnn::_is_mkldnn_bf16_supported() -> bool _0",
    purpose="whether oneDNN computes in bfloat16 on this CPU",
)  # fmt: skip
OPERATORS = (
    _torch(
        "torch:ops.mkldnn._reorder_linear_weight", "default",
        "mkldnn::_reorder_linear_weight(Tensor self, int? batch_size=None) -> Tensor Y",
        purpose="packs a weight once, in the order that the CPU's kernels read",
    ),
    _torch(
        "torch:ops.mkldnn._linear_pointwise", "default",
        "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y",
        purpose="a product and its activation in one pass",
    ),
    _torch(
        "torch:ops.mkldnn._linear_pointwise", "binary",
        "mkldnn::_linear_pointwise.binary(Tensor X, Tensor other, Tensor W, Tensor? B, str attr) -> Tensor Y",
        purpose="a product and the sum with its input in one pass",
    ),
)  # fmt: skip
ROWS = (BFLOAT16, *OPERATORS)
"""All of them."""
