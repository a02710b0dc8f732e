"""What the gateway costs by itself: processor time, added latency and memory over an engine that computes nothing.

    python benchmarks/gateway.py [--rounds 5] [--requests 1000] [--keys] [--rag] [--litellm PYTHON] [--against SRC]
                                    [--only cpu latency]

Engine, gateway and clients are processes of this machine; clients keep their connections. Processor time is the gateway's own,
user and system, for requests of which eight are open at a time. Added latency is that of requests asked through the gateway
less that of the engine asked directly, in turn. Each figure is the median of the rounds, with the lowest and the highest.
--keys asks with a named key that has limits, --rag searches the sample handbook for many questions at once, --litellm measures
LiteLLM's proxy, of the interpreter that has it, in turn with llmbench's gateway over the same engine; --against the gateway of
another checkout, whose `src` it is given.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = Path(__file__).with_name("gateway_parts.py")
TABLES = ("cpu", "latency", "rate", "open")
MODEL = "m"
RATE, SECONDS = 200.0, 5.0
OPEN, EVENTS, GAP = 1000, 8, 1.0
TOGETHER = 32


@dataclass(frozen=True)
class Peer:
    """A server that is measured: its name, port and process, and the key that it wants."""

    name: str
    port: int
    process: int = 0
    key: str = ""


class Clients:
    """Another process, which asks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, what: str, peer: Peer, *bodies: Mapping[str, Any], **how: float) -> Any:
        """Has a job done; the seconds of its requests, or what it found."""
        job = {"do": what, "port": peer.port, "key": peer.key, "bodies": bodies} | how
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def question(*, pieces: int = 0, gap: float = 0.0, text: str = "What colour is the sky?") -> dict[str, Any]:
    """A chat request. The engine streams `pieces` of them, `gap` seconds apart, or answers at once where there are none."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": max(1, pieces)}
    return body | ({"stream": True, "seed": int(1000 * gap)} if pieces else {})


WHOLE, STREAM = question(), question(pieces=32, gap=0.002)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=1000)
    arguments.add_argument("--keys", action="store_true", help="ask with a named key with limits")
    arguments.add_argument("--rag", action="store_true", help="also measure searching for many questions at once")
    arguments.add_argument("--litellm", type=Path, metavar="PYTHON", help="an interpreter with litellm[proxy]")
    arguments.add_argument("--against", type=Path, metavar="SRC", help="the src of another checkout, measured too")
    arguments.add_argument("--only", nargs="*", choices=TABLES, default=TABLES)
    options = arguments.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "h11", "uvloop", "httptools"))
    print(f"{_machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clients = Clients(stack.enter_context(_part("clients")))
        if options.only:
            _compare(options, clients, stack, Path(folder))
        if options.rag:
            _retrieval(options.rounds, clients, Path(folder))


def _compare(options: argparse.Namespace, clients: Clients, stack: ExitStack, folder: Path) -> None:
    """Asks each gateway in turn, and prints a table for each kind of figure."""
    at, count = folder / "engine.sock", options.requests
    engine = Peer("engine", int(_line(stack.enter_context(_part("engine", at)))))
    keys = ["--keys"] if options.keys else []
    peers = [_llmbench(stack, at, *keys)]
    if options.against is not None:
        (folder / "other").mkdir()  # for its keys
        at.with_name("other").joinpath(at.name).symlink_to(at)
        peers.append(_llmbench(stack, folder / "other" / at.name, *keys, source=options.against.resolve()))
    if options.litellm is not None:
        peers.append(stack.enter_context(_litellm(options.litellm, engine.port, folder)))
    for peer in peers:  # imports and caches
        clients.do("closed", peer, WHOLE, count=80, at_once=8)
        clients.do("closed", peer, STREAM, count=80, at_once=8)

    def table(part: str, title: str, rows: Sequence[str], measure: Callable[[Peer], Sequence[float]], rounds: int) -> None:
        if part in options.only:
            print(f"\n| {title} | {' | '.join(peer.name for peer in peers)} |\n| --- |{' --- |' * len(peers)}", flush=True)
            found = [{peer: measure(peer) for peer in peers[:: 1 - 2 * (i % 2)]} for i in range(rounds)]
            for number, row in enumerate(rows):
                cells = [_spread([one[peer][number] for one in found]) for peer in peers]
                print(f"| {row} | {' | '.join(cells)} |", flush=True)

    def cost(peer: Peer) -> Sequence[float]:
        return _cost(clients, peer, WHOLE, count), _cost(clients, peer, STREAM, count // 4)

    def added(peer: Peer) -> Sequence[float]:
        whole = _added(clients, peer, engine, WHOLE, (0.5, 0.99), do="closed", count=count // 4, at_once=1)
        return *whole, *_added(clients, peer, engine, STREAM, (0.5,), do="closed", count=count // 16, at_once=1)

    def at_rate(peer: Peer) -> Sequence[float]:
        return _added(clients, peer, engine, WHOLE, (0.5, 0.99), do="open", rate=RATE, seconds=SECONDS)

    def opened(peer: Peer) -> Sequence[float]:
        return _open_streams(clients, peer)

    table("cpu", "processor time for each, ms", ("whole answer", "stream of 32 pieces"), cost, options.rounds)
    single = ("whole answer, p50", "whole answer, p99", "stream of 32 pieces, p50")
    table("latency", "added latency, one at a time, ms", single, added, options.rounds)
    table("rate", f"added latency, {RATE:.0f} whole answers a second, ms", ("p50", "p99"), at_rate, options.rounds)
    rows = ("ended whole", "most memory, MB", "processor time, s", "slowest /v1/models, s", "all done after, s")
    table("open", f"{OPEN:,} streams of {EVENTS} pieces a second apart", rows, opened, min(3, options.rounds))


def _cost(clients: Clients, peer: Peer, body: Mapping[str, Any], count: int) -> float:
    before = _seconds(peer.process)
    asked = len(clients.do("closed", peer, body, count=count, at_once=8))
    return 1000 * (_seconds(peer.process) - before) / asked


def _added(
    clients: Clients, peer: Peer, engine: Peer, body: Mapping[str, Any], shares: Sequence[float], *, do: str, **how: float
) -> list[float]:
    """Milliseconds by which these quantiles are higher through the gateway."""
    direct, through = (sorted(clients.do(do, one, body, **how)) for one in (engine, peer))
    return [1000 * (through[int(share * len(through))] - direct[int(share * len(direct))]) for share in shares]


def _open_streams(clients: Clients, peer: Peer) -> Sequence[float]:
    ended, pauses, memory = threading.Event(), [0.0], [0.0]

    def watch() -> None:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{peer.port}/v1/models", headers={"authorization": f"Bearer {peer.key}"}
        )
        while not ended.wait(0.2):
            begun = time.monotonic()
            with urllib.request.urlopen(asked, timeout=120) as response:
                response.read()
            pauses.append(time.monotonic() - begun)
            memory.append(_resident(peer.process))

    before, thread = _seconds(peer.process), threading.Thread(target=watch)
    thread.start()
    whole, wall = clients.do("at once", peer, *[question(pieces=EVENTS, gap=GAP)] * OPEN)
    ended.set()
    thread.join()
    return whole, max(memory), _seconds(peer.process) - before, max(pauses), wall


def _retrieval(rounds: int, clients: Clients, folder: Path) -> None:
    """How long questions take that are asked alone, and together."""
    from llmbench import assets

    pipeline, questions = assets.bundled("rag/handbook.yaml"), assets.bundled("rag/questions.jsonl")
    os.environ["LLMBENCH_HOME"] = str(folder)
    subprocess.run([sys.executable, "-m", "llmbench", "index", pipeline], check=True, capture_output=True)
    texts = [json.loads(line)["question"] for line in questions.read_text(encoding="utf-8").splitlines()]
    with ExitStack() as stack:
        at = folder / "rag.sock"
        _line(stack.enter_context(_part("engine", at)))
        peer = _llmbench(stack, at, "--pipeline", str(pipeline))

        def ask(some: Sequence[str]) -> float:
            whole, seconds = clients.do("at once", peer, *(question(text=text) for text in some))
            assert whole == len(some)
            return 1000 * float(seconds)

        ask(texts[:TOGETHER])
        alone, together, costs = list[float](), list[float](), list[float]()
        for number in range(rounds):
            alone.append(statistics.median(ask([text]) for text in texts[number : number + 15]))
            before = _seconds(peer.process)
            together.append(statistics.median(ask(texts[number + i : number + i + TOGETHER]) for i in range(3)))
            costs.append(1000 * (_seconds(peer.process) - before) / TOGETHER / 3)
        ratios = [many / one for many, one in zip(together, alone, strict=True)]
        print("\n| questions to a RAG variant | |\n| --- | --- |")
        print(
            f"| one, ms | {_spread(alone)} |\n| {TOGETHER} at once, until the last has its answer, ms | {_spread(together)} |"
        )
        print(
            f"| as many times one | {_spread(ratios)} |\n| processor time for each of the {TOGETHER}, ms | {_spread(costs)} |"
        )


@contextmanager
def _part(role: str, *arguments: str | Path, source: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, PARTS, role, *arguments]
    env = os.environ | ({} if source is None else {"PYTHONPATH": str(source)})
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[str]) -> str:
    """What a process prints when it is ready."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _llmbench(stack: ExitStack, at: Path, *arguments: str, source: Path | None = None) -> Peer:
    process = stack.enter_context(_part("gateway", at, *arguments, source=source))
    port, _, key = _line(process).partition(" ")
    return Peer("llmbench" if source is None else f"llmbench of {source}", int(port), process.pid, key)


