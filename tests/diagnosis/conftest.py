"""Rows that are all different, recipes on the bundled model, and records that are written as a training writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from llmbench import recipe, runs
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run

WORDS = [
    "amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron", "iris", "juniper", "kite", "larch", "maple",
    "north", "opal", "pine", "quartz", "reed",
]  # fmt: skip
Train = Callable[..., Run]


def rows(path: Path, count: int, *, seed: int = 1, odd: tuple[int, ...] = ()) -> Path:
    """Questions with answers that follow from them, no two alike; those at `odd` (counted from 1) have answers of noise."""
    random = Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, count + 1):
            words = random.sample(WORDS, 4)
            answer = f"{words[3]} {words[2]}" if number not in odd else "".join(random.choice("⌘☂Ω§ÞЖ") for _ in range(6))
            turns = [
                {"role": "user", "content": f"Say the last two of {' '.join(words)}, the last one first."},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def written(folder: Path, name: str, path: Path, *overrides: str, **sections: Any) -> TrainRecipe:
    """A LoRA recipe of 40 steps of 4 rows."""
    document: dict[str, Any] = {
        "name": name,
        "model": {"dtype": "float32"},
        "data": {"train": [{"path": str(path)}], "max_length": 64},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {
            "per_device_train_batch_size": 4, "learning_rate": 3e-3, "logging_steps": 5, "max_steps": 40,
            "performance": "plain",
        },
    }  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document | sections), encoding="utf-8")
    return recipe.load(file, TrainRecipe, overrides)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace that the trainings of a module share."""
    folder = tmp_path_factory.mktemp("diagnosis")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        yield folder


@pytest.fixture(scope="module")
def train(home: Path) -> Train:
    """Trains a recipe over rows of its own, once a name."""

    def trained(name: str, *overrides: str, count: int = 200, odd: tuple[int, ...] = (), **sections: Any) -> Run:
        from llmbench import training

        path = rows(home / f"{name}.jsonl", count, odd=odd)
        document = written(home, name, path, *overrides, **sections)
        run = runs.create(document)
        training.train(document, run)
        return run

    return trained
