"""Which models of the catalogue fit a machine: trained how, served at which precision, and which to try first.

All figures come from the formulas that `check` and `train` use (needs.py) and from the roofline of serving.py.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ValidationError

from llmbench import recipe as recipes
from llmbench.errors import LlmbenchError
from llmbench.estimate import rates
from llmbench.estimate.catalogue import Candidate
from llmbench.estimate.experience import Factor, corrections, memory
from llmbench.estimate.measure import Hardware
from llmbench.estimate.needs import METHODS as ESTIMATED
from llmbench.estimate.needs import Estimate, Work, estimate, work
from llmbench.estimate.offers import changed
from llmbench.estimate.serving import USABLE, Load, Serving, precisions, serving
from llmbench.recipe import TrainRecipe

__all__ = ["METHODS", "Ceiling", "Option", "Task", "advise", "by_model", "overrides", "refuse_unknown", "usual"]

GIB = 2**30
METHODS = ("lora", "qlora", "full")
"""As they are tried: LoRA on a base in 16 bits, on one in four bits, and all parameters."""
_TRAINABLE = {"cuda": 0.92, "cpu": 1.0}
"""Of the memory that a training may take: PyTorch reserves more than it allocates, and CUDA's context is not estimated."""
_AGE = 0.5
"""Years in which a model comes to count half as many parameters: a rule of thumb, with no benchmark behind it."""


@dataclass(frozen=True)
class Task:
    """The training that is planned."""

    recipe: TrainRecipe
    lengths: np.ndarray
    """Tokens of each row, by the recipe's own tokenizer; another model's may count a fifth more or less."""
    learned: float
    """Share of tokens that are learned."""

    @cached_property
    def tokens(self) -> float:
        """Tokens that are read, all epochs together."""
        done = work(self.recipe, self.lengths, self.learned)
        return done.real * done.steps * done.accumulation


@dataclass(frozen=True)
class Ceiling:
    """What is still good enough."""

    token: float | None = None
    """Seconds between two tokens of an answer."""
    first: float | None = None
    """Seconds to the first token."""
    hours: float | None = None
    """Of training."""


@dataclass(frozen=True)
class Option:
    """One model, trained one way and served at one precision."""

    model: Candidate
    method: str
    settings: dict[str, Any]
    """Of the recipe, beside the method's own, that the training fits with: dotted names."""
    need: Estimate
    peak: int
    """Bytes of training, corrected by finished runs."""
    answers: Serving
    missing: tuple[str, ...] = field(default=())
    """Why it does not fit, each with what is missing; empty where it does."""
    lack: int = 0
    """Bytes that are missing at worst."""

    @property
    def fits(self) -> bool:
        """Whether it trains and serves here within the limits."""
        return not self.missing

    @property
    def weight(self) -> float:
        """What is tried first is the heaviest: parameters, of a mixture the geometric mean of all and those at work for a
        token, and half for each half year of age."""
        shape = self.model.shape
        year, month = map(int, self.model.released.split("-"))
        size = math.sqrt(shape.parameters * (shape.active + shape.embedding))
        return size * 2 ** ((year + month / 12) / _AGE - 2020 / _AGE)


