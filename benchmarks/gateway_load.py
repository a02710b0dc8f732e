"""What the gateway costs by itself: open streams over an engine that computes nothing, and short answers.

    python benchmarks/gateway_load.py [--streams 100 512 800 1000] [--rounds 3] [--answers 2000] [--keys]

Engine, gateway and clients are three processes of this machine. The engine sends eight events a second apart for a stream, and
one small document otherwise. Processor time is the gateway's own (user and system); the pause is the slowest GET /v1/models,
asked five times a second by a client that waits for nothing else. Every figure is the lowest and the highest of the rounds.
With --keys all requests have a named key with limits that are never reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS, GAP = 8, 1.0
DATA = {"id": "c", "object": "chat.completion.chunk", "model": "base", "choices": [{"index": 0, "delta": {"content": "word "}}]}
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
HEADERS: dict[str, str] = {}


@dataclass(frozen=True)
class Load:
    """One round: streams that ended whole, seconds of the gateway's processor, seconds in all, the slowest /v1/models."""

    done: int
    processor: float
    wall: float
    pause: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--streams", type=int, nargs="+", default=[100, 512, 800, 1000])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--answers", type=int, default=2000)
    arguments.add_argument("--keys", action="store_true", help="ask with a named key with limits")
    arguments.add_argument("--role", choices=["engine", "gateway"], help=argparse.SUPPRESS)
    arguments.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    _raise_limit()
    match options.role:
        case "engine":
            asyncio.run(_engine(options.socket))
        case "gateway":
            _gateway(options.socket, keys=options.keys)
        case _:
            _measure(options.streams, options.rounds, options.answers, keys=options.keys)


def _measure(streams: list[int], rounds: int, answers: int, *, keys: bool) -> None:
    with _serving(keys) as (port, pid, key):
        HEADERS.update({"authorization": f"Bearer {key}"} if keys else {})
        asyncio.run(_short(port, 50, keep=True))  # imports and caches
        print("| open streams | whole | processor, s | per stream, ms | slowest /v1/models, s | all done after, s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for count in streams:
            found = [asyncio.run(_streams(port, pid, count)) for _ in range(rounds)]
            cells = [
                _range([load.processor for load in found], ".1f"),
                _range([1000 * load.processor / count for load in found], ".1f"),
                _range([load.pause for load in found], ".2f"),
                _range([load.wall for load in found], ".1f"),
            ]
            print(f"| {count} | {min(load.done for load in found)} | {' | '.join(cells)} |", flush=True)
        print("\n| short answers | processor, ms each | a second, 8 at once |\n| --- | --- | --- |")
        for keep, what in ((True, "connection kept"), (False, "a new connection each")):
            costs, rates = [], []
            for _ in range(rounds):
                before, begun = _processor(pid), time.monotonic()
                asyncio.run(_short(port, answers, keep=keep))
                costs.append(1000 * (_processor(pid) - before) / answers)
                rates.append(answers / (time.monotonic() - begun))
            print(f"| {what} | {_range(costs, '.2f')} | {_range(rates, '.0f')} |", flush=True)


@contextmanager
def _serving(keys: bool) -> Iterator[tuple[int, int, str]]:
    """An engine and a gateway before it: the gateway's port and process, and a key for it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        socket = Path(folder, "engine.sock")

        def started(role: str) -> subprocess.Popen[str]:
            argv = [sys.executable, __file__, "--role", role, "--socket", str(socket), *(["--keys"] if keys else [])]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        for process in (started("engine"), started("gateway")):
            assert process.stdout is not None
            line = process.stdout.readline()
        port, _, key = line.partition(" ")
        yield int(port), process.pid, key.strip()


async def _engine(socket: Path) -> None:
    event = b"data: " + json.dumps(DATA, separators=(",", ":")).encode() + b"\n\n"
    answer = json.dumps({"model": "base", "choices": [], "usage": {"prompt_tokens": 3}}).encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        if b'"stream":true' not in body:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(EVENTS):
                if number:
                    await asyncio.sleep(GAP)
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(handle, socket, backlog=4096) as server:
        print("ready", flush=True)
        await server.serve_forever()


def _gateway(socket: Path, *, keys: bool) -> None:
    from llmbench.gateway import Catalogue, Served, build
    from llmbench.gateway.keys import KeyStore
    from llmbench.gateway.ledger import opened
    from llmbench.gateway.limit import Open
    from llmbench.gateway.listening import answering, listener_of
    from llmbench.gateway.quota import Limits
    from llmbench.gateway.relay import Upstream
    from llmbench.recipe import ServeRecipe, Variant

    path, key = socket.with_name("keys.sqlite"), ""
    if keys:
        enough = 10**9
        store = KeyStore(path)
        key = store.new("load", limits=Limits(enough, enough, enough, enough))
        store.close()
    gateway = {"port": 0, "shutdown_timeout": 0, "keys": str(path) if keys else False}
    recipe = ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": gateway})
    open, upstream = Open(2048), Upstream.at(socket, lambda: None)
    models = Catalogue([Served(Variant(name="m"), "base", {})], context=1024)
    with opened(recipe.gateway, None) as ledger:
        app = build(models, upstream, open=open, ledger=ledger)
        with listener_of(recipe) as listener, answering(app, listener, recipe, upstream, open, None):
            print(listener.getsockname()[1], key, flush=True)
            sys.stdin.read()


async def _streams(port: int, pid: int, count: int) -> Load:
    pauses: list[float] = []
    ended = threading.Event()
    before, begun = _processor(pid), time.monotonic()
    watch = asyncio.create_task(asyncio.to_thread(_watch, port, pauses, ended))
    done = sum(await asyncio.gather(*(_stream(port) for _ in range(count))))
    wall = time.monotonic() - begun
    ended.set()
    await watch
    return Load(done, _processor(pid) - before, wall, max(pauses))


def _watch(port: int, pauses: list[float], ended: threading.Event) -> None:
    import http.client

    while not ended.wait(0.2):
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", "/v1/models", headers=HEADERS)
        connection.getresponse().read()
        connection.close()
        pauses.append(time.monotonic() - begun)


async def _stream(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request(ASK | {"stream": True}))
    last = b""
    while piece := await reader.read(65_536):
        last = last[-40:] + piece
        if b"[DONE]" in last:
            break
    writer.close()
    return b"[DONE]" in last


async def _short(port: int, count: int, *, keep: bool) -> None:
    async def client(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(share):
            if number and not keep:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_request(ASK))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 200 " in head.split(b"\r\n")[0]
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(client(count // 8) for _ in range(8)))


def _request(body: Mapping[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
    return head + b"content-length: %d\r\n\r\n%b" % (len(data), data)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def _raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))


if __name__ == "__main__":
    main()
