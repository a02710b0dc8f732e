"""The graph of a causal language model with its keys and values, by PyTorch's exporter, and its weights in fewer bits."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError

__all__ = ["BLOCK", "fewer_bits", "write"]

BLOCK = 32
"""Weights that share a scale."""
_OPSET = 18
_BATCH, _READ, _NEW = 2, 5, 3
"""Sizes of the example; none of them is the graph's. Different from one another and from 1, which the exporter would keep."""


class _Cached(torch.nn.Module):
    """A model whose cache is tensors that go in and come out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.layers = int(model.config.num_hidden_layers)
        self.window = _window(model.config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Tokens (batch, new), what may be attended to (batch, read + new), places (batch, new), keys and values by turns."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for i in range(self.layers):
            cache.update(past[2 * i], past[2 * i + 1], i)
        out = self.model(
            input_ids=input_ids, attention_mask=self._masks(attention_mask, input_ids.shape[1]), position_ids=position_ids,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        present = [part for layer in out.past_key_values.layers for part in (layer.keys, layer.values)]
        return (out.logits, *present)

    def _masks(self, attention_mask: torch.Tensor, new: int) -> Any:
        """What is added to the scores, (batch, 1, new, read + new); one a kind of layer where some see a window only.

        transformers makes its own masks with functions that cannot be exported, and takes a finished one as it is.
        """
        length = attention_mask.shape[1]
        keys = torch.arange(length)
        queries = torch.arange(new) + (length - new)
        seen = (keys[None, :] <= queries[:, None])[None, None] & (attention_mask[:, None, None, :] > 0)
        if self.window is None:
            return _added(seen)
        near = seen & (keys[None, :] > queries[:, None] - self.window)[None, None]
        kinds = set(getattr(self.model.config, "layer_types", None) or ())
        if not kinds:
            return _added(near)
        return {kind: _added(near if kind == "sliding_attention" else seen) for kind in kinds}


def write(folder: Path, into: Path) -> None:
    """Writes the graph of a model of transformers, in float32.

    Args:
        folder: the model's, in float32.
        into: the file to write; the weights go into another one beside it, with `.data` behind the name.

    Raises:
        LlmbenchError: PyTorch cannot make a graph of it.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.float32,
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    model.eval()
    wrapped = _Cached(model).eval()
    config = model.config
    heads = int(config.num_key_value_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    ids = torch.zeros(_BATCH, _NEW, dtype=torch.int64)
    seen = torch.ones(_BATCH, _READ + _NEW, dtype=torch.int64)
    places = torch.arange(_READ, _READ + _NEW)[None].repeat(_BATCH, 1)
    past = [torch.zeros(_BATCH, heads, _READ, width) for _ in range(2 * wrapped.layers)]
    parts = [f"{i}.{part}" for i in range(wrapped.layers) for part in ("key", "value")]
    free: Any = torch.export.Dim.DYNAMIC
    row = {0: free, 1: free}
    try:
        with _quietly():
            program = torch.onnx.export(
                wrapped, (ids, seen, places, *past), dynamo=True, opset_version=_OPSET, verbose=False,
                input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in parts)],
                output_names=["logits", *(f"present.{name}" for name in parts)],
                dynamic_shapes=(row, row, row, tuple({0: free, 2: free} for _ in past)),
            )  # fmt: skip
            assert program is not None
            program.save(str(into), external_data=True)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LlmbenchError(
            f"{type(model).__name__} cannot be written as an ONNX graph: PyTorch says {first[:200]!r}. Export it with "
            "--format merged, or gguf"
        ) from error


def fewer_bits(path: Path, bits: int) -> None:
    """Rounds the weights of a written graph's products to 4 or 8 bits, `BLOCK` of them to a scale, in place.

    Embeddings, and a head that is the embedding, stay as they are. The products are onnxruntime's MatMulNBits, which
    multiply in 8 bits (accuracy level 4).
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quietly():
        made = MatMulNBitsQuantizer(
            onnx.load(str(path)), bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4
        )  # fmt: skip
        made.process()
        for old in (path, path.with_name(f"{path.name}.data")):
            old.unlink(missing_ok=True)
        made.model.save_model_to_file(str(path), use_external_data_format=True)


def _window(config: Any) -> int | None:
    """How many tokens a layer with a window sees, where any layer has one."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    return int(window) if kinds is None or "sliding_attention" in kinds else None


def _added(seen: torch.Tensor) -> torch.Tensor:
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what PyTorch's exporter and onnxruntime's quantiser print of each step."""
    loggers = [logging.getLogger(name) for name in ("onnxruntime", "onnxscript", "onnx_ir", "torch.onnx", "torch.export")]
    before = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
