"""Attention over rows that stand end to end in one sequence, each seeing itself only: no padding, no T x T mask.

transformers hands `cu_seq_lens_q` (row ends, as flash-attn counts them) on to the attention function of a model. Here it
splits the sequence for `scaled_dot_product_attention` on a CPU, and goes to `torch.nn.attention.varlen` on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from llmbench.training.kernels.short_attention import LONGEST, ShortAttention

__all__ = ["NAME", "install", "leak", "leave_uncompiled", "obstacle", "tried"]

NAME = "llmbench_segments"
_LAYERS = {"full_attention", "sliding_attention"}
_BLOCK = 512
"""Queries at a time, at least, where attention has a window."""


def obstacle(config: Any) -> str | None:
    """Why a model cannot read rows end to end, or None.

    Args:
        config: the model's configuration, of transformers.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    text = config.get_text_config()
    other = sorted(set(getattr(text, "layer_types", None) or ()) - _LAYERS)
    if other:
        return f"its layers of type {', '.join(other)} read across rows"
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return "its attention caps its scores, which scaled_dot_product_attention cannot do"
    if getattr(text, "attention_chunk_size", None) is not None:
        return "its attention works in chunks"
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if getattr(kind, "_is_stateful", False):
        return "it carries a state from token to token"
    if not (getattr(kind, "_supports_attention_backend", False) and getattr(kind, "_supports_sdpa", False)):
        return "its attention cannot be replaced"
    return None


def leak(model: Any) -> str | None:
    """Tries this attention on a model: what is wrong when it reads two short rows end to end, or None.

    The model is as it was afterwards.

    The second row's logits must not change by a bit when the first row does (with a mixture of experts, where the tokens of
    an expert are multiplied together, by 2 % of their spread), and must be those of the row alone within 5 % of their spread
    (root mean square: two kernels round differently).
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    device, vocabulary = inner.get_input_embeddings().weight.device, inner.get_input_embeddings().weight.shape[0]
    first, other, row = (torch.arange(1, 25, device=device)[None] * step % vocabulary for step in (7, 11, 13))
    ends = torch.tensor([0, 24, 48], dtype=torch.int32, device=device)
    places = torch.arange(24, device=device).repeat(2)[None]

    def read(before: torch.Tensor) -> torch.Tensor:
        ids = torch.cat([before, row], 1)
        out = inner(
            input_ids=ids, position_ids=places, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=24, max_length_k=24,
            use_cache=False,
        )  # fmt: skip
        logits: torch.Tensor = out.logits[0, 24:]
        return logits.float()

    with tried(inner), torch.no_grad():
        one, two = read(first), read(other)
        alone = inner(input_ids=row, use_cache=False).logits[0].float()
    spread = float(alone.std())
    experts = any(getattr(inner.config.get_text_config(), name, None) for name in ("num_experts", "num_local_experts"))
    change, difference = float((one - two).abs().max()), float((one - alone).square().mean().sqrt())
    if change > (0.02 * spread if experts else 0.0):
        return f"in a test a row changed the next row's logits by {change:.2g}"
    if not difference <= 0.05 * spread:
        return f"in a test a packed row's logits differed by {difference:.2g} on average from the same row alone"
    return None


def install(model: Any) -> None:
    """Makes a model attend within the rows of a packed sequence; other input is attended to as by `sdpa`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def mask(*, attention_mask: torch.Tensor | None = None, **given: Any) -> torch.Tensor | None:
        """Rows end to end come without a mask, and get none; padded ones are masked as for `sdpa`."""
        return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **given)

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, mask)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.set_attn_implementation(NAME)


@contextmanager
def tried(model: Any) -> Iterator[None]:
    """Installs this attention, for evaluation, while the block runs, and leaves each part of the model as it was."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    configs = {id(one): one for module in modules for one in _configs(getattr(module, "config", None))}
    attentions = [(one, one._attn_implementation) for one in configs.values()]
    try:
        install(model)
        model.eval()
        yield
    finally:
        for config, attention in attentions:  # a configuration stands before those inside it, which it would set too
            config._attn_implementation = attention
        for module, training in zip(modules, modes, strict=True):
            module.training = training


def _configs(config: Any) -> list[Any]:
    """A configuration of transformers and those inside it."""
    if not hasattr(config, "_attn_implementation"):
        return []
    parts = [getattr(config, name, None) for name in config.sub_configs]
    return [config, *(one for part in parts for one in _configs(part))]


def leave_uncompiled() -> None:
    """Keeps the compiler out of the attention, which counts rows and is one kernel each; it compiles what is around it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, torch.compiler.disable(_attention))  # type: ignore[no-untyped-call]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Queries (1, heads, T, head size), keys and values (1, kv heads, T, head size) -> (1, T, heads, head size)."""
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if attention_mask is None and sliding_window is not None and query.shape[2] > sliding_window:
            attention_mask = _window(query.shape[2], sliding_window, query.device)
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more)
        return out, None
    if torch.is_autocast_enabled(query.device.type):  # a quantised model's norms are float32, and so are its queries
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if query.is_cuda and not dropout and _flash(query):
        return _varlen(query, key, value, cu_seq_lens_q, int(max_length_q or query.shape[2]), scaling, sliding_window), None
    if query.is_cuda and query.shape[1] != key.shape[1] and not _flash(query):
        key, value = _each_head(query, key, value)
    ends = cu_seq_lens_q.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    return _split(query, key, value, lengths, scaling, dropout, sliding_window), None


def _flash(query: torch.Tensor) -> bool:
    """Whether FlashAttention takes such queries: 16 bits, heads of up to 256 in steps of 8, on an Ampere GPU or a later one."""
    size = query.shape[3]
    return (
        query.dtype != torch.float32
        and size <= 256
        and size % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _each_head(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values once for every head of the queries.

    On CUDA only FlashAttention shares them among heads; without it PyTorch would fall back to whole products of L x L.
    """
    heads = query.shape[1] // key.shape[1]
    return key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)


def _split(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """One call a row. `split` has one backward for all parts, where slices would each fill a gradient of full length."""
    parts = zip(*(torch.split(x, lengths, 2) for x in (query, key, value)), strict=True)
    seen = []
    for q, k, v in parts:
        length = q.shape[2]
        if length <= LONGEST and q.dtype == torch.bfloat16 and q.device.type == "cpu" and not dropout and window is None:
            seen.append(ShortAttention.apply(q, k, v, q.shape[3] ** -0.5 if scaling is None else scaling))  # type: ignore[no-untyped-call]
            continue
        shared = {"dropout_p": dropout, "scale": scaling, "enable_gqa": q.shape[1] != k.shape[1]}
        if window is None or length <= window:
            seen.append(functional.scaled_dot_product_attention(q, k, v, is_causal=True, **shared))
            continue
        block = max(window, _BLOCK)  # a mask of all of a long row would take its length squared
        for start in range(0, length, block):
            end, first = min(start + block, length), max(start - window + 1, 0)
            mask = _window(end - first, window, q.device)[start - first :]
            keys, values = k[:, :, first:end], v[:, :, first:end]
            seen.append(functional.scaled_dot_product_attention(q[:, :, start:end], keys, values, attn_mask=mask, **shared))
    return torch.cat(seen, 2).transpose(1, 2).contiguous()


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One kernel for all rows, on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), ends, ends, longest, longest,
        scale=scaling, window_size=(-1 if window is None else window - 1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, torch.Tensor)
    return out.unsqueeze(0)


def _window(length: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a query (rows) sees a key (columns): itself and the `window` - 1 before it."""
    ago = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (ago >= 0) & (ago < window)
