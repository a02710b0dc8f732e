"""What differs between two runs: recipes, ingredients, curves, figures and results. Reads files only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmbench.recipe import DataSource, DataSpec, LoraSpec, ModelSpec, TrainingSpec
from llmbench.runs.best import goal
from llmbench.runs.ingredients import CONTENT, SHOWN, Ingredient, compare
from llmbench.runs.run import Run

__all__ = ["CurvePair", "RunDiff", "Setting", "curve_pairs", "diff", "result_hash"]

_PLACE = re.compile(
    r"(data\.(train|eval)\.\d+\.(path|url)|model\.(model_name_or_path|revision|tokenizer)|adapter_name_or_path"
    r"|evaluation\.questions|data\.chat_template)"
)
"""Settings that name what a lock knows by its content."""
_OF_PLACE = {
    "data": ("data", "rows"),
    "model": ("base", "tokenizer"),
    "adapter_name_or_path": ("base",),
    "evaluation": ("questions",),
}


@dataclass(frozen=True)
class Setting:
    """A place of the recipes that says something else in each."""

    place: str
    a: Any
    b: Any
    kind: Literal["matters", "shown", "place", "chosen"] = "matters"
    """shown: it changes what is logged and kept only; place: it names, by another path, what is the same by its content;
    chosen: one leaves open what the other sets, and both trained with the same."""


@dataclass(frozen=True)
class CurvePair:
    """A figure of two runs at the steps that both logged."""

    metric: str
    steps: int
    """How many steps both logged."""
    first: int | None
    """The first of them at which the two differ; None where none does."""
    largest: float
    """The largest absolute difference."""
    at: int | None
    """The step of the largest difference."""
    relative: float
    """The largest difference over the larger of the two values' sizes at that step."""


