"""The connection to vLLM, on a Unix socket with a server that behaves as vLLM's does when a connection has been idle."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llmbench.gateway.relay import Upstream

ANSWER = b'{"choices":[]}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


async def test_no_request_is_lost_on_a_connection_that_the_engine_has_given_up(tmp_path: Path) -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(HEAD + ANSWER)
        await writer.drain()
        await reader.read(1)  # a second request on this connection is dropped without a word
        writer.close()

    socket = tmp_path / "engine.sock"
    server = await asyncio.start_unix_server(answer_once, socket)
    upstream = Upstream.at(socket, lambda: None)
    try:
        for _ in range(3):
            assert await upstream.read(await upstream.chat({"model": "m", "messages": []})) == {"choices": []}
    finally:
        await upstream.close()
        server.close()
