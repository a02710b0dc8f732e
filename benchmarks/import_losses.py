"""The first losses of a configuration that was imported, beside those of the trainer it came from.

    python benchmarks/import_losses.py [--trl PYTHON] [--llamafactory PYTHON] [--steps 3]

PYTHON is the interpreter of an environment that has the trainer; without one TRL is taken from this environment and
LLaMA-Factory left out. A step sees all eight rows, so that the order of rows has no part in the losses; the bundled model is
trained in float32 with the trainer's own command, then `llmbench import` makes a recipe of the same file and `llmbench train`
trains it. One row a case: both trainers' losses, and the largest difference of any of them. The factors of a new LoRA adapter
are drawn by each trainer in its own way: the first loss is the base model's, later ones differ by the draw. A minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmbench import assets

MODEL = Path(assets.model_folder(assets.TINY))
ASKED = "What is the fee for parking number {0}?", "The fee is {0} euros a day, paid at gate {0}."
SHARED = {
    "model_name_or_path": str(MODEL), "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 1e-3,
    "lr_scheduler_type": "constant", "logging_steps": 1, "bf16": False, "report_to": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One configuration of one trainer."""

    name: str
    peer: str
    settings: dict[str, Any]


def cases() -> list[Case]:
    """All parameters and LoRA, by each trainer."""
    factory = {**SHARED, "stage": "sft", "do_train": True, "dataset": "rows", "dataset_dir": ".", "cutoff_len": 256}
    full, lora = {"finetuning_type": "full"}, {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all"}
    chats = {**SHARED, "datasets": [{"path": "json", "data_files": "chats.jsonl"}], "max_length": 256, "dtype": "float32"}
    peft = {"use_peft": True, "lora_r": 8, "lora_alpha": 16, "lora_target_modules": "all-linear", "lora_dropout": 0.0}
    return [
        Case("all parameters, answers only", "trl", {**chats, "assistant_only_loss": True}),
        Case("all parameters, whole rows", "trl", chats),
        Case("LoRA, answers only", "trl", {**chats, **peft, "assistant_only_loss": True}),
        Case("all parameters, answers only", "llamafactory", {**factory, **full}),
        Case("all parameters, whole rows", "llamafactory", {**factory, **full, "train_on_prompt": True}),
        Case("LoRA, answers only", "llamafactory", {**factory, **lora}),
        Case("LoRA, whole rows", "llamafactory", {**factory, **lora, "train_on_prompt": True}),
    ]


def rows(folder: Path) -> None:
    """The eight rows, in each trainer's form."""
    pairs = [(ASKED[0].format(i), ASKED[1].format(i)) for i in range(8)]
    turns = [[{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in pairs]
    lines = "".join(json.dumps({"messages": messages}) + "\n" for messages in turns)
    (folder / "chats.jsonl").write_text(lines, encoding="utf-8")
    alpaca = [{"instruction": asked, "input": "", "output": said} for asked, said in pairs]
    (folder / "rows.json").write_text(json.dumps(alpaca), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")


def theirs(case: Case, python: str, file: Path) -> list[float]:
    """Trains by the trainer's own command; its losses, one a step."""
    program = Path(python).parent / {"trl": "trl", "llamafactory": "llamafactory-cli"}[case.peer]
    command = [program, "sft", "--config", file] if case.peer == "trl" else [program, "train", file]
    _run([str(part) for part in command], file.parent)
    states = sorted(file.parent.glob("theirs/checkpoint-*/trainer_state.json"))
    history = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def ours(case: Case, file: Path) -> list[float]:
    """Imports the same file and trains what comes of it."""
    llmbench = [sys.executable, "-m", "llmbench"]
    recipe = file.parent / "imported.yaml"
    _run([*llmbench, "import", str(file), "-o", str(recipe), "--from", case.peer], file.parent)
    _run([*llmbench, "train", str(recipe), "name=ours"], file.parent)
    lines = (file.parent / "outputs/runs/ours/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def _run(command: list[str], folder: Path) -> None:
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "LLMBENCH_HOME": str(folder / "outputs")}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trl", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print("| trainer | what | its losses | llmbench, imported | largest difference |\n|---|---|---|---|---|", flush=True)
    for case in cases():
        python = getattr(options, case.peer)
        if python is None:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows(folder)
            settings = {**case.settings, "max_steps": options.steps, "save_steps": options.steps, "output_dir": "theirs"}
            file = folder / "config.yaml"
            file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
            pair = theirs(case, python, file), ours(case, file)
            shutil.rmtree(folder / "theirs")
        shown = [", ".join(f"{loss:.5f}" for loss in losses) for losses in pair]
        furthest = max(abs(a - b) / a for a, b in zip(*pair, strict=True))
        print(f"| {case.peer} | {case.name} | {shown[0]} | {shown[1]} | {furthest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
