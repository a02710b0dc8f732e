"""What vLLM's prefix cache gains when requests that begin alike go to the same of two engines.

    python benchmarks/engines.py [--conversations 40] [--passages 60]

Two real vLLMs with the bundled model on this machine, and a gateway in front. The same two workloads are asked three times,
each time in other words of the same lengths, so that nothing is cached from the time before: of one engine alone, of two by
what requests begin with, and of two at random (bounded loads in both). Printed are the tokens of prompts that were found in a
cache, as the engines count them; how busy the machine is does not change these.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench import recipe
from llmbench.engine import Address, Engine
from llmbench.gateway import balancing, started
from llmbench.recipe import ServeRecipe

AT_ONCE = 8
TURNS, QUESTIONS = 5, 4
WORDS = [
    "kettle", "lamp", "heater", "red", "brass", "copper", "weighs", "grams", "costs", "euros", "Alba", "Borin", "Cora",
    "refund", "days", "policy", "manual", "page", "switch",
]  # fmt: skip
COUNTED = re.compile(r"^vllm:prefix_cache_(queries|hits)_total\{.*\} (\S+)$", re.MULTILINE)
DOCUMENT = """
variants: [{{name: base}}]
engine: {{dtype: float32, cpu_kv_cache_gib: 0.25, extra_args: [--block-size, "32"], urls: [{urls}]}}
gateway: {{port: 0}}
"""


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def conversations(ask: Callable[[list[Any]], str], count: int, draw: random.Random) -> None:
    """Conversations of five turns over one system prompt, some at a time, each turn of all before the next."""
    system = {"role": "system", "content": text(draw, 60)}
    open = [[system, {"role": "user", "content": text(draw, 12)}] for _ in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(TURNS):
            for messages, answer in zip(open, pool.map(ask, open), strict=True):
                messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": text(draw, 12)}]


def passages(ask: Callable[[list[Any]], str], count: int, draw: random.Random) -> None:
    """Questions about sets of passages, in any order."""
    asked = []
    for _ in range(count):
        found = f"Passages:\n[1] {text(draw, 80)}\n[2] {text(draw, 80)}\n\nQuestion: "
        asked += [[{"role": "user", "content": found + text(draw, 8)}] for _ in range(QUESTIONS)]
    draw.shuffle(asked)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(ask, asked))


def at_random(_: bytes, engines: Sequence[str]) -> list[str]:
    return random.sample(list(engines), len(engines))


@contextmanager
def gateway(folder: Path, urls: Sequence[str]) -> Iterator[httpx.Client]:
    path = folder / f"{len(urls)}.yaml"
    path.write_text(DOCUMENT.format(urls=", ".join(f'"{url}"' for url in urls)), encoding="utf-8")
    with started(recipe.load(path, ServeRecipe)) as running, httpx.Client(base_url=running.base_url, timeout=300) as http:
        yield http


def counts(http: httpx.Client) -> tuple[float, float]:
    """Tokens of prompts that were looked for in a cache, and those that were found."""
    found = {"queries": 0.0, "hits": 0.0}
    for name, value in COUNTED.findall(http.get(http.base_url.join("/metrics")).text):
        found[name] += float(value)
    return found["queries"], found["hits"]


def measured(folder: Path, urls: Sequence[str], work: Callable[..., None], count: int, seed: int) -> str:
    with gateway(folder, urls) as http:

        def ask(messages: list[Any]) -> str:
            body = {"model": "base", "messages": messages, "max_tokens": 24, "ignore_eos": True}
            answer = http.post("/chat/completions", json=body).raise_for_status().json()
            return str(answer["choices"][0]["message"]["content"])

        before = counts(http)
        work(ask, count, random.Random(seed))
        queries, hits = (now - then for now, then in zip(counts(http), before, strict=True))
    return f"{100 * hits / queries:.1f} % of {queries:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--passages", type=int, default=60)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["LLMBENCH_HOME"] = str(folder / "outputs")
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [Address("127.0.0.1", probe.getsockname()[1]) for probe in probes]
        for probe in probes:
            probe.close()
        document = folder / "engine.yaml"
        document.write_text(DOCUMENT.format(urls=""), encoding="utf-8")
        made = [Engine(recipe.load(document, ServeRecipe), {}, listen=address) for address in addresses]
        for engine in made:
            stack.enter_context(engine)
        for engine in made:
            engine.wait()
        urls = [address.url for address in addresses]
        print("| workload | one engine | two, by beginnings | two, at random |\n|---|---|---|---|")
        for work, count in ((conversations, options.conversations), (passages, options.passages)):
            row = [measured(folder, urls[:1], work, count, 1), measured(folder, urls, work, count, 2)]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(balancing, "ranked", at_random)
                row.append(measured(folder, urls, work, count, 3))
            print(f"| {work.__name__} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