@contextmanager
def _litellm(python: Path, engine: int, folder: Path) -> Iterator[Peer]:
    """LiteLLM's proxy with one worker and without its logs."""
    config, log = folder / "litellm.yaml", folder / "litellm.log"
    model = {"model": "openai/base", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": "none"}
    document = {"model_list": [{"model_name": MODEL, "litellm_params": model}], "litellm_settings": {"telemetry": False}}
    config.write_text(json.dumps(document), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv: list[str | Path] = [
        python,
        python.with_name("litellm"),
        "--config",
        config,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    key = f"sk-{secrets.token_hex(16)}"
    env = os.environ | {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NO_PROXY": "127.0.0.1",
    }
    env.pop("PYTHONPATH", None)
    asked: list[str | Path] = [python, "-c", "import importlib.metadata as m; print(m.version('litellm'))"]
    version = subprocess.check_output(asked, text=True, env=env).strip()
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=output, env=env) as process:
        try:
            while not _answers(port):
                if process.poll() is not None:
                    raise SystemExit(log.read_text(encoding="utf-8")[-2000:])
                time.sleep(0.5)
            yield Peer(f"LiteLLM {version}", port, process.pid, key)
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5) as response:
            return bool(response.read())
    except OSError:
        return False


def _seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    """Its memory, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _spread(values: Sequence[float]) -> str:
    middle, low, high = (
        f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
