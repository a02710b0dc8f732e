"""Whether a server stays as it is for as long as it runs: memory, descriptors and answers under load and change.

    python benchmarks/soak.py                                  # 30 minutes, with an adapter that comes and goes all the time
    python benchmarks/soak.py --minutes 5 --changes 200        # ends when both are reached

A real vLLM with llmbench/tiny behind `llmbench serve`: whole answers, streams, streams that their clients leave, answers from
documents and requests of a named key, four at a time. Meanwhile an adapter is loaded and unloaded over the admin socket, and
asked in between. Each text at temperature 0 must be the one that came first. Every half minute a line says what the gateway and
vLLM hold; the end compares the last third with the middle one, as the first is warming up, and says whether all is well.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

LLMBENCH = [sys.executable, "-m", "llmbench"]
AT_ONCE = 4
EVERY = 30.0
_MORE_FILES, _MORE_MB = 8, 10.0
"""What the gateway may hold more in the last third of the time than in the middle one."""
ASK = {"messages": [{"role": "user", "content": "How heavy is the Alba kettle?"}], "max_tokens": 24, "temperature": 0}


@dataclass(frozen=True)
class Sample:
    """Seconds since the start, MB and descriptors of the gateway, MB and descriptors of vLLM's processes together."""

    at: float
    gateway: float
    gateway_files: int
    engine: float
    engine_files: int


