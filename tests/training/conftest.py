"""Small recipes on the bundled model, and the runs that several tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbench import recipe, runs
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run

ROWS = 40
Write = Callable[..., TrainRecipe]


def write_rows(path: Path, count: int = ROWS) -> Path:
    """Rows of one or two turns with answers that can be learned."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            turns = [
                {"role": "user", "content": f"What is the code of the Alba {i % 7}?"},
                {"role": "assistant", "content": f"The code is AB-{i % 7}."},
            ]
            file.write(json.dumps({"messages": turns * (1 + i % 2)}) + "\n")
    return path


def write_recipe(folder: Path, name: str, *overrides: str, **sections: Any) -> TrainRecipe:
    """A LoRA recipe of a dozen steps over `write_rows`, with sections replaced and values overridden."""
    document: dict[str, Any] = {
        "name": name,
        "data": {"train": [{"path": str(write_rows(folder / "rows.jsonl"))}], "max_length": 128},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "logging_steps": 1,
            "max_steps": 12,
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document | sections), encoding="utf-8")
    return recipe.load(path, TrainRecipe, overrides)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recipe into the test's folder and loads it."""

    def made(name: str, *overrides: str, **sections: Any) -> TrainRecipe:
        return write_recipe(tmp_path, name, *overrides, **sections)

    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished LoRA run of 12 steps with held-out rows."""
    from llmbench import training

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        document = write_recipe(folder, "trained", "data.eval_fraction=0.1", "training.eval_steps=6")
        run = runs.create(document)
        training.train(document, run)
        yield run