@dataclass(frozen=True)
class RunDiff:
    """Two runs, side by side."""

    a: str
    b: str
    settings: tuple[Setting, ...]
    ingredients: tuple[Ingredient, ...]
    curves: tuple[CurvePair, ...]
    figures: dict[str, tuple[Any, Any]]
    """Steps, tokens, losses, evaluations, seconds and memory: name -> the two values, None where one has none."""
    results: tuple[str | None, str | None]
    """sha256 of the trained weights of each; None where a run has no result."""

    @property
    def unlike(self) -> tuple[str, ...]:
        """The parts that make them different trainings: `recipe`, and parts of `CONTENT`."""
        found = ["recipe"] if any(one.kind == "matters" for one in self.settings) else []
        return (*found, *dict.fromkeys(i.part for i in self.ingredients if i.part in CONTENT and i.state == "differs"))

    @property
    def unknown(self) -> tuple[Ingredient, ...]:
        """What a training is made of and one of the two does not record."""
        return tuple(i for i in self.ingredients if i.part in CONTENT and i.state == "not recorded")

    @property
    def same_training(self) -> bool:
        """Whether recipe, data, base, template and seed are the same, as far as both record them."""
        return not self.unlike

    @property
    def same_weights(self) -> bool | None:
        """Whether the trained weights are the same bits; None where a run has none."""
        return None if None in self.results else self.results[0] == self.results[1]

    @property
    def parts_at(self) -> int | None:
        """The first step at which any curve differs; None where none does."""
        return min((pair.first for pair in self.curves if pair.first is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "a": self.a,
            "b": self.b,
            "same_training": self.same_training,
            "unlike": list(self.unlike),
            "same_weights": self.same_weights,
            "differ_from_step": self.parts_at,
            "settings": [asdict(one) for one in self.settings],
            "ingredients": [one.as_json() for one in self.ingredients],
            "curves": [asdict(pair) for pair in self.curves],
            "figures": {name: {"a": a, "b": b} for name, (a, b) in self.figures.items()},
            "results": {"a": self.results[0], "b": self.results[1]},
        }


def diff(a: Run, b: Run) -> RunDiff:
    """Compares two runs by the files in their folders; keys that an earlier version did not write count as not recorded.

    Raises:
        RunError: a recipe is missing or damaged.
    """
    ingredients = compare(_lock(a), _lock(b))
    settings = tuple(_settings(a.recipe, b.recipe, ingredients))
    return RunDiff(
        a.name, b.name, settings, tuple(ingredients), tuple(curve_pairs(a, b)), _figures(a, b), (result_hash(a), result_hash(b))
    )


def _lock(run: Run) -> dict[str, Any]:
    return run.lock if (run.folder / "lock.json").exists() else {}


def _settings(a: dict[str, Any], b: dict[str, Any], ingredients: list[Ingredient]) -> Iterator[Setting]:
    """The places that differ. A key that only one recipe has counts as its default of today in the other."""
    for place, one, other in _places(a, b):
        if place == "name" or one == other:
            continue
        yield Setting(place, one, other, _kind(place, (one, other), ingredients))


def _kind(place: str, values: tuple[Any, Any], ingredients: list[Ingredient]) -> Literal["matters", "shown", "place", "chosen"]:
    section, _, name = place.rpartition(".")
    if place in SHOWN or section == "tracking":
        return "shown"
    if _PLACE.fullmatch(place):
        parts = _OF_PLACE.get("template" if "template" in place else place.partition(".")[0], ("template", "rows"))
        states = [i.state for i in ingredients if i.part in parts]
        return "place" if "differs" not in states and "same" in states else "matters"
    part = {"model": "hardware", "training": "settled"}.get(section)
    if part is not None and (None in values or "auto" in values):
        return "chosen" if any((i.part, i.name, i.state) == (part, name, "same") for i in ingredients) else "matters"
    return "matters"


def _places(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted places of two recipes with their values, lists by their positions."""
    if isinstance(a, list) and isinstance(b, list) and any(isinstance(one, dict) for one in [*a, *b]):
        a, b = ({str(i): one for i, one in enumerate(side)} for side in (a, b))
    if not (isinstance(a, dict) and isinstance(b, dict)):
        yield place, a, b
        return
    for key in dict.fromkeys([*a, *b]):
        here = f"{place}.{key}" if place else key
        usual = _default(here) if key not in a or key not in b else None
        yield from _places(a.get(key, usual), b.get(key, usual), here)


def _default(place: str) -> Any:
    """The default of a place in the recipes of today; None where it has none."""
    found: Any = _defaults()
    for key in re.sub(r"\.\d+\.", ".0.", place).split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


@cache
def _defaults() -> dict[str, Any]:
    source = DataSource.model_construct().model_dump(mode="json")
    return {
        "model": ModelSpec().model_dump(mode="json"),
        "data": DataSpec.model_construct(train=[]).model_dump(mode="json") | {"train": {"0": source}, "eval": {"0": source}},
        "lora": LoraSpec().model_dump(mode="json"),
        "training": TrainingSpec().model_dump(mode="json"),
    }


def curve_pairs(a: Run, b: Run, *, upto: int | None = None) -> Iterator[CurvePair]:
    """Each figure that both runs logged, at the steps that both logged it at: the loss, the gradient's norm, evaluations.

    Args:
        a: the one run.
        b: the other.
        upto: later steps are left out.
    """
    sides = [curves(run, upto=upto) for run in (a, b)]
    for metric in sides[0]:
        one, other = sides[0][metric], sides[1].get(metric, {})
        steps = sorted(one.keys() & other.keys())
        if not steps:
            continue
        apart = {step: abs(one[step] - other[step]) for step in steps}
        at = max(steps, key=lambda step: apart[step])
        size = max(abs(one[at]), abs(other[at]))
        yield CurvePair(
            metric, len(steps), next((step for step in steps if one[step] != other[step]), None), apart[at],
            at if apart[at] else None, apart[at] / size if size else 0.0,
        )  # fmt: skip


def curves(run: Run, *, upto: int | None = None) -> dict[str, dict[int, float]]:
    """The figures of a run that a repetition must meet: metric -> step -> value."""
    found: dict[str, dict[int, float]] = {}
    for row in run.metrics():
        if upto is not None and row["step"] > upto:
            continue
        for name, value in row.items():
            if (name in ("loss", "grad_norm") or name.startswith("eval_")) and isinstance(value, (int, float)):
                found.setdefault(name, {})[row["step"]] = float(value)
    return found


def _figures(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    sides = [_of_one(run) for run in (a, b)]
    return {name: (sides[0].get(name), sides[1].get(name)) for name in dict.fromkeys([*sides[0], *sides[1]])}


def _of_one(run: Run) -> dict[str, Any]:
    """The figures of one run, from its state, its log and its data report."""
    status, logged, report = run.status, run.metrics(), _report(run.folder / "data.json")
    found: dict[str, Any] = {"state": status["state"], "steps": status.get("step")}
    for part, name in (("train", "rows"), ("train", "tokens"), ("train", "trained_tokens"), ("eval", "rows")):
        if isinstance(report.get(part), dict):
            found[name if part == "train" else f"held-out {name}"] = report[part].get(name)
    losses = [row["loss"] for row in logged if "loss" in row]
    found["loss"] = status["loss"] if status.get("loss") is not None else losses[-1] if losses else None
    judged = goal(TrainingSpec.model_validate(run.recipe["training"]))
    best = judged.best(logged) if judged is not None else None
    if judged is not None and best is not None:
        found[f"best {judged.metric.removeprefix('eval_')}"] = best[1]
        found["best step"] = best[0]
    found |= {name.removeprefix("eval_") + " (held out)": value for name, value in (status.get("evaluation") or {}).items()}
    return found | {name: status.get(name) for name in ("seconds", "tokens_per_second", "peak_memory")}


def _report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def result_hash(run: Run) -> str | None:
    """sha256 of the weights that a run left, an adapter's or a model's; None where it left none."""
    folder = run.adapter if run.adapter.exists() else run.model
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
