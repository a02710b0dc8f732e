"""One process against several: time, tokens a second, memory of each process, and whether the losses are the same.

    python benchmarks/processes.py [--processes 2] [--steps 6] [--repeats 3] [--config JSON] [--set KEY=VALUE ...]

Pre-trains a Qwen3 of random weights (29M parameters, all of them trained) on the bundled lessons, by `llmbench train` as a user
starts it: alone, by ddp and by fsdp2 with the same rows in each step. On GPUs: benchmarks/gpu_processes.sh. Memory is the
largest process's peak (on a CPU everything that it holds, 0.7 GiB of which are libraries). All lies in outputs/processes/.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import yaml

from llmbench import runs, workspace

CONFIG = {
    "model_type": "qwen3", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8000, "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
}  # fmt: skip


def main() -> None:
    """Prints a table."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--processes", type=int, default=2)
    given.add_argument("--steps", type=int, default=6)
    given.add_argument("--repeats", type=int, default=3)
    given.add_argument("--config", type=json.loads, default=CONFIG)
    given.add_argument("--set", nargs="*", default=[])
    options = given.parse_args()
    folder = workspace.home() / "processes"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": f"Lesson {i}: " + " ".join(f"the code of item {j * i % 97} is AB-{j % 7}." for j in range(5))}
        for i in range(256)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe: dict[str, Any] = {
        "name": "processes", "method": "pretrain", "lora": None,
        "model": {"config": options.config, "tokenizer": "llmbench/tiny", "dtype": "float32"},
        "data": {"train": [{"path": str(folder / "rows.jsonl")}], "max_length": 256},
        "training": {
            "per_device_train_batch_size": 2, "gradient_accumulation_steps": options.processes, "max_steps": options.steps,
            "logging_steps": 1, "performance": "plain", "learning_rate": 1e-4, "save_steps": 10_000,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    many = ["--processes", str(options.processes)]
    arms = {
        "1 process": [],
        f"{options.processes}, ddp": many,
        f"{options.processes}, fsdp2": [*many, "distributed.strategy=fsdp2"],
    }
    print("| | wall s | s a step | tokens/s | largest process GiB | all GiB | last loss |\n|---|---|---|---|---|---|---|")
    for name, more in arms.items():
        made = [_once(str(path), [*options.set, *more]) for _ in range(options.repeats)]
        print(f"| {name} | " + " | ".join(_middle([one[i] for one in made]) for i in range(6)) + " |", flush=True)


def _once(path: str, more: list[str]) -> tuple[float, ...]:
    """Wall seconds, seconds a step after the first, tokens a second of those, largest and summed GiB, last loss."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "llmbench", "train", path, "--overwrite", *more]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    rows = [row for row in runs.open_run("processes").metrics() if "loss" in row]
    seconds = rows[-1]["seconds"] - rows[0]["seconds"]
    tokens = rows[-1]["tokens"] - rows[0]["tokens"]
    largest = max(row["peak_memory"] for row in rows)
    together = max(row.get("peak_memory_together", largest) for row in rows)
    return wall, seconds / (len(rows) - 1), tokens / seconds, largest / 2**30, together / 2**30, rows[-1]["loss"]


def _middle(values: list[float]) -> str:
    """The median, and the range where there are several."""
    middle = statistics.median(values)
    digits = 0 if middle >= 100 else 4 if max(values) - min(values) < 1e-3 else 2
    spread = (
        f" [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"
        if len(values) > 1 and max(values) - min(values) >= 1e-3
        else ""
    )
    return f"{middle:,.{digits}f}{spread}"


if __name__ == "__main__":
    main()
