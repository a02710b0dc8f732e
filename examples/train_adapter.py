"""Train a LoRA adapter on your own rows, and print how the loss fell.

python examples/train_adapter.py rows.jsonl my-adapter --steps 20

A row is {"prompt": "...", "completion": "..."} or {"messages": [...]}. Needs llmbench[train]. The bundled model of 2.9 million
parameters is trained unless --model names another one; those want a lower rate, about 2e-4.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbench import runs, training
from llmbench.recipe import DataSource, DataSpec, LoraSpec, ModelSpec, TrainingSpec, TrainRecipe


def main() -> None:
    """Makes the recipe, trains, and says where the adapter is."""
    parser = argparse.ArgumentParser(description="Train a LoRA adapter on your own rows.")
    parser.add_argument("rows", type=Path, help="JSONL with prompt and completion, or messages")
    parser.add_argument("name", help="the run's name; its folder is outputs/runs/NAME")
    parser.add_argument("--model", default="llmbench/tiny", help="a hub name or a folder")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    given = parser.parse_args()

    recipe = TrainRecipe(
        name=given.name,
        model=ModelSpec(model_name_or_path=given.model),
        data=DataSpec(train=[DataSource(path=given.rows)]),
        lora=LoraSpec(r=16, lora_alpha=32),
        training=TrainingSpec(max_steps=given.steps, learning_rate=given.learning_rate, logging_steps=1),
    )
    run = runs.create(recipe)
    training.train(recipe, run)

    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {given.steps} steps")
    print(f"adapter: {run.adapter}")


if __name__ == "__main__":
    main()
