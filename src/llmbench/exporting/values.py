"""What an exported model is asked, what it says, and how far it may be off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from llmbench.exporting.proof import Compared

__all__ = ["Allowance", "Heard", "ProbeText", "Probes"]


@dataclass(frozen=True)
class ProbeText:
    """A text whose token ids every reader of the exported model must find again."""

    text: str
    begins: bool
    """Whether it begins a prompt, with the special tokens that the tokenizer puts around one; else it is read as it stands.
    Special tokens that it spells out are those tokens either way."""
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Probes:
    """What an exported model is asked."""

    sequences: tuple[tuple[int, ...], ...]
    """Token ids: prompts with what the trained model wrote after them. Logits are compared at each of their positions."""
    prompts: tuple[int, ...]
    """How many ids at the beginning of each sequence are the prompt, after which the model is to write by itself."""
    new_tokens: int
    """How many tokens to write, always the likeliest. It may go on behind a token that stops it, or end there."""
    texts: tuple[ProbeText, ...]


@dataclass(frozen=True)
class Heard:
    """What a model says to the probes."""

    logits: list[np.ndarray]
    """Of each sequence, (tokens, vocabulary), float32; columns past the tokenizer's vocabulary are ignored."""
    greedy: list[list[int]]
    """What it wrote after each prompt."""
    tokens: list[list[int]]
    """The ids of each text of the probes, by the format's own tokenizer; empty where the format has none."""
    stops: frozenset[int]
    """The tokens that end an answer."""
    template: str | None
    """Its chat template, as text."""
    tied: bool | None
    """Whether its head is its embedding; None where the format does not say."""
    normalised: bool = False
    """Whether `logits` are log-probabilities instead."""
    further: tuple[Compared, ...] = ()
    """What the format compared besides, such as with another reader."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The numbers behind it, for the proof."""
    also_stops: frozenset[int] = frozenset()
    """Other tokens at which the program that reads the format stops of its own accord, because of their names."""


@dataclass(frozen=True)
class Allowance:
    """How far rounding to a format's precision may take a model."""

    kl: float
    """Nats: the mean Kullback-Leibler divergence of the next token."""
    logit: float
    """The largest difference of two logits, at any position."""
    agreement: float
    """The part of positions at which the likeliest token must be the same, 0 to 1."""
