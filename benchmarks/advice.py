"""How far off `llmbench advise` is on this machine: first token and tokens of an answer, foretold and by vLLM.

    python benchmarks/advice.py [--models tiny SmolLM2-135M] [--users 1 4] [--prompt 512] [--answer 128]

Measures the machine as `llmbench advise --measure` does, then serves the bundled model, and the configuration of SmolLM2-135M
with random weights, in bfloat16. Every prompt is of other random tokens. A row for each: measured by vLLM (median, least and
most of the repeats), foretold, and measured / foretold. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmbench import assets, engine, recipe
from llmbench.estimate import catalogue, measure, shapes
from llmbench.estimate.serving import Load, serving
from llmbench.recipe import ServeRecipe

TINY = Path(assets.model_folder(assets.TINY))


def random_weights(root: Path, name: str) -> Path:
    """A model of the catalogue's configuration with random weights, and the bundled model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = next(model.config for model in catalogue.every() if model.name.endswith(f"/{name}"))
    folder = root / name
    torch.manual_seed(0)
    config = AutoConfig.for_model(**values)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (TINY / file).exists():
            shutil.copy(TINY / file, folder / file)
    return folder


def answer(at: engine.Place, tokens: list[int], length: int) -> list[float]:
    """When each token of an answer came, on the clock of time.perf_counter; the first entry is when it was asked for."""
    asked = {"model": engine.BASE, "prompt": tokens, "max_tokens": length, "min_tokens": length, "ignore_eos": True}
    times = [time.perf_counter()]
    with (
        engine.client(at, 300) as client,
        client.stream("POST", "/v1/completions", json=asked | {"temperature": 0, "stream": True}) as response,
    ):
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter())
    return times


def measured(at: engine.Place, load: Load, repeats: int, vocabulary: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token, for one user alone, and between tokens while all write; one figure for each repeat."""
    dice = random.Random(load.users)

    def prompt() -> list[int]:
        return [dice.randrange(100, vocabulary) for _ in range(load.prompt)]

    firsts, tokens = [], []
    with ThreadPoolExecutor(load.users) as pool:
        for number in range(repeats + 1):
            prompts = [prompt() for _ in range(load.users)]
            found = list(pool.map(lambda one: answer(at, one, load.answer), prompts))
            if number:  # the first warms the kernels up
                all_write = max(times[1] for times in found)
                first_ends = min(times[-1] for times in found)
                steps = [t for t in found[0] if all_write <= t <= first_ends]
                if len(steps) < 8:
                    raise SystemExit("The first user had ended before the last began. Ask for longer answers: --answer")
                tokens.append((steps[-1] - steps[0]) / (len(steps) - 1))
                firsts.append(found[0][1] - found[0][0])
    return firsts, tokens


def cells(found: list[float], said: float) -> str:
    """Milliseconds and the ratio."""
    middle, least, most = (value * 1e3 for value in (statistics.median(found), min(found), max(found)))
    return f"{middle:.1f} [{least:.1f}, {most:.1f}] | {said * 1e3:.1f} | {middle / said / 1e3:.2f}"


def main() -> None:
    """Serves each model in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["tiny", "SmolLM2-135M"])
    parser.add_argument("--users", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    there = measure.this(again=True)
    print(f"{there.name}: {there.bandwidth / 1e9:.1f} GB/s, {there.bf16 / 1e9:.0f} GFLOP/s in bfloat16\n")
    print("| model | users | first token, ms: measured | foretold | ratio | a token, ms: measured | foretold | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            folder = TINY if model == "tiny" else random_weights(Path(name), model)
            found = shapes.of(folder)
            path = Path(name) / f"{model}.yaml"
            document = {
                "model": {"model_name_or_path": str(folder)},
                "variants": [{"name": "base"}],
                "engine": {"dtype": "bfloat16", "max_model_len": options.prompt + options.answer, "cpu_kv_cache_gib": 0.5},
            }
            path.write_text(json.dumps(document), encoding="utf-8")
            serve = recipe.load(path, ServeRecipe)
            with engine.Engine(serve, engine.admit_all(serve)) as process:
                process.wait()
                for users in options.users:
                    load = Load(users, options.prompt + options.answer, options.answer)
                    said = serving(found, there, "bf16", load)
                    firsts, tokens = measured(process.socket, load, options.repeats, found.vocabulary)
                    first = cells(firsts, said.first) if users == 1 else " |  | "
                    print(f"| {model} | {users} | {first} | {cells(tokens, said.token)} |", flush=True)


if __name__ == "__main__":
    main()
