"""Stand-ins for vLLM on ports of this machine: real servers that know adapters, answer at once or when told, and can fail."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from llmbench.engine.key_guard import GATEWAY, Leases


class Vllm:
    """One engine. Its thread may be stopped, as by a crash, and started again on the same port, as another process."""

    def __init__(self, *, key: str | None = None, adapters: tuple[str, ...] = (), leases: bool = True) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.key, self.loaded = key, set(adapters)
        self.root, self.context, self.tokens = "/elsewhere/model", 1024, [1, 2, 3]
        self.later = 0.0
        """Seconds that have passed for what gateways say that they use."""
        self.leases = self._leases() if leases else None
        """What gateways say that they use; None as where it was not started by llmbench."""
        self.holds_said = 0
        """How often a gateway said so."""
        self.starts = 0
        self.asked: list[dict[str, Any]] = []
        """Bodies of chats and completions."""
        self.loads: list[str] = []
        self.unreadable: set[str] = set()
        """Adapters whose folders are not on its machine."""
        self.status = 200
        """Of chats."""
        self.well = True
        self.hangs = False
        """Takes requests, and says nothing."""
        self.drops = 0
        """Next chats whose connection ends before an answer."""
        self.heads = 0
        """Next streams that end behind their head."""
        self.breaks = 0
        """Next streams that end in the middle."""
        self.holds = threading.Event()
        """Chats wait for it."""
        self.holds.set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _leases(self) -> Leases:
        return Leases(lambda: time.monotonic() + self.later)

    def start(self) -> None:
        self.starts += 1
        self.leases = self._leases() if self.leases is not None else None
        ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(ready),), daemon=True)
        self._thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        """Closes the port and every connection, whatever is being answered."""
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=500)
        ready.set()
        await self._stopped.wait()
        server.close()
        await asyncio.sleep(0.01)  # who was let in last begins, and so closes its connection when it is cancelled
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # connections that are closed are told so in the loop's next round

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                if not await self._answer(lines[0].split()[1], headers, json.loads(raw or b"null"), writer):
                    break
        writer.transport.abort()

    async def _answer(self, path: str, headers: dict[str, str], body: Any, writer: asyncio.StreamWriter) -> bool:
        while self.hangs:
            await asyncio.sleep(0.005)
        if path == "/health":
            return await self._say(writer, 200 if self.well else 503, {})
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return await self._say(writer, 401, {"error": "Unauthorized"})
        match path:
            case "/metrics":
                text = (
                    f"# HELP process_start_time_seconds Start.\n# TYPE process_start_time_seconds gauge\n"
                    f"process_start_time_seconds {self.port}{self.starts}\n"
                    "# HELP vllm:prompt_tokens Tokens.\n# TYPE vllm:prompt_tokens counter\n"
                    f'vllm:prompt_tokens_total{{engine="0",model_name="base"}} {len(self.asked)}\n'
                )
                return await self._send(writer, 200, text.encode())
            case "/v1/models":
                cards = [{"id": "base", "root": self.root, "max_model_len": self.context}]
                cards += [{"id": id, "root": "/", "max_model_len": None} for id in sorted(self.loaded)]
                return await self._say(writer, 200, {"data": cards})
            case "/tokenize":
                return await self._say(writer, 200, {"count": len(self.tokens), "tokens": self.tokens})
            case "/v1/load_lora_adapter":
                return await self._load(writer, body["lora_name"], headers.get(GATEWAY))
            case "/llmbench/adapters" if self.leases is not None:
                self.holds_said += 1
                return await self._say(writer, 200, self.leases.hold(**body))
            case "/llmbench/adapters":
                return await self._say(writer, 404, {"detail": "Not Found"})
            case "/v1/unload_lora_adapter":
                gateway = headers.get(GATEWAY)
                if self.leases is not None and gateway and not self.leases.release(gateway, body["lora_name"]):
                    return await self._say(writer, 409, {"error": {"message": "Another gateway uses it."}})
                if body["lora_name"] not in self.loaded:  # two gateways may find at once that nobody uses it
                    return await self._say(writer, 404, {"error": {"message": "The lora adapter cannot be found."}})
                if self.leases is not None:
                    self.leases.unloaded(body["lora_name"])
                self.loaded.discard(body["lora_name"])
                self.loads.append(f"-{body['lora_name']}")
                return await self._say(writer, 200, "Success. Its memory is free.")
        return await self._chat(writer, body)

    async def _load(self, writer: asyncio.StreamWriter, id: str, gateway: str | None) -> bool:
        if id in self.unreadable:
            return await self._say(writer, 404, {"error": {"message": f"Loading lora {id} failed: No adapter found"}})
        self.loaded.add(id)
        self.loads.append(f"+{id}")
        if self.leases is not None and gateway:
            self.leases.loaded(gateway, id)
        return await self._say(writer, 200, "Success")

    async def _chat(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        self.asked.append(body)
        if self.drops:
            self.drops -= 1
            return False
        if self.status != 200 or body["model"] not in {"base", *self.loaded}:
            status = self.status if self.status != 200 else 404
            return await self._say(writer, status, {"error": {"message": "it failed", "code": status}})
        if not body.get("stream"):
            await self._held()
            usage = {"prompt_tokens": 3, "completion_tokens": 1}
            return await self._say(writer, 200, {"model": body["model"], "choices": [], "usage": usage, "port": self.port})
        if self.heads:
            self.heads -= 1
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            return False
        event = json.dumps({"model": body["model"], "choices": [{"index": 0, "delta": {"content": str(self.port)}}]})
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + _chunk(f"data: {event}\n\n"))
        await writer.drain()
        if self.breaks:
            self.breaks -= 1
            return False
        await self._held()
        writer.write(_chunk("data: [DONE]\n\n") + _chunk(""))
        await writer.drain()
        return True

    async def _held(self) -> None:
        while not self.holds.is_set():
            await asyncio.sleep(0.005)

    async def _say(self, writer: asyncio.StreamWriter, status: int, data: Any) -> bool:
        return await self._send(writer, status, json.dumps(data).encode())

    async def _send(self, writer: asyncio.StreamWriter, status: int, content: bytes) -> bool:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(content), content))
        await writer.drain()
        return True


def _chunk(text: str) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text.encode()), text.encode())


@contextmanager
def running(count: int, **options: Any) -> Iterator[list[Vllm]]:
    """So many engines, which answer until the block ends."""
    made = [Vllm(**options) for _ in range(count)]
    try:
        for one in made:
            one.start()
        yield made
    finally:
        for one in made:
            one.holds.set()
            one.stop()
