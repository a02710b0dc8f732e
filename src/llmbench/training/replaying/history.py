"""How a run came about: which recipe it followed up to which step, where it was resumed with another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbench.recipe import TrainRecipe, load
from llmbench.runs import Run

__all__ = ["Stretch", "stretches"]


@dataclass(frozen=True)
class Stretch:
    """Steps that were trained with one recipe."""

    recipe: TrainRecipe
    until: int | None
    """Its last step; None where it is trained to the end."""


def stretches(run: Run, lock: Mapping[str, Any], overrides: Sequence[str], name: str) -> list[Stretch]:
    """The stretches of a run, the first one first, each recipe under a new name.

    A recipe that was changed when the run was resumed is undone for the steps before, by what the lock says of it. Where a run
    was resumed from an earlier checkpoint, what came after that one is forgotten, as it was then.

    Raises:
        RecipeError: a recipe cannot be read, because a file that it names is missing, for one.
    """
    changes = [(int(entry["step"]), list(entry["recipe"])) for entry in lock.get("changed", [])]
    undone = [[_undo(line) for _, lines in reversed(changes[i:]) for line in reversed(lines)] for i in range(len(changes))]
    spans: list[tuple[int, list[str]]] = [(0, undone[0] if undone else [])]
    for i, (step, _) in enumerate(changes):
        spans = [span for span in spans if span[0] < step]
        spans.append((step, undone[i + 1] if i + 1 < len(undone) else []))
    ends = [*(start for start, _ in spans[1:]), None]
    file = run.folder / "recipe.yaml"
    return [
        Stretch(load(file, TrainRecipe, [*overrides, *back, f"name={name}"]), end)
        for (_, back), end in zip(spans, ends, strict=True)
    ]


def _undo(line: str) -> str:
    """`training.max_steps: 8 -> 12` -> `training.max_steps=8`."""
    place, _, values = line.partition(": ")
    old = values.rpartition(" -> ")[0]
    return f"{place}={'null' if old == 'None' else old}"
