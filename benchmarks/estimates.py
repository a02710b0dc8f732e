"""How far off `llmbench check` is: estimated and measured peak memory and time of trainings that differ in one thing each.

    python benchmarks/estimates.py PATH/TO/gsm8k/train.jsonl [--steps 6] [--correct] [--only "batch 2;QLoRA"]

Trains a Qwen3 of 42M random parameters (see train_speed.py) and the bundled model in sixteen configurations, each in a process
of its own, and prints the table, with the median error of memory and time. With --correct times are corrected by the
configurations before, as a workspace with finished runs does. Everything lies in outputs/estimates/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from train_speed import make  # type: ignore[import-not-found]

from llmbench import workspace

CONFIGURATIONS: dict[str, list[str]] = {
    "LoRA, batch 8": [],
    "batch 2": ["training.per_device_train_batch_size=2"],
    "batch 4 x 2": ["training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2"],
    "batch 24": ["training.per_device_train_batch_size=24"],
    "float32": ["model.dtype=float32"],
    "padded": ["training.padding_free=false"],
    "checkpointing": ["training.gradient_checkpointing=true"],
    "checkpointing, batch 24": ["training.gradient_checkpointing=true", "training.per_device_train_batch_size=24"],
    "rank 128": ["lora.r=128"],
    "packed": ["training.packing=true", "training.per_device_train_batch_size=3", "data.max_length=512"],
    "QLoRA": ["quantization.load_in_4bit=true"],
    "all parameters": ["lora=null", "training.learning_rate=1e-5"],
    "all parameters, checkpointing": ["lora=null", "training.learning_rate=1e-5", "training.gradient_checkpointing=true"],
    "all parameters, SGD": ["lora=null", "training.learning_rate=1e-5", "training.optim=sgd"],
    "tiny, batch 8": ["model.model_name_or_path=llmbench/tiny"],
    "tiny, batch 32": ["model.model_name_or_path=llmbench/tiny", "training.per_device_train_batch_size=32"],
}


def train(folder: Path, steps: int, name: str, overrides: list[str], home: Path) -> dict[str, Any]:
    """One training, in a process of its own; its state, which holds the estimate and what was measured."""
    document = {
        "name": "estimated",
        "model": {"model_name_or_path": str(folder / "model")},
        "data": {"train": [{"path": str(folder / "train.jsonl"), "limit": 400}], "max_length": 1024, "over_length": "drop"},
        "training": {"max_steps": steps, "per_device_train_batch_size": 8, "logging_steps": 1},
    }
    path = folder / "estimated.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "llmbench", "train", str(path), f"name={name}", *overrides, "--overwrite", "--json"]
    environment = os.environ | {"LLMBENCH_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    state: dict[str, Any] = json.loads((home / "runs" / name / "state.json").read_text(encoding="utf-8"))
    return state


def main() -> None:
    """Trains all of them and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument(
        "--correct", action="store_true", help="in one workspace, where finished runs correct the next estimate"
    )
    parser.add_argument("--only", help="these configurations, with semicolons between")
    arguments = parser.parse_args()
    only = arguments.only.split(";") if arguments.only else list(CONFIGURATIONS)
    folder = workspace.home() / "estimates"
    make(arguments.source, folder)
    print("| configuration | memory, GiB: estimated | measured | error | time, s: estimated | measured | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    errors: list[tuple[float, float]] = []
    for number, (title, overrides) in enumerate(CONFIGURATIONS.items()):
        if title not in only:
            continue
        home = folder / ("corrected" if arguments.correct else f"home-{number}")
        state = train(folder, arguments.steps, f"estimated-{number}", overrides, home)
        said, peak, seconds = state["estimate"], state["peak_memory"], state["seconds"]
        memory, time = said["peak_memory"] / peak - 1, said["seconds"] / seconds - 1
        errors.append((abs(memory), abs(time)))
        print(
            f"| {title} | {said['peak_memory'] / 2**30:.2f} | {peak / 2**30:.2f} | {memory:+.0%} "
            f"| {said['seconds']:.1f} | {seconds:.1f} | {time:+.0%} |",
            flush=True,
        )
    memory, time = (statistics.median(error[i] for error in errors) for i in (0, 1))
    print(f"\nMedian error: memory {memory:.0%}, time {time:.0%}, over {len(errors)} configurations.")


if __name__ == "__main__":
    main()