def usual(tokens: int = 1_000_000, longest: int = 512) -> Task:
    """A million tokens of chats that are learned by half, where no recipe says more."""
    recipe = recipes.load("bundled://recipes/sft-lora.yaml", TrainRecipe, ["training.max_tokens_per_batch=null"])
    return Task(recipe, np.full(max(tokens // longest, 1), longest), 0.5)


def refuse_unknown(recipe: TrainRecipe) -> None:
    """Sees to it that a recipe's method is one that can be estimated.

    Raises:
        LlmbenchError: it is not.
    """
    if recipe.method not in ESTIMATED:
        raise LlmbenchError(
            f"{recipe.source}: there is no estimate for method: {recipe.method}. Name a recipe of {', '.join(ESTIMATED)}, or "
            "leave --task out"
        )


def advise(
    models: Sequence[Candidate],
    there: Hardware,
    load: Load,
    planned: Task,
    *,
    methods: Sequence[str] = METHODS,
    limits: Ceiling | None = None,
) -> tuple[list[Option], Factor | None, Factor | None]:
    """Every option, those that fit first and the heaviest first among them, and what finished runs did to time and memory.

    Args:
        models: of the catalogue.
        there: the hardware; only this machine's own runs correct an estimate.
        load: users and tokens of serving.
        planned: the training.
        methods: of METHODS.
        limits: on speed; None has none.
    """
    method = planned.recipe.method
    time = corrections(there.machine, method=method) if there.here else []
    peaks = memory(there.machine, method=method) if there.here else []
    asked = limits or Ceiling()
    trained = {name: list(_ways(planned, name, there)) for name in methods}
    found = []
    for model in models:
        served = [serving(model.shape, there, precision, load) for precision in precisions(there)]
        for name in methods:
            settings, need, peak = _training(model, trained[name], there, time, peaks)
            found += [_option(model, name, settings, need, peak, one, there, load, asked) for one in served]
    found.sort(key=lambda option: (not option.fits, option.lack if not option.fits else 0, -option.weight))
    return found, Factor.of(time), Factor.of(peaks)


def by_model(options: Sequence[Option], there: Hardware) -> list[Option]:
    """One option of each model, in the order of options: the first method and the most exact precision that fit, else what
    lacks least."""
    order = [*METHODS]
    kinds = list(precisions(there))
    if there.fp8 is None and "fp8" in kinds:  # eight-bit integers are multiplied faster there
        kinds.remove("fp8")
        kinds.insert(2, "fp8")
    best: dict[str, Option] = {}
    for option in options:
        kept = best.get(option.model.name)
        if kept is None or _key(option, order, kinds) < _key(kept, order, kinds):
            best[option.model.name] = option
    return sorted(best.values(), key=lambda option: (not option.fits, option.lack if not option.fits else 0, -option.weight))


def _key(option: Option, order: list[str], kinds: list[str]) -> tuple[bool, int, int, int]:
    return (
        not option.fits,
        0 if option.fits else option.lack,
        order.index(option.method),
        kinds.index(option.answers.precision),
    )


def _ways(planned: Task, method: str, there: Hardware) -> Iterator[tuple[dict[str, Any], TrainRecipe, Work]]:
    """The recipe with a method, as it stands and with settings that take less memory, in that order, and its batches."""
    plain = _with(planned.recipe, method)
    spec = plain.training
    batches = work(plain, planned.lengths, planned.learned)
    rows = spec.per_device_train_batch_size
    if spec.max_tokens_per_batch is not None:
        rows = max(round(spec.max_tokens_per_batch / float(planned.lengths.mean())), 1)
    small: dict[str, Any] = {
        "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": rows * spec.gradient_accumulation_steps,
    }
    if spec.max_tokens_per_batch is not None:
        small["training.max_tokens_per_batch"] = None
    again = {"training.gradient_checkpointing": True}
    half = {"model.dtype": "bfloat16"} if not there.machine.bfloat16 and method == "lora" else {}
    yield {}, plain, batches
    seen: list[dict[str, Any]] = [{}]
    for settings in (again, small, small | again, half, small | again | half):
        if settings not in seen:
            seen.append(settings)
            other = changed(plain, settings)
            yield settings, other, work(other, planned.lengths, planned.learned)


def _with(recipe: TrainRecipe, method: str) -> TrainRecipe:
    """The recipe with LoRA, LoRA on four bits, or all parameters, for a model that is downloaded.

    Raises:
        LlmbenchError: something in the recipe does not go with that.
    """
    document = recipe.model_dump()
    document |= {"adapter": None, "adapter_name_or_path": None}
    document["model"] |= {"config": None}
    document["quantization"] = {"load_in_4bit": True} if method == "qlora" else None
    document["lora"] = None if method == "full" else document["lora"] or {}
    try:
        made: TrainRecipe = type(recipe).model_validate(document)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).splitlines()[0]
        raise LlmbenchError(f"{recipe.source}: not with {method}: {said}. Leave it out: --method {_other(method)}") from None
    return made


def _other(method: str) -> str:
    """What to ask for where one method does not go."""
    return " --method ".join(name for name in METHODS if name != method)


def _training(
    model: Candidate,
    ways: Sequence[tuple[dict[str, Any], TrainRecipe, Work]],
    there: Hardware,
    time: Sequence[float],
    peaks: Sequence[float],
) -> tuple[dict[str, Any], Estimate, int]:
    """The first way to train that fits, else the one that takes least: settings, need, and peak corrected by finished runs."""
    factor = statistics.median(peaks or (1.0,))
    limit = there.memory * _TRAINABLE[there.device]
    least: tuple[dict[str, Any], Estimate, int] | None = None
    for settings, recipe, batches in ways:
        need = estimate(recipe, model.shape, batches, there.machine, correction=time)
        peak = int(need.peak * factor)
        if least is None or peak < least[2]:
            least = settings, need, peak
        if peak <= limit:
            return settings, need, peak
    assert least is not None
    return least


def _option(
    model: Candidate,
    method: str,
    settings: dict[str, Any],
    need: Estimate,
    peak: int,
    answers: Serving,
    there: Hardware,
    load: Load,
    limits: Ceiling,
) -> Option:
    """An option with the reasons why it does not fit."""
    room = {
        "training": peak - there.memory * _TRAINABLE[there.device],
        "serving": answers.peak - there.memory * USABLE[there.device],
    }
    missing = [f"{what} lacks {lack / GIB:.1f} GiB" for what, lack in room.items() if lack > 0]
    if load.context > model.context:
        missing.append(f"reads at most {model.context:,} tokens")
    if limits.token is not None and answers.token > limits.token:
        missing.append(f"{answers.token * 1e3:,.0f} ms a token")
    if limits.first is not None and answers.first > limits.first:
        missing.append(f"{answers.first * 1e3:,.0f} ms to the first token")
    if limits.hours is not None and need.seconds > limits.hours * 3600:
        missing.append(f"trains {need.seconds / 3600:,.0f} h")
    lack = int(max(0.0, *room.values()))
    return Option(model, method, settings, need, peak, answers, tuple(missing), lack)


def overrides(option: Option, planned: Task) -> list[str]:
    """What the command line adds to the recipe to train an option."""
    name = option.model.name.rsplit("/", 1)[-1].lower()
    found = [f"name={name}", f"model.model_name_or_path={option.model.name}"]
    found.append(f"training.learning_rate={rates.start(planned.recipe.method, adapts=option.method != 'full'):g}")
    if option.method == "qlora":
        found.append("quantization.load_in_4bit=true")
    if option.method == "full":
        found.append("lora=null")
    return found + [f"{key}={json.dumps(value)}" for key, value in option.settings.items()]
