"""The demo's comparison on handbooks that nobody tuned anything on: each a world of its own, drawn with another seed.

    python benchmarks/demo_worlds.py [--worlds 3] [--first 1]

For every world: writes its handbook, questions and training rows, trains the adapter with the recipe that ships and with the
world's number as its seed, indexes, serves and compares on the world's test pages. Prints one row a world. About two
minutes each on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from llmbench import compare, gateway, recipe, retrieval, runs
from llmbench.compare import table
from llmbench.compare.verdict import LABELS
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe
from llmbench.tiny import handbook

METRICS = ("grounded", "contains_value", "citation", "abstention", "exact_match")
"""Those of recipes/compare.yaml."""


def main() -> None:
    """Makes and measures the worlds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="the first world's seed")
    options = parser.parse_args()
    print("| world | variant | " + " | ".join(LABELS[name] for name in METRICS) + " | training, s | loss |")
    print("|" + "---|" * (len(METRICS) + 4), flush=True)
    for seed in range(options.first, options.first + options.worlds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LLMBENCH_HOME"] = f"{folder}/outputs"
            measure(seed, Path(folder))


def measure(seed: int, folder: Path) -> None:
    """One world, from its first page to its rows of the table."""
    handbook.write(folder, seed)
    pipeline = folder / "handbook.yaml"
    ours = recipe.load("rag/handbook.yaml", RagRecipe, [f"documents=[{folder / 'handbook'}]"])
    pipeline.write_text(yaml.safe_dump(ours.model_dump(mode="json")), encoding="utf-8")
    began = time.perf_counter()
    command = [sys.executable, "-m", "llmbench", "train", "recipes/sft-lora.yaml", f"training.seed={seed}"]
    subprocess.run([*command, f"data.train.0.path={folder / 'train.jsonl'}"], check=True, stdout=subprocess.DEVNULL)
    trained = time.perf_counter() - began
    retrieval.build(ours)
    variants = f"[{{name: base-rag, rag: {pipeline}}}, {{name: adapter-rag, adapter: sft-lora, rag: {pipeline}}}]"
    with gateway.running(recipe.load("recipes/serve.yaml", ServeRecipe, [f"variants={variants}", "gateway.port=0"])) as url:
        overrides = [
            *(f"endpoint.base_url={url}", "variants=[base-rag, adapter-rag]"),
            f"questions={{path: {folder / 'questions.jsonl'}, split: test}}",
        ]
        comparison = compare.run(recipe.load("recipes/compare.yaml", CompareRecipe, overrides))
    loss = runs.open_run("sft-lora").status["loss"]
    for variant in comparison.variants:
        shares = [table.cell(comparison, name, variant) for name in METRICS]
        print(f"| {seed} | {variant} | " + " | ".join(shares) + f" | {trained:.0f} | {loss:.3f} |", flush=True)


if __name__ == "__main__":
    main()
