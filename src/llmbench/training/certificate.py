"""What the trained model says to the probes, computed from the model in memory; its certificate."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from llmbench import parity, provenance
from llmbench.errors import LlmbenchError
from llmbench.parity import Certificate, Probe, Said

__all__ = ["of"]

_SCALES = (0.5, 2.0)
"""Other strengths of the adapter that are looked at: lora_alpha by half or double, or taken for r."""


def of(
    model: Any,
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    quantized: bool,
    base: dict[str, str],
    folder: Path,
    template_kwargs: dict[str, Any] | None = None,
) -> Certificate:
    """The certificate of a model in memory, with its adapter if it has one.

    Args:
        model: a causal model; one of PEFT's says each probe twice, with its adapter and without.
        tokenizer: whose chat template is the training's; without one the probes are plain text.
        dtype: the precision that it computes in.
        quantized: whether its base is in few bits.
        base: the base's fingerprint.
        folder: what it is saved in.
        template_kwargs: variables of the chat template.

    Raises:
        LlmbenchError: the template renders none of the probes.
    """
    chat = bool(tokenizer.chat_template)
    kwargs = template_kwargs or {}
    rendered = [(chat_, ids) for chat_ in parity.CHATS if (ids := _ids(tokenizer, chat_, kwargs))]
    if not rendered:
        raise LlmbenchError("the chat template renders none of the probes")
    model.eval()
    plain = getattr(model, "disable_adapter", None)
    probes = []
    with torch.no_grad(), torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        for number, (messages, ids) in enumerate(rendered):
            greedy = parity.GREEDY_TOKENS if number % parity.GREEDY_EVERY == 0 else 0
            trained = _said(model, ids, greedy)
            with plain() if plain is not None else nullcontext():
                base_said = _said(model, ids, 0) if plain is not None else None
            scaled = {str(scale): _at(model, ids, scale) for scale in _SCALES} if greedy and plain is not None else {}
            probes.append(Probe(messages, trained, base_said, scaled))
    return Certificate(
        rendered="chat" if chat else "text",
        dtype=str(dtype).removeprefix("torch."),
        quantized=quantized,
        template=parity.template_hash(tokenizer.chat_template) if chat else None,
        template_kwargs=kwargs,
        base=base,
        files=Certificate.files_of(folder),
        config=parity.configuration(folder),
        versions=provenance.versions(),
        probes=tuple(probes),
    )


def _ids(tokenizer: Any, messages: tuple[dict[str, str], ...], kwargs: dict[str, Any]) -> list[int]:
    """The prompt as training and evaluation render it; empty where the template refuses it, such as a system prompt."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return list(tokenizer(messages[-1]["content"])["input_ids"]) if len(messages) == 1 else []
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **kwargs)
    except TemplateError:
        return []
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _at(model: Any, ids: list[int], scale: float) -> tuple[float, ...]:
    """What it says with its LoRA stronger or weaker by a factor."""
    layers = [module for module in model.modules() if isinstance(getattr(module, "scaling", None), dict)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            for name in layer.scaling:
                layer.scaling[name] *= scale
        return _said(model, ids, 0).logprobs
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.scaling.update(kept)


def _said(model: Any, ids: list[int], greedy: int) -> Said:
    """One prompt alone, without padding or cache, so that nothing but the model is in what it says."""
    said, gaps, whole = (), [], list(ids)
    for step in range(greedy + 1):
        given = torch.tensor([whole], device=model.device)
        logits = model(input_ids=given, use_cache=False).logits[0].float()
        if step == 0:
            scores = logits[:-1].log_softmax(-1).gather(1, given[0, 1:, None])[:, 0]
            said = tuple(round(value, 7) for value in scores.tolist())
        if step < greedy:
            best = logits[-1].log_softmax(-1).topk(2)
            gaps.append(round(float(best.values[0] - best.values[1]), 7))
            whole.append(int(best.indices[0]))
    return Said(tuple(ids), said, tuple(whole[len(ids) :]), tuple(gaps))
