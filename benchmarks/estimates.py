"""How far off `llmbench check` is: estimated and measured peak memory and time of trainings that differ in one thing each.

    python benchmarks/estimates.py PATH/TO/gsm8k/train.jsonl [--steps 6] [--correct] [--only "batch 2;QLoRA"]

Trains a Qwen3 of 42M random parameters (see train_speed.py) and the bundled model in sixteen configurations, to which constants
were fitted, and a Llama and others in eight that they were not; each in a process of its own. Prints the table, with the
median error of memory and time of both kinds. With --correct times are corrected by the configurations before, as a workspace
with finished runs does. Everything lies in outputs/estimates/.
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
from train_speed import make

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
LLAMA = "model.model_name_or_path=LLAMA"
NEW = {
    "Llama, batch 8": [LLAMA],
    "Llama, batch 16, checkpointing": [
        LLAMA, "training.per_device_train_batch_size=16", "training.gradient_checkpointing=true",
    ],
    "Llama, float32, batch 4": [LLAMA, "model.dtype=float32", "training.per_device_train_batch_size=4"],
    "Llama, all parameters": [LLAMA, "lora=null", "training.learning_rate=1e-5"],
    "Llama, QLoRA, batch 16": [LLAMA, "quantization.load_in_4bit=true", "training.per_device_train_batch_size=16"],
    "batch 12, queries and values, rank 64": [
        "training.per_device_train_batch_size=12", "lora.r=64", "lora.target_modules=[q_proj, v_proj]",
    ],
    "batch 5 x 3, padded": [
        "training.per_device_train_batch_size=5", "training.gradient_accumulation_steps=3", "training.padding_free=false",
    ],
    "tiny, all parameters, batch 16": [
        "model.model_name_or_path=llmbench/tiny", "lora=null", "training.per_device_train_batch_size=16",
    ],
}  # fmt: skip
"""Which nothing was fitted to."""
for _method in ("dpo", "orpo", "kto", "reward"):
    NEW[f"{_method}, batch 4"] = [
        f"method={_method}",
        f"{_method}={{}}",
        "training.per_device_train_batch_size=4",
        "data.train=JUDGED",
    ]


def llama(folder: Path) -> Path:
    """A Llama of 12 layers and 29M random parameters, with the tokenizer of the other model."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16000, hidden_size=384, intermediate_size=1024, num_hidden_layers=12, num_attention_heads=6,
        num_key_value_heads=2, head_dim=64, tie_word_embeddings=False, max_position_embeddings=2048,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    path = folder / "llama"
    model.to(torch.bfloat16).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / "model" / name, path / name)
    return path


def judged(folder: Path) -> dict[str, Path]:
    """Pairs and marked answers: each question with its own answer and with that to another question."""
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:400]
    others = [*rows[1:], rows[0]]
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
        for row, other in zip(rows, others, strict=True)
    ]
    marked = [
        {"prompt": row["prompt"], "completion": row["completion"] if i % 2 else other["completion"], "label": bool(i % 2)}
        for i, (row, other) in enumerate(zip(rows, others, strict=True))
    ]
    made = {}
    for name, found in (("pairs", pairs), ("marked", marked)):
        made[name] = folder / f"{name}.jsonl"
        made[name].write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return made


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
    only = arguments.only.split(";") if arguments.only else [*CONFIGURATIONS, *NEW]
    folder = workspace.home() / "estimates"
    make(arguments.source, folder)
    other, answers = llama(folder), judged(folder)
    print("| configuration | memory, GiB: estimated | measured | error | time, s: estimated | measured | error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    errors: dict[str, list[tuple[float, float]]] = {"fitted": [], "new": []}
    for number, (title, given) in enumerate({**CONFIGURATIONS, **NEW}.items()):
        if title not in only:
            continue
        source = json.dumps([{"path": str(answers["marked" if "method=kto" in given else "pairs"])}])
        overrides = [override.replace("LLAMA", str(other)).replace("JUDGED", source) for override in given]
        home = folder / ("corrected" if arguments.correct else f"home-{number}")
        state = train(folder, arguments.steps, f"estimated-{number}", overrides, home)
        said, peak, seconds = state["estimate"], state["peak_memory"], state["seconds"]
        memory, time = said["peak_memory"] / peak - 1, said["seconds"] / seconds - 1
        errors["new" if title in NEW else "fitted"].append((abs(memory), abs(time)))
        print(
            f"| {title} | {said['peak_memory'] / 2**30:.2f} | {peak / 2**30:.2f} | {memory:+.0%} "
            f"| {said['seconds']:.1f} | {seconds:.1f} | {time:+.0%} |",
            flush=True,
        )
    for name, found in errors.items():
        if found:
            memory, time = (statistics.median(error[i] for error in found) for i in (0, 1))
            print(f"\nMedian error, {name} configurations: memory {memory:.0%}, time {time:.0%}, over {len(found)}.")


if __name__ == "__main__":
    main()
