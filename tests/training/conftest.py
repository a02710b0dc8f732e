"""Small recipes on the bundled model, and the runs that several tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


LORA = {"r": 4, "lora_alpha": 8}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LORA},
    "rslora": {"lora": LORA | {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 6}}},
    "dora": {"lora": LORA | {"use_dora": True}},
    "pissa": {"lora": LORA | {"init_lora_weights": "pissa_niter_2", "use_rslora": True, "alpha_pattern": {"q_proj": 6}}},
    "eva": {"lora": LORA | {"init_lora_weights": "eva"}},
    "whole": {"lora": LORA | {"modules_to_save": ["embed_tokens"]}},
    "whole-tied": {"lora": LORA | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}},
    "tokens": {"lora": LORA, "tokenizer": {"add_tokens": ["<<code>>", "<<end>>"]}},
    "rows": {"lora": LORA | {"trainable_token_indices": [5, 9]}},
    "rank": {"lora": {"r": 520}},
    "oft": {"adapter": {"type": "oft"}},
    "vera": {"adapter": {"type": "vera", "r": 64}},
    "ia3": {"adapter": {"type": "ia3"}},
    "prompt": {"adapter": {"type": "prompt_tuning", "num_virtual_tokens": 4}},
    "qlora": {"lora": LORA, "quantization": {"load_in_4bit": True}},
    "int8": {"lora": LORA, "quantization": {"load_in_8bit": True}},
    "qia3": {"adapter": {"type": "ia3"}, "quantization": {"load_in_4bit": True}, "model": {"dtype": "bfloat16"}},
    "qdora": {"lora": LORA | {"use_dora": True}, "quantization": {"load_in_4bit": True}},
}
"""Recipes of the kinds of adapter, in the sections that set them apart."""


@dataclass(frozen=True)
class Kind:
    """A finished run of two steps, the recipe, and what the model answered on `IDS` when its training had ended."""

    run: Run
    recipe: TrainRecipe
    logits: Any


IDS = list(range(5, 29))


def logits_of(model: Any) -> Any:
    """What a model says about the next token, over `IDS`, with PEFT's own layers: LoRA in place rounds otherwise in the end."""
    import torch
    from peft.tuners.lora import LoraLayer

    model.eval()
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            vars(layer).pop("forward", None)
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS], device=model.device), use_cache=False).logits[0].float()


@pytest.fixture(scope="session")
def kind(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kind]:
    """Trains a kind once, in float32, so that a reload can be compared bit by bit."""
    from llmbench import training

    made: dict[str, Kind] = {}

    def trained(name: str) -> Kind:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
                sections = {"model": {"dtype": "float32"}} | KINDS[name]
                document = write_recipe(
                    folder, name, *FEW, **({"lora": None} | sections if "adapter" in sections else sections)
                )
                run, job = runs.create(document), training.prepare(document)
                training.train(job, run)
                made[name] = Kind(run, document, logits_of(job.loaded.model))
        return made[name]

    return trained


FEW = ("training.max_steps=2", "training.learning_rate=1e-2", "training.warmup_steps=0", "data.train.0.limit=8")
