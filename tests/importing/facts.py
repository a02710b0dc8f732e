"""What comes of a configuration of another trainer, as the tests ask it: the recipe as it loads, and the fate of each key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbench import recipe
from llmbench.importing import Imported, convert
from llmbench.recipe import TrainRecipe

ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}."}]}) + "\n"
    for i in range(100)
)
"""A hundred conversations."""


@dataclass(frozen=True)
class Case:
    """A published configuration's settings, and what must come of them."""

    name: str
    text: str
    wanted: dict[str, Any]
    """Dotted field of the loaded recipe -> its value."""
    refused: set[str] = field(default_factory=set)
    """Keys that no field means, all of them."""
    file: str = "theirs.yaml"
    dropped: set[str] = field(default_factory=set)
    """Keys without effect, of which these must be."""


def imported(folder: Path, text: str, file: str = "theirs.yaml", peer: str | None = None, **more: str) -> Imported:
    """What comes of a text in a file."""
    for name, content in more.items():
        (folder / name.replace("__", "/").replace("_DOT_", ".")).write_text(content, encoding="utf-8")
    path = folder / file
    path.write_text(text, encoding="utf-8")
    return convert(path, peer, into=folder / "mine.yaml")


def loaded(result: Imported, folder: Path) -> TrainRecipe:
    """The recipe as `llmbench train` has it."""
    assert result.recipe is not None, result.unfit
    assert not result.missing
    (folder / "mine.yaml").write_text(result.recipe, encoding="utf-8")
    return recipe.load(folder / "mine.yaml", TrainRecipe)


def at(document: TrainRecipe, place: str) -> Any:
    """A value by its dotted name; `batch` is the rows of an optimizer step."""
    if place == "batch":
        return document.training.per_device_train_batch_size * document.training.gradient_accumulation_steps
    here: Any = document
    for part in place.split("."):
        here = here[int(part)] if part.isdecimal() else getattr(here, part)
    return str(here) if isinstance(here, Path) else here


def check(case: Case, folder: Path, peer: str) -> None:
    """The case's facts, each by its own name in the failure."""
    result = imported(folder, case.text, case.file)
    assert result.peer == peer
    document = loaded(result, folder)
    wrong = {place: (got, wanted) for place, wanted in case.wanted.items() if (got := at(document, place)) != wanted}
    assert wrong == {}, f"got, wanted: {wrong}"
    refused = {one.theirs for one in result.translations if one.fate == "refused"}
    assert refused == case.refused, f"refused {sorted(refused)}, not {sorted(case.refused)}"
    dropped = {one.theirs for one in result.translations if one.fate == "dropped"}
    assert case.dropped <= dropped, f"not dropped: {sorted(case.dropped - dropped)}"
    assert all(one.why for one in result.translations if one.fate in ("dropped", "refused"))
