"""Long rows in bounded memory: one step of SFT with LoRA on one row of 1,024 to 32,768 tokens, on the bundled model.

    python benchmarks/long_rows.py [--lengths 1024,8192,32768] [--repeats 3]

Copies the bundled model with YaRN positions for the longest row, and makes rows of whole sentences that are almost all learned.
float32, LoRA r=8, gradient checkpointing, one thread, each length in a process of its own. Prints the tokens of the row,
processor seconds of a training of one step, and how much the resident memory grew over what it was before the first step, also
in KiB a token; and beside it what all logits, and all scores of one head, of such a row would take.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from preference_speed import MARK, Meter

from llmbench import assets, workspace


def extended(folder: Path, context: int) -> Path:
    """The bundled model with positions for rows of this length."""
    shutil.copytree(assets.model_folder(assets.TINY), folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    before = 1024
    config["rope_parameters"] |= {
        "rope_type": "yarn", "factor": context / before, "original_max_position_embeddings": before
    }  # fmt: skip
    config["max_position_embeddings"] = context
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def rows(path: Path, folder: Path, length: int) -> None:
    """Two rows of almost so many tokens."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    sentences: list[str] = []
    count = 40
    while count < length:
        sentence = f"The code of the Alba {len(sentences)} is AB-{len(sentences)}."
        count += len(tokenizer(" " + sentence, add_special_tokens=False)["input_ids"])
        sentences.append(sentence)
    said = " ".join(sentences[:-1])
    turns = [{"role": "user", "content": "Name the codes."}, {"role": "assistant", "content": said}]
    path.write_text((json.dumps({"messages": turns}) + "\n") * 2, encoding="utf-8")


def train(folder: Path, length: int) -> None:
    """One step on one row."""
    from llmbench import recipe as recipes
    from llmbench import runs, training

    rows(folder / f"rows-{length}.jsonl", folder / "model", length)
    document = {
        "name": f"long-rows-{length}",
        "model": {"model_name_or_path": str(folder / "model"), "dtype": "float32"},
        "data": {"train": [{"path": str(folder / f"rows-{length}.jsonl")}], "max_length": length},
        "lora": {"r": 8, "lora_alpha": 16},
        "training": {
            "max_steps": 1, "per_device_train_batch_size": 1, "learning_rate": 1e-4, "logging_steps": 1, "save_steps": 100,
            "gradient_checkpointing": True, "torch_compile": False,
        },
    }  # fmt: skip
    path = folder / f"recipe-{length}.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    loaded = recipes.load(path, recipes.TrainRecipe, [])
    job, run = training.prepare(loaded), runs.create(loaded, overwrite=True)
    meter, lines = Meter(), list[str]()
    meter.step()

    def told(done: int, total: int, figures: str) -> None:
        meter.step()
        if done == total:
            lines.append(meter.said([]))

    training.train(job, run, progress=told)
    found = json.loads(lines[0].removeprefix(MARK)) | {"tokens": job.rows.train_report.longest}
    print(MARK + json.dumps(found), flush=True)


def measure(folder: Path, length: int) -> dict[str, Any]:
    """One length, in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--lengths", str(length)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LLMBENCH_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{length} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK))[len(MARK) :])
    print(f"{length}: {found['seconds']:.1f} s, {found['grown'] / 2**20:,.0f} MiB", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Trains on rows of each length and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", default="1024,8192,32768")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    lengths = [int(one) for one in arguments.lengths.split(",")]
    if arguments.folder is not None:
        train(arguments.folder, lengths[0])
        return
    folder = workspace.home().absolute() / "long-rows"
    extended(folder / "model", max(lengths))
    print("| tokens | CPU s | memory of a step, MiB | KiB a token | all logits, MiB | scores of a head, MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for length in lengths:
        found = [measure(folder, length) for _ in range(arguments.repeats)]
        tokens, seconds = found[0]["tokens"], sorted(one["seconds"] for one in found)
        grown = statistics.median(one["grown"] for one in found)
        spread = f"{statistics.median(seconds):.1f} [{seconds[0]:.1f}, {seconds[-1]:.1f}]"
        print(
            f"| {tokens:,} | {spread} | {grown / 2**20:,.0f} | {grown / tokens / 1024:.1f} | "
            f"{tokens * 1024 * 4 / 2**20:,.0f} | {tokens * tokens * 4 / 2**20:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
