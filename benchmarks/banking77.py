"""Fine-tuning on data that nobody here made up: bank customers' questions, 77 intents, base against adapter.

    python benchmarks/banking77.py PATH/TO/train.csv [--epochs 3] [--limit 2000]

Holds out a fifth of every intent (seed 0), trains an adapter of the bundled model on the rest, serves base and adapter with
vLLM, asks both the held-out questions, and prints accuracy with its interval as Markdown. Everything runs through the
library's own verbs; the files lie in outputs/banking77, the run and the comparison beside the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from random import Random

from llmbench import compare, gateway, recipe, runs, workspace
from llmbench.compare import table
from llmbench.recipe import CompareRecipe, ServeRecipe

NAME = "banking77"


def split(path: Path, folder: Path) -> tuple[int, int]:
    """Writes train.jsonl and questions.jsonl, every fifth row of each intent held out; returns their sizes."""
    by_intent: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_intent[row["category"]].append(row["text"])
    rng = Random(0)
    train, held_out = [], []
    for intent, texts in sorted(by_intent.items()):
        rng.shuffle(texts)
        cut = len(texts) // 5
        held_out += [(text, intent) for text in texts[:cut]]
        train += [(text, intent) for text in texts[cut:]]
    rng.shuffle(train)
    rng.shuffle(held_out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": text, "completion": words(intent)}) + "\n" for text, intent in train)
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for number, (text, intent) in enumerate(held_out):
            file.write(json.dumps({"id": f"b{number:04d}", "question": text, "answer": words(intent)}) + "\n")
    return len(train), len(held_out)


def words(intent: str) -> str:
    """`card_arrival` as the model writes it: "card arrival"."""
    return intent.replace("_", " ").lower().rstrip("?")


def main() -> None:
    """Trains, serves, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--limit", type=int, default=2000, help="held-out questions to ask")
    options = parser.parse_args()
    folder = workspace.home() / NAME
    rows, held_out = split(options.path, folder)
    began = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "llmbench", "train", "recipes/sft-lora.yaml", "--overwrite", f"name={NAME}"),
            f"data.train=[{{path: {folder / 'train.jsonl'}}}]",
            *("data.eval=[]", "data.eval_fraction=0.02", f"lora.r={options.rank}", f"lora.lora_alpha={2 * options.rank}"),
            *(f"training.num_train_epochs={options.epochs}", f"training.learning_rate={options.learning_rate}"),
        ],
        check=True,
    )
    trained = time.perf_counter() - began
    serving = recipe.load(
        "recipes/serve.yaml",
        ServeRecipe,
        [f"variants=[{{name: base}}, {{name: {NAME}, adapter: {NAME}}}]", "gateway.port=0"],
    )
    with gateway.running(serving) as url:
        comparing = recipe.load(
            "recipes/compare.yaml",
            CompareRecipe,
            [
                *(f"name={NAME}", f"endpoint.base_url={url}", "metrics=[exact_match]", f"variants=[base, {NAME}]"),
                f"questions={{path: {folder / 'questions.jsonl'}, limit: {options.limit}}}",
                *("max_tokens=24", "concurrency=16"),
            ],
        )
        comparison = compare.run(comparing, fresh=True)
    status = runs.open_run(NAME).status
    print(f"{rows} training rows, {held_out} held out, {trained:.0f} s of training, final loss {status['loss']:.3f}\n")
    print(table.markdown(comparison))


if __name__ == "__main__":
    main()