class Load:
    """Asks until it is told to stop, and counts answers that are not as the first one was."""

    def __init__(self, base_url: str, key: str) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, timeout=120, headers={"Authorization": f"Bearer {key}"})
        self.first: dict[str, str] = {}
        self.counts = Counter[str]()
        self.wrong: list[str] = []

    async def ask(self, model: str) -> None:
        """One whole answer."""
        answer = await self._client.post("/chat/completions", json=ASK | {"model": model})
        self._note(model, answer.json()["choices"][0]["message"]["content"] if answer.is_success else answer.text)

    async def stream(self, model: str, pieces: int | None = None) -> None:
        """A stream, left after some pieces where a number is given."""
        text = ""
        async with self._client.stream("POST", "/chat/completions", json=ASK | {"model": model, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    data = json.loads(line[6:])
                    text += (data["choices"][0]["delta"].get("content") or "") if "choices" in data else f" {data}"
                    pieces = None if pieces is None else pieces - 1
                    if pieces == 0:
                        self.counts["left"] += 1
                        return
        self._note(model, text)

    def _note(self, model: str, text: str) -> None:
        self.counts[model] += 1
        if self.first.setdefault(model, text) != text:
            self.wrong.append(f"{model}: {text[:200]!r}")

    async def run(self, models: list[str], until: asyncio.Event) -> None:
        """Asks one thing after another."""
        while not until.is_set():
            model = random.choice(models)
            match random.randrange(3):
                case 0:
                    await self.ask(model)
                case 1:
                    await self.stream(model)
                case _:
                    await self.stream(model, pieces=3)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


async def change(socket: Path, adapter: Path, load: Load, until: asyncio.Event, done: list[int]) -> None:
    """Has an adapter come and go until it is told to stop, and counts how often it did."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin", timeout=120) as admin:
        while not until.is_set():
            added = await admin.post("/variants", json={"name": "guest", "adapter": str(adapter)})
            if not added.is_success:
                load.wrong.append(f"add: {added.text}")
                return
            await load.ask("guest")
            removed = await admin.delete("/variants/guest")
            if not removed.is_success:
                load.wrong.append(f"remove: {removed.text}")
                return
            done[0] += 1
            await asyncio.sleep(0.2)


def sample(gateway: int, begun: float) -> Sample:
    """What the server holds now. The engine is every process that the gateway started."""
    others = descendants(gateway)
    return Sample(
        time.monotonic() - begun,
        memory(gateway),
        files(gateway),
        sum(map(memory, others)),
        sum(map(files, others)),
    )


def descendants(process: int) -> list[int]:
    """Every process that one has started, itself left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def memory(process: int) -> float:
    """MB that would be free if a process ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
    return 0.0


def files(process: int) -> int:
    """Descriptors of a process."""
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return 0


def prepared(folder: Path) -> tuple[Path, Path, str]:
    """The serving document, an adapter that is not in it, and a key."""
    parity: Any = importlib.import_module("parity")  # the program beside this one
    for seed in (1, 2):
        parity.adapter(folder / f"adapter-{seed}", seed)
    (folder / "kettle.md").write_text("# Alba kettle\n\nThe Alba kettle is red. It weighs 300 grams.\n")
    (folder / "pages.yaml").write_text("name: pages\ndocuments: [kettle.md]\n")
    document = {
        "variants": [{"name": "base"}, {"name": "kept", "adapter": "./adapter-1"}, {"name": "pages", "rag": "pages.yaml"}],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25, "max_adapters": 2, "max_lora_rank": 16},
        "gateway": {"port": 0, "keys": True},
    }
    (folder / "serve.yaml").write_text(json.dumps(document))
    subprocess.run([*LLMBENCH, "index", "build", str(folder / "pages.yaml")], check=True, capture_output=True)
    made = subprocess.run(
        [*LLMBENCH, "keys", "new", "soak", "--tokens-per-day", "1000000000", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / "serve.yaml", folder / "adapter-2", json.loads(made.stdout)["key"]


async def soak(arguments: argparse.Namespace, folder: Path) -> bool:
    """Runs it and prints what it finds; whether all is well."""
    document, guest, key = prepared(folder)
    log = (folder / "serve.log").open("w+")
    server = subprocess.Popen([*LLMBENCH, "serve", str(document)], stdout=log, stderr=log)
    try:
        sockets: list[Path] = []
        while not sockets or "Ready after" not in (folder / "serve.log").read_text():
            if server.poll() is not None:
                sys.exit((folder / "serve.log").read_text()[-2000:])
            await asyncio.sleep(0.5)
            sockets = list((folder / "outputs" / "serving").glob("*.sock"))
        base_url = next(w for w in (folder / "serve.log").read_text().split() if w.startswith("http")).rstrip(".")
        load, until, begun = Load(base_url, key), asyncio.Event(), time.monotonic()
        asking = [asyncio.create_task(load.run(["base", "kept", "pages"], until)) for _ in range(AT_ONCE)]
        done = [0]
        changing = asyncio.create_task(change(sockets[0], guest, load, until, done))
        samples: list[Sample] = []
        print("  minutes  gateway MB  files  vLLM MB  files  answers")
        while not (until.is_set() or changing.done()):
            await asyncio.sleep(min(EVERY, arguments.minutes * 60 / 12))
            now = sample(server.pid, begun)
            samples.append(now)
            print(
                f"{now.at / 60:9.1f}{now.gateway:12.1f}{now.gateway_files:7}{now.engine:9.0f}{now.engine_files:7}"
                f"{sum(load.counts.values()):9,}", flush=True,
            )  # fmt: skip
            if time.monotonic() - begun >= arguments.minutes * 60 and done[0] >= arguments.changes:
                until.set()
        until.set()
        await changing
        changes = done[0]
        await asyncio.gather(*asking)
        await load.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    third = max(1, len(samples) // 3)
    middle, last = samples[third : 2 * third] or samples, samples[-third:]
    grown = {
        name: median(getattr(one, name) for one in last) - median(getattr(one, name) for one in middle)
        for name in ("gateway", "gateway_files", "engine", "engine_files")
    }
    print(f"{dict(load.counts)}, {changes} loads and unloads, {len(load.wrong)} wrong answers, exit code {server.returncode}")
    print("last third over middle third: " + ", ".join(f"{name} {value:+.1f}" for name, value in grown.items()))
    for line in load.wrong[:5]:
        print(f"wrong: {line}")
    flat = grown["gateway_files"] <= _MORE_FILES and grown["gateway"] <= _MORE_MB
    well = flat and not load.wrong and server.returncode == 0 and changes >= arguments.changes
    print("all is well" if well else "not all is well")
    return well


def main() -> None:
    """Reads the arguments and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--changes", type=int, default=0, help="loads and unloads of an adapter, at least")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMBENCH_HOME"] = f"{folder}/outputs"
        result: Any = asyncio.run(soak(arguments, Path(folder)))
    sys.exit(not result)


if __name__ == "__main__":
    main()
