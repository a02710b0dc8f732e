"""A real gateway process in front of an engine that answers for itself, killed with SIGKILL while it answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench.gateway.keys import KeyStore
from llmbench.gateway.quota import Limits

LIMIT, PROMPT, ANSWER = 8_000, 30, 12
MOST = 20
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": MOST}
PROGRAM = """
import sys
from pathlib import Path
from llmbench.gateway import Catalogue, Served, build
from llmbench.gateway.ledger import opened
from llmbench.gateway.limit import Open
from llmbench.gateway.listening import answering, listener_of
from llmbench.gateway.relay import Upstream
from llmbench.recipe import ServeRecipe, Variant

gateway = {"port": 0, "keys": sys.argv[2], "shutdown_timeout": 0}
recipe = ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": gateway})
open, upstream = Open(2048), Upstream.at(Path(sys.argv[1]), lambda: None)
with opened(recipe.gateway, None) as ledger:
    models = Catalogue([Served(Variant(name="m"), "e", {})], context=4096)
    app = build(models, upstream, open=open, ledger=ledger)
    with listener_of(recipe) as listener, answering(app, listener, recipe, upstream, open, None):
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
"""


class Computing:
    """Answers as vLLM does and counts what it has computed, from the moment in which it is asked."""

    def __init__(self) -> None:
        self.tokens = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await reader.readexactly(length))
            if b"/tokenize" in head.split(b"\r\n")[0]:
                await self.whole(writer, {"count": PROMPT})
                return
            self.tokens += PROMPT + ANSWER
            await asyncio.sleep(0.02)
            usage = {"prompt_tokens": PROMPT, "completion_tokens": ANSWER}
            if not body["stream"]:
                await self.whole(writer, {"model": "e", "choices": [], "usage": usage})
                return
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for data in ({"choices": [{"index": 0, "delta": {"content": "a"}}]}, {"choices": [], "usage": usage}):
                piece = b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0.02)
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def whole(self, writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
        content = json.dumps(data).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
        await writer.drain()


@asynccontextmanager
async def gateway(socket: Path, path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(socket), str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        yield process, f"http://127.0.0.1:{int(line)}/v1/chat/completions"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("answered", [1, 7])
async def test_spent_tokens_never_exceed_the_limit_though_the_gateway_is_killed(tmp_path: Path, answered: int) -> None:
    path, socket, engine = tmp_path / "keys.sqlite", tmp_path / "e.sock", Computing()
    store = KeyStore(path)
    key = store.new("alice", limits=Limits(tokens_per_day=LIMIT))
    statuses: list[int] = []

    async def client(http: httpx.AsyncClient, url: str, number: int, until: asyncio.Event) -> None:
        """Asks, streamed or not, one question after another, until its key is spent or the gateway is gone."""
        try:
            while True:
                response = await http.post(url, json=ASK | {"stream": number % 2 == 0})
                statuses.append(response.status_code)
                if statuses.count(200) >= answered:
                    until.set()
                if response.status_code == 429 and response.headers["x-should-retry"] == "false":
                    return
                await asyncio.sleep(0.02 * (response.status_code == 429))
        except httpx.HTTPError:
            return

    def spent() -> int:
        account = store.account("alice")
        return 0 if account is None else account.day_tokens

    async with await asyncio.start_unix_server(engine.answer, socket):
        for killed in (True, True, False):
            statuses.clear()
            async with (
                gateway(socket, path) as (process, url),
                httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http,
            ):
                enough = asyncio.Event()
                clients = [asyncio.create_task(client(http, url, number, enough)) for number in range(20)]
                if killed:
                    await asyncio.wait_for(enough.wait(), 60)
                    process.kill()
                await asyncio.wait_for(asyncio.gather(*clients), 120)
            assert 0 < engine.tokens <= spent() <= LIMIT
        assert LIMIT - spent() < PROMPT + MOST, "what is left is too little for another question"
    assert set(statuses) <= {200, 429}
    store.close()
