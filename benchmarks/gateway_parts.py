"""The processes that benchmarks/gateway.py measures with: an engine that computes nothing, the gateway, and the clients.

python benchmarks/gateway_parts.py engine SOCKET
python benchmarks/gateway_parts.py gateway SOCKET [--keys] [--pipeline YAML]
python benchmarks/gateway_parts.py clients        reads jobs as lines of JSON, and writes what each found as one
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MODEL = "m"
_PIECE = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "base"}
_ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "base",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Blue."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}  # fmt: skip


def _request(body: Mapping[str, Any], key: str = "") -> bytes:
    """A request with this body, as bytes."""
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


class _Mock(asyncio.Protocol):
    """One connection of the engine, which stays open as long as its client likes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._running: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._running is not None:
            self._running.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        body = json.loads(rest[:length] or b"{}")
        if body.get("stream"):
            self._running = asyncio.get_running_loop().create_task(self._stream(body["max_tokens"], body.get("seed", 0) / 1000))
            return
        answer = json.dumps(_ANSWER if "messages" in body else {"count": 9}).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
        )

    async def _stream(self, pieces: int, gap: float) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(pieces):
            if number:
                await asyncio.sleep(gap)
            choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
            self._write(json.dumps(_PIECE | {"choices": [choice]}, separators=(",", ":")))
        self._write(json.dumps(_PIECE | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        self._write("[DONE]")
        self._transport.write(b"0\r\n\r\n")

    def _write(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


async def _engine(socket: Path) -> None:
    """Answers on a Unix socket, and on a TCP port that it prints, until it is ended."""
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(_Mock, socket, backlog=4096)
    server = await loop.create_server(_Mock, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _gateway(socket: Path, *, keys: bool, pipeline: Path | None) -> None:
    """Llmbench's gateway over that engine until standard input ends; prints its port and a key for it."""
    from llmbench.gateway import Catalogue, Served, build
    from llmbench.gateway.grounding import open_retriever
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
    section = {"port": 0, "shutdown_timeout": 0, "keys": str(path) if keys else False}
    recipe = ServeRecipe.model_validate({"variants": [{"name": _MODEL}], "gateway": section})
    grounding = open_retriever(pipeline) if pipeline is not None else None
    if grounding is not None:
        grounding.ready()
    open, upstream = Open(4096), Upstream.at(socket, lambda: None)
    models = Catalogue([Served(Variant(name=_MODEL), "base", {}, grounding)], context=4096)
    with opened(recipe.gateway, None) as ledger:
        app = build(models, upstream, open=open, ledger=ledger)
        with listener_of(recipe) as listener, answering(app, listener, recipe, upstream, open, None):
            print(listener.getsockname()[1], key, flush=True)
            sys.stdin.read()
    if grounding is not None:
        grounding.close()


class _Client:
    """A connection that is kept: one request after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None

    async def ask(self, sent: bytes) -> bytes:
        """Sends a request and reads its answer to the end; gives its last bytes."""
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(sent)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head[:16]:
            raise RuntimeError(head.decode("latin-1"))
        if (at := head.find(b"content-length:")) >= 0:
            return await self._reader.readexactly(int(head[at + 15 :].split(b"\r\n")[0]))
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            piece = await self._reader.read(65_536)
            if not piece:
                raise RuntimeError("the answer was broken off")
            last = last[-64:] + piece
        return last

    def close(self) -> None:
        """Closes it."""
        if self._reader is not None:
            self._reader = None
            self._writer.close()


async def _closed_loop(port: int, sent: bytes, count: int, at_once: int) -> list[float]:
    """Seconds of each of `count` requests, of which `at_once` are open at any time."""
    taken: list[float] = []

    async def one(share: int) -> None:
        client = _Client(port)
        for _ in range(share):
            begun = time.perf_counter()
            await client.ask(sent)
            taken.append(time.perf_counter() - begun)
        client.close()

    await asyncio.gather(*(one(count // at_once) for _ in range(at_once)))
    return taken


async def _open_loop(port: int, sent: bytes, rate: float, seconds: float) -> list[float]:
    """Seconds from when each request was due to the end of its answer, at a fixed rate whatever the answers take."""
    idle: list[_Client] = []
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def one(due: float) -> None:
        client = idle.pop() if idle else _Client(port)
        await client.ask(sent)
        taken.append(loop.time() - due)
        idle.append(client)

    tasks = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return taken


async def _at_once(port: int, sent: Sequence[bytes]) -> tuple[int, float]:
    """Answers that ended whole of requests that are all sent at once, and the seconds until the last of them has ended."""
    clients = [_Client(port) for _ in sent]

    async def one(client: _Client, request: bytes) -> bool:
        try:
            return bool(await client.ask(request))
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            return False
        finally:
            client.close()

    begun = time.perf_counter()
    whole = sum(await asyncio.gather(*(one(*pair) for pair in zip(clients, sent, strict=True))))
    return whole, time.perf_counter() - begun


def _clients() -> None:
    """Does what each line of standard input asks for."""
    for line in sys.stdin:
        job = json.loads(line)
        sent = [_request(body, job["key"]) for body in job["bodies"]]
        port, found = job["port"], None  # type: int, Any
        match job["do"]:
            case "closed":
                found = asyncio.run(_closed_loop(port, sent[0], job["count"], job["at_once"]))
            case "open":
                found = asyncio.run(_open_loop(port, sent[0], job["rate"], job["seconds"]))
            case "at once":
                found = asyncio.run(_at_once(port, sent))
        print(json.dumps(found), flush=True)


def main() -> None:
    """Plays one of the parts."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("role", choices=["engine", "gateway", "clients"])
    arguments.add_argument("socket", type=Path, nargs="?")
    arguments.add_argument("--keys", action="store_true")
    arguments.add_argument("--pipeline", type=Path)
    options = arguments.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16_384, hard), hard))
    match options.role:
        case "engine":
            asyncio.run(_engine(options.socket))
        case "gateway":
            _gateway(options.socket, keys=options.keys, pipeline=options.pipeline)
        case "clients":
            _clients()


if __name__ == "__main__":
    main()
