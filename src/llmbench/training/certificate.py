"""What the trained model says to the probes, computed from the model in memory; its certificate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from llmbench import parity, provenance
from llmbench.errors import LlmbenchError
from llmbench.parity import Certificate, Probe, Said

__all__ = ["of"]

T = TypeVar("T")

_SCALES = (0.5, 2.0)
"""Other strengths of the adapter that are looked at: lora_alpha by half or double, or taken for r."""
_NOTHING: tuple[tuple[int, ...], tuple[float, ...]] = ((), ())
_ROWS, _NUMBERS = 6, 2**26
"""Prompts and logits (256 MiB in float32) of one batch."""


def of(
    model: Any,
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    quantized: bool,
    base: dict[str, str],
    folder: Path,
    template_kwargs: dict[str, Any] | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
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
        start: LoRA's matrices as they began where these were taken out of the base (PiSSA, OLoRA), which with them is the base.

    Raises:
        LlmbenchError: the template renders none of the probes.
    """
    chat = bool(tokenizer.chat_template)
    kwargs = template_kwargs or {}
    rendered = [(chat_, ids) for chat_ in parity.CHATS if (ids := _ids(tokenizer, chat_, kwargs))]
    if not rendered:
        raise LlmbenchError("the chat template renders none of the probes")
    probes = _probes(model, rendered, dtype, start)
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
        probes=probes,
    )


def _probes(
    model: Any,
    rendered: list[tuple[tuple[dict[str, str], ...], list[int]]],
    dtype: torch.dtype,
    start: Mapping[str, torch.Tensor] | None,
) -> tuple[Probe, ...]:
    """What the model says to each conversation and its token ids: with its adapter, without it, and at other strengths."""
    model.eval()
    biased = any(getattr(one, "bias", "none") != "none" for one in getattr(model, "peft_config", {}).values())
    alone = hasattr(model, "disable_adapter") and not biased  # a trained bias stays when the adapter is off
    prompts = [ids for _, ids in rendered]
    few = range(0, len(prompts), parity.GREEDY_EVERY)
    without: list[tuple[float, ...]] = []
    scaled: dict[str, dict[int, tuple[float, ...]]] = {}
    autocast = torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), autocast, torch.compiler.set_stance("force_eager"):  # a few shapes, not worth compiling
        trained = _scores(model, prompts)
        continued = dict(zip(few, _greedy(model, [prompts[i] for i in few]), strict=True))
        if alone:
            with _begun(model, start) if start else model.disable_adapter():
                without = _scores(model, prompts)
        if alone and not start:
            scaled = {
                str(scale): dict(zip(few, _at(model, [prompts[i] for i in few], scale), strict=True)) for scale in _SCALES
            }
    return tuple(
        Probe(
            messages,
            Said(tuple(ids), trained[i], *continued.get(i, _NOTHING)),
            Said(tuple(ids), without[i]) if without else None,
            {scale: values[i] for scale, values in scaled.items() if i in values},
        )
        for i, (messages, ids) in enumerate(rendered)
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


@contextmanager
def _begun(model: Any, start: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The adapter as it was before the first step."""
    parameters = dict(model.named_parameters())
    places = {name: parameters[re.sub(r"(lora_(?:embedding_)?[AB])", r"\1.default", name, count=1)] for name in start}
    before = {name: place.data for name, place in places.items()}
    try:
        for name, place in places.items():
            place.data = start[name].to(place.device, place.dtype)
        yield
    finally:
        for name, place in places.items():
            place.data = before[name]


def _at(model: Any, prompts: list[list[int]], scale: float) -> list[tuple[float, ...]]:
    """What it says with its LoRA stronger or weaker by a factor."""
    layers = [module for module in model.modules() if isinstance(getattr(module, "scaling", None), dict)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            for name in layer.scaling:
                layer.scaling[name] *= scale
        return _scores(model, prompts)
    finally:
        for layer, kept in zip(layers, before, strict=True):
            layer.scaling.update(kept)


def _scores(model: Any, prompts: list[list[int]]) -> list[tuple[float, ...]]:
    """The log-probability of each token after the first, prompt by prompt."""

    def of_one(ids: torch.Tensor, logits: torch.Tensor) -> tuple[float, ...]:
        found = logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0].tolist()
        return tuple(round(value, 7) for value in found)

    return _each(model, prompts, of_one)


def _greedy(model: Any, prompts: list[list[int]]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """The likeliest continuation of each prompt, and the lead of each of its tokens over the second."""

    def best(ids: torch.Tensor, logits: torch.Tensor) -> tuple[int, float]:
        found = logits[-1].log_softmax(-1).topk(2)
        return int(found.indices[0]), round(float(found.values[0] - found.values[1]), 7)

    whole = [list(prompt) for prompt in prompts]
    leads: list[list[float]] = [[] for _ in prompts]
    for _ in range(parity.GREEDY_TOKENS):
        for ids, lead, (token, ahead) in zip(whole, leads, _each(model, whole, best), strict=True):
            ids.append(token)
            lead.append(ahead)
    return [(tuple(ids[len(p) :]), tuple(lead)) for ids, p, lead in zip(whole, prompts, leads, strict=True)]


def _each(model: Any, prompts: list[list[int]], take: Callable[[torch.Tensor, torch.Tensor], T]) -> list[T]:
    """What is taken from each prompt's ids, (n,), and logits, (n, vocabulary), in float32.

    Prompts of about the same length share a batch. They are filled up at their end, which changes nothing of what stands before
    it in a model that reads forwards.
    """
    vocabulary = model.config.get_text_config().vocab_size
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, T] = {}
    while order:
        width = len(prompts[order[-1]])
        some = order[-min(_ROWS, max(1, _NUMBERS // (width * vocabulary))) :]
        del order[-len(some) :]
        batch = torch.tensor([prompts[i] + prompts[i][-1:] * (width - len(prompts[i])) for i in some], device=model.device)
        logits = model(input_ids=batch, use_cache=False).logits
        for row, i in enumerate(some):
            found[i] = take(batch[row, : len(prompts[i])], logits[row, : len(prompts[i])].float())
    return [found[i] for i in range(len(prompts))]
