"""Answers for GRPO from an engine outside the trainer's process: the current adapter goes there, tokens come back.

TRL draws answers with vLLM through an object of two methods. This one stands in its place: before the first answers of a step
it saves the adapter as it is and has the engine load it, so answers are drawn by the policy that learns from them. TRL then
scores them with the trained model and weighs each answer by how much likelier it is there than it was for the engine, and
leaves out one that is over 3 times as likely: the two round differently.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmbench.errors import LlmbenchError

__all__ = ["Drawing", "Drawn", "Sampler", "backend"]

_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn: `count` for each prompt, of at most `most` tokens, ending with one of `stops`."""

    count: int
    most: int
    stops: tuple[int, ...]
    seed: int
    settings: Mapping[str, float]
    """temperature, top_p, top_k (0: all), min_p and repetition_penalty, those that are set."""


@dataclass(frozen=True)
class Drawn:
    """An answer: its tokens, with the one that ended it, and the log-probability with which each was drawn."""

    ids: list[int]
    log_probs: list[float]


class Sampler(Protocol):
    """Draws answers from the base with the adapter that it was given last."""

    place: Path
    """A folder for adapters, which whoever made the sampler removes in the end."""

    def load(self, adapter: Path) -> None:
        """Takes an adapter in PEFT's format in the place of the one before, whose folder is removed after this call.

        Raises:
            LlmbenchError: it does not take it.
        """

    def draw(self, prompts: Sequence[list[int]], how: Drawing) -> list[Drawn]:
        """`how.count` answers for each prompt, those of a prompt behind one another.

        Raises:
            LlmbenchError: it does not answer.
        """


def backend(sampler: Sampler, seed: int, stops: Sequence[int], step: Callable[[], int]) -> Callable[..., _Backend]:
    """What TRL calls in place of its own class, with its keyword arguments.

    Args:
        sampler: draws the answers.
        seed: the training's.
        stops: tokens that end an answer.
        step: the step that the training is at.
    """
    return lambda **given: _Backend(sampler, seed, tuple(stops), step, given)


class _Backend:
    """TRL's VLLMGeneration over a sampler."""

    def __init__(
        self, sampler: Sampler, seed: int, stops: tuple[int, ...], step: Callable[[], int], given: Mapping[str, Any]
    ) -> None:
        self.sampler, self.seed, self.stops, self.step = sampler, seed, stops, step
        self.model, self.accelerator = given["model"], given["accelerator"]
        self.most = int(given["max_completion_length"])
        self.settings = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
        self.loaded = self.asked = 0

    def sync_weights(self) -> None:
        """Gives the sampler the adapter as it is now."""
        self.loaded, self.asked = self.loaded + 1, 0
        before, now = (self.sampler.place / str(number) for number in (self.loaded - 1, self.loaded))
        model = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(str(now), selected_adapters=["default"], save_embedding_layers=False)
        self.sampler.load(now)
        shutil.rmtree(before, ignore_errors=True)

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """An answer for each prompt; TRL repeats a prompt as often as it is to be answered.

        Raises:
            LlmbenchError: the sampler does not answer as it should.
        """
        drawn_by = self.step() * 10_007 + self.asked  # each round of answers has a seed of its own, the same after a resume
        self.asked += 1
        seed = (self.seed * 1_000_003 + drawn_by) % 2**31
        how = Drawing(num_generations, self.most, self.stops, seed, self.settings)
        drawn = self.sampler.draw(prompts[::num_generations], how)
        if len(drawn) != len(prompts) or not all(one.ids and len(one.ids) == len(one.log_probs) for one in drawn):
            raise LlmbenchError(f"The engine gave {len(drawn)} answers to {len(prompts)} prompts, or empty ones.")
        return prompts, [one.ids for one in drawn], [[[one] for one in answer.log_probs] for answer in drawn], None
