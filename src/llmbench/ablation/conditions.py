"""The conditions of an ablation: the full recipe, and it with one thing left out or changed each."""

from __future__ import annotations

import difflib
import hashlib
import re
import shlex
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe, load
from llmbench.runs import resolved

__all__ = ["FULL", "Condition", "conditions"]

FULL = "full"
_FIXED = ("name", "training.seed")
"""What tells the runs of an ablation apart, and so cannot be what is varied."""
_SLUG = 30


@dataclass(frozen=True)
class Condition:
    """One version of the recipe."""

    name: str
    """`full`, `without lora.use_dora`, or `training.learning_rate=1e-4`."""
    values: dict[str, Any]
    """The resolved recipe as plain values, every default written out."""

    @property
    def slug(self) -> str:
        """The name as a part of a run's name."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        if len(plain) <= _SLUG:
            return plain
        return f"{plain[: _SLUG - 7].rstrip('-')}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"


def conditions(file: str | Path, overrides: Sequence[str], without: Sequence[str], changes: Sequence[str]) -> list[Condition]:
    """The full recipe first, then a condition for each of `without` and `changes`.

    Args:
        file: the recipe.
        overrides: of the full recipe, and so of all.
        without: dotted keys; each is left out, so that its default holds. A position of a list is removed from it.
        changes: each `dotted.key=value`, or several of them with spaces between.

    Raises:
        RecipeError: a recipe that results is not valid, changes nothing, or varies the name or the seed.
    """
    full = yaml.safe_load(resolved(load(file, TrainRecipe, overrides)))
    found = [Condition(FULL, full)]
    found += [Condition(f"without {key}", _without(full, key)) for key in without]
    for change in changes:
        try:
            given = shlex.split(change)
        except ValueError as error:
            raise RecipeError(f"--change {change}: a quotation mark is not closed. Close it, or leave it out.") from error
        for one in given:
            _refuse_fixed(one.partition("=")[0])
        values = yaml.safe_load(resolved(load(file, TrainRecipe, [*overrides, *given])))
        if values == full:
            raise RecipeError(f"--change {change}: the recipe says that already. Leave it out.")
        found.append(Condition(change, values))
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"{twice} is listed twice.")
    return found


def _without(full: dict[str, Any], key: str) -> dict[str, Any]:
    _refuse_fixed(key)
    values = deepcopy(full)
    *path, last = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
    here: Any = values
    for part in path:
        here = _step(here, part, key)
    _step(here, last, key)
    del here[int(last) if isinstance(here, list) else last]
    return values


def _step(here: Any, part: str, key: str) -> Any:
    if isinstance(here, list) and part.isdecimal() and int(part) < len(here):
        return here[int(part)]
    if isinstance(here, dict) and part in here:
        return here[part]
    near = difflib.get_close_matches(part, list(here), 1) if isinstance(here, dict) else []
    raise RecipeError(f"--without {key}: the recipe has no {part} there.{f' Did you mean {near[0]}?' if near else ''}")


def _refuse_fixed(key: str) -> None:
    if key in _FIXED:
        raise RecipeError(f"{key} tells the runs of an ablation apart and cannot be varied. Use --seeds or --name.")
