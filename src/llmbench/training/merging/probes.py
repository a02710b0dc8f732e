"""How far apart two states of a model are: logits on a few texts, and what it would write after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from llmbench import data
from llmbench.errors import LlmbenchError
from llmbench.recipe import DataSpec

__all__ = ["Answers", "Distance", "answers", "distance", "greedy", "logits", "texts"]

_ROWS = 4
_LENGTH = 256
_NEW_TOKENS = 16
_PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):\n    ",
    "Q: What is 12 times 7?\nA:",
    "To make tea, first boil the",
    '{"name": "kettle", "weight":',
)
"""Texts that no training is about, in which a damaged model shows too."""


@dataclass(frozen=True)
class Answers:
    """What a model makes of the probe texts: logits of each, (tokens, vocabulary) in float32, and what it writes after it."""

    logits: list[torch.Tensor]
    greedy: list[list[int]]


@dataclass(frozen=True)
class Distance:
    """Between two models: the mean Kullback-Leibler divergence of the next token in nats, and the largest logit difference."""

    kl: float
    logit: float

    def __str__(self) -> str:
        return f"KL {self.kl:.1e}, logits within {self.logit:.2g}"


def texts(recipe: dict[str, Any], tokenizer: Any) -> tuple[list[list[int]], int]:
    """Token ids of the probe texts, and how many of them are rows of the training's own data (0 when its files are gone).

    Args:
        recipe: the run's resolved recipe.
        tokenizer: the run's tokenizer.
    """
    fixed = [tokenizer(text, add_special_tokens=True)["input_ids"] for text in _PROMPTS]
    try:
        few = {"eval": [], "eval_fraction": 0.0, "max_length": _LENGTH, "over_length": "truncate"}
        sources = [source | {"limit": _ROWS} for source in recipe["data"]["train"]]
        spec = DataSpec.model_validate(recipe["data"] | few | {"train": sources})
        rows = data.load(spec, tokenizer, seed=recipe["training"]["seed"])
        own = [list(map(int, ids)) for ids in rows.train["input_ids"][:_ROWS]]
    except (LlmbenchError, ValidationError):
        own = []
    return [*own, *fixed], len(own)


def answers(model: Any, probes: list[list[int]], dtype: torch.dtype) -> Answers:
    """Runs a model on the probe texts, in the precision that it computes in."""
    return Answers(logits(model, probes, dtype), greedy(model, probes, dtype))


@torch.no_grad()
def logits(model: Any, probes: list[list[int]], dtype: torch.dtype) -> list[torch.Tensor]:
    """What a model says at each position of the probe texts: (tokens, vocabulary) each, float32, on the CPU."""
    model.eval()
    vocabulary = model.config.get_text_config().vocab_size
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        return [
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
            .logits[0, -len(ids) :, :vocabulary]  # prompt tuning puts positions before them
            .float()
            .cpu()
            for ids in probes
        ]


@torch.no_grad()
def greedy(model: Any, probes: list[list[int]], dtype: torch.dtype) -> list[list[int]]:
    """The likeliest tokens after each of the probe texts."""
    from transformers import GenerationConfig

    model.eval()
    greedily = GenerationConfig(max_new_tokens=_NEW_TOKENS, do_sample=False, pad_token_id=0)  # type: ignore[no-untyped-call]
    width = max(map(len, probes))
    batch = torch.tensor([[0] * (width - len(ids)) + ids for ids in probes], device=model.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in probes], device=model.device)
    with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
        made = model.generate(input_ids=batch, attention_mask=mask, generation_config=greedily)
    found: list[list[int]] = made[:, width:].tolist()
    return found


def distance(one: Answers, other: Answers) -> Distance:
    """How far `other` is from `one`; NaN anywhere makes it infinite."""
    kl, largest, count = 0.0, 0.0, 0
    for a, b in zip(one.logits, other.logits, strict=True):
        width = min(a.shape[-1], b.shape[-1])
        a, b = a[:, :width], b[:, :width]
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            return Distance(float("inf"), float("inf"))
        p, q = a.double().log_softmax(-1), b.double().log_softmax(-1)
        kl += float((p.exp() * (p - q)).sum())
        largest = max(largest, float((a - b).abs().max()))
        count += len(a)
    return Distance(max(kl / count, 0.0), largest)
