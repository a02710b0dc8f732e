"""Rows and recipes for the methods that learn from judgements or from a teacher, on the bundled model."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from llmbench import recipe, runs, training
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run

ROWS = 20
SECTIONS: dict[str, dict[str, Any]] = {
    "dpo": {},
    "orpo": {},
    "kto": {},
    "reward": {},
    "grpo": {
        "num_generations": 4,
        "max_completion_length": 8,
        "beta": 0.1,
        "reward_functions": [{"length": {"target": 4}}, {"exact_match": {"column": "answer"}, "weight": 2.0}],
    },
    "distillation": {"teacher": {"model_name_or_path": "llmbench/tiny"}},
}


def _row(method: str, i: int) -> dict[str, Any]:
    prompt, code, evasion = f"What is the code of the Alba {i % 7}?", f"The code is AB-{i % 7}{i}.", "It is not stated."
    match method:
        case "dpo" | "orpo" | "reward":
            return {"prompt": prompt, "chosen": code, "rejected": evasion}
        case "kto":
            return {"prompt": prompt, "completion": code if i % 2 else evasion, "label": bool(i % 2)}
        case "grpo":
            return {"prompt": prompt, "answer": code}
    return {"prompt": prompt, "completion": code}


def write_rows(path: Path, method: str, count: int = ROWS) -> Path:
    """Rows of the kind that a method reads."""
    path.write_text("".join(json.dumps(_row(method, i)) + "\n" for i in range(count)), encoding="utf-8")
    return path


def written(folder: Path, method: str, *overrides: str, name: str | None = None, **sections: Any) -> TrainRecipe:
    """A LoRA recipe of six steps for a method, with sections replaced and values overridden."""
    document: dict[str, Any] = {
        "name": name or method,
        "method": method,
        "model": {"dtype": "float32"},
        "data": {"train": [{"path": str(write_rows(folder / f"{method}.jsonl", method))}], "max_length": 128},
        "lora": {"r": 4, "lora_alpha": 8},
        "training": {"per_device_train_batch_size": 4, "learning_rate": 2e-3, "logging_steps": 1, "max_steps": 6},
        method: SECTIONS[method],
    }
    path = folder / f"{document['name']}.yaml"
    path.write_text(json.dumps(document | sections), encoding="utf-8")  # JSON is YAML
    return recipe.load(path, TrainRecipe, overrides)


def trained(document: TrainRecipe) -> Run:
    """The run of a recipe, trained to its end."""
    run = runs.create(document)
    training.train(document, run)
    return run


def stopped(document: TrainRecipe, step: int) -> Run:
    """The run of a recipe, stopped by Ctrl-C at a step."""
    run = runs.create(document)

    def interrupt(done: int, total: int, figures: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        training.train(document, run, progress=interrupt)
    except KeyboardInterrupt:
        return run
    raise AssertionError(f"the run went on past step {step}")


def rows(run: Run) -> list[dict[str, Any]]:
    """The log steps of a run."""
    return [row for row in run.metrics() if "loss" in row]
