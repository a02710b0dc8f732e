"""What a run loses and gains in fewer bits: size, divergence, answers, loss on held-out rows, and tokens a second in vLLM.

    python benchmarks/quantised.py RUN [--formats int8 w4a16 awq fp8] [--answer 128] [--repeats 3]

Exports the run as `merged` and in each format into the workspace, which `llmbench export` does with its proof, and serves one
after another. What is exported already is kept, and its proof read. All but the speed stands in proof.json. Five minutes a
format on two cores; `awq` takes three times that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from llmbench import engine, runs
from llmbench.exporting import job, proof, source
from llmbench.recipe import ServeRecipe


def exported(run: str, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a format, and its proof."""
    found = runs.open_run(run)
    folder = job.target_of(source.find(found), name, "bfloat16")
    if not folder.is_dir():
        done = job.export(found, name, precision="bfloat16", say=print)
        folder = done.folder
    return folder, proof.read(folder).as_json()


def speeds(folder: Path, answer: int, repeats: int) -> list[float]:
    """Tokens a second of one answer alone, each time again; the first answer, which warms up, is left out."""
    document = {
        "model": {"model_name_or_path": str(folder)},
        "variants": [{"name": engine.BASE}],
        "engine": {"dtype": "bfloat16", "cpu_kv_cache_gib": 0.25, "max_adapters": 0},
    }
    asked = {"model": engine.BASE, "prompt": list(range(5, 69)), "max_tokens": answer, "ignore_eos": True, "temperature": 0}
    found = []
    with engine.Engine(ServeRecipe.model_validate(document), {}) as running:
        running.wait()
        with engine.client(running.at, 600) as http:
            for number in range(repeats + 1):
                seconds = _seconds(http, asked)
                if number:
                    found.append(answer / seconds)
    return found


def _seconds(http: httpx.Client, asked: dict[str, Any]) -> float:
    began = time.perf_counter()
    http.post("/v1/completions", json=asked).raise_for_status()
    return time.perf_counter() - began


def row(name: str, folder: Path, found: dict[str, Any], fast: list[float], usual: float) -> str:
    """A line of the table."""
    figures = found["figures"]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    held_out = figures.get("held_out", {}).get("exported")  # that of `merged` stands in the proofs of the others
    same, total = figures["greedy_same"], found["reference"]["prompts"]
    served = figures.get("served", {}).get("kl")
    cells = [
        name, f"{size:.2f}", f"{figures['lost']['kl']:.1e}", "-" if served is None else f"{served:.1e}",
        f"{figures['agreement']:.1%}", f"{same} of {total}", "-" if held_out is None else f"{held_out:.4f}",
        f"{statistics.median(fast):.0f} [{min(fast):.0f}, {max(fast):.0f}]", f"{statistics.median(fast) / usual:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints a row for each format, as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--formats", nargs="*", default=["int8", "w4a16", "awq", "fp8"])
    parser.add_argument("--answer", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| | MB | KL | KL in vLLM | same token | same answers | held-out loss | tokens/s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    usual = 0.0
    for name in ["merged", *options.formats]:
        folder, found = exported(options.run, name)
        fast = speeds(folder, options.answer, options.repeats)
        usual = usual or statistics.median(fast)
        print(row(name, folder, found, fast, usual), flush=True)


if __name__ == "__main__":
    main()
