"""The transport to an engine, on a real Unix socket, TCP and TLS, with engines that behave and engines that do not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench.engine import Address, Place, tls
from llmbench.gateway import transport
from llmbench.gateway.relay import Upstream
from llmbench.gateway.transport import EngineTransport, PouredStream

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\ntrue"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Handler = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One of the engine's connections; `number` counts them from 0."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number, self.reader, self.writer = number, reader, writer
        self.bodies: list[Any] = []

    async def request(self) -> Any:
        """The body of the next request; None where the client has closed."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        self.bodies.append(json.loads(await self.reader.readexactly(int(length or 0)) or b"null"))
        return self.bodies[-1]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def is_left(self) -> bool:
        """Waits for the client to close."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


async def whole(connection: Connection) -> None:
    """Answers every request at once."""
    while await connection.request() is not None:
        await connection.send(WHOLE)


@asynccontextmanager
async def engine(at: Place, handler: Handler = whole) -> AsyncIterator[list[Connection]]:
    """An engine whose connections do what the handler says, until the block ends."""
    connections: list[Connection] = []
    tasks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(Connection(len(connections), reader, writer))
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            with suppress(ConnectionError):
                await handler(connections[-1])
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    if isinstance(at, Path):
        server = await asyncio.start_unix_server(accept, at)
    else:
        context = None
        if at.secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.environ["SSL_CERT_FILE"])
        server = await asyncio.start_server(accept, at.host, at.port, ssl=context)
    closed = asyncio.create_task(server.wait_closed())  # before `close`, after which Python 3.11 waits for nothing
    try:
        yield connections
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(30):
            await closed  # for a handshake that fails, too, of which no handler knows


async def start(client: EngineTransport, body: Any = None, *, model: str | None = None) -> httpx.Response:
    content = json.dumps({"n": 0} if body is None else body)
    request = httpx.Request("POST", "http://engine/x", content=content, extensions={"model": model})
    return await client.handle_async_request(request)


async def ask(client: EngineTransport, body: Any = None, *, model: str | None = None) -> bytes:
    response = await start(client, body, model=model)
    return await response.aread()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that it signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=engine -addext"
    argv = ["openssl", *words.split(), "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(argv, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(params=["unix", "tcp", "tls"])
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EngineTransport]:
    at: Place = tmp_path / "engine.sock"
    if request.param != "unix":
        at = Address("127.0.0.1", free_port(), request.param == "tls", key="sesame")
    if request.param == "tls":
        monkeypatch.setenv("SSL_CERT_FILE", str(request.getfixturevalue("certificate")))
        tls.cache_clear()
    client = EngineTransport(at)
    yield client
    await client.aclose()
    await asyncio.sleep(0)
    tls.cache_clear()


async def test_an_engine_at_an_address_is_asked_by_its_name_and_with_its_key() -> None:
    at, heads = Address("127.0.0.1", free_port(), key="sesame"), list[bytes]()

    async def handler(connection: Connection) -> None:
        heads.append(await connection.reader.readuntil(b"\r\n\r\n"))
        await connection.send(WHOLE)

    async with engine(at, handler):
        client = EngineTransport(at)
        assert await ask(client) == b"true"
        await client.aclose()
    lines = heads[0].split(b"\r\n")
    assert lines.count(f"host: 127.0.0.1:{at.port}".encode()) == 1 and b"authorization: Bearer sesame" in lines
    assert b"engine" not in heads[0].lower().replace(b"/x", b"")
    assert "sesame" not in repr(at)


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_an_engine_whose_certificate_is_not_known_is_not_asked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    at = Address("127.0.0.1", free_port(), secure=True)
    async with engine(at) as connections:
        tls.cache_clear()
        if wrong == "authority":
            monkeypatch.delenv("SSL_CERT_FILE")
        else:
            tls()
            at = Address("localhost", at.port, secure=True)
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await ask(EngineTransport(at))
        assert not connections
    tls.cache_clear()


async def test_requests_one_after_another_share_a_connection(client: EngineTransport) -> None:
    async with engine(client.at) as connections:
        assert [await ask(client, {"n": n}) for n in range(3)] == [b"true"] * 3
        assert [one.bodies for one in connections] == [[{"n": 0}, {"n": 1}, {"n": 2}]]


async def test_requests_at_once_never_wait_for_each_other(client: EngineTransport) -> None:
    all_here = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        if connection.number == 299:
            all_here.set()
        await all_here.wait()
        await connection.send(WHOLE)
        await connection.is_left()

    async with engine(client.at, handler):
        assert await asyncio.gather(*(ask(client) for _ in range(300))) == [b"true"] * 300


async def test_an_idle_connection_that_the_engine_closed_meanwhile_loses_no_request(client: EngineTransport) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(WHOLE)
        await connection.reader.read(1)  # of a second request; the connection ends without a word

    async with engine(client.at, handler) as connections:
        assert [await ask(client) for _ in range(3)] == [b"true"] * 3
        assert len(connections) == 3


async def test_a_request_is_sent_again_only_where_nothing_came_on_a_connection_that_was_kept(client: EngineTransport) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        if connection.number == 0:  # a new one: the engine took the request, and died of it
            return
        await connection.send(WHOLE)
        await connection.request()
        await connection.send(b"HTTP/1.1 200 O")

    async with engine(client.at, handler) as connections:
        with pytest.raises(httpx.ReadError):
            await ask(client)
        assert await ask(client) == b"true"
        with pytest.raises(httpx.ReadError):
            await ask(client)
        assert [len(one.bodies) for one in connections] == [1, 2]


async def test_the_requests_of_one_model_are_ended_without_the_others(client: EngineTransport) -> None:
    release = asyncio.Event()

    async def handler(connection: Connection) -> None:
        if (await connection.request())["stream"]:
            await connection.send(CHUNKED + b"1\r\na\r\n")
        await release.wait()
        await connection.send(WHOLE)
        await connection.is_left()

    async with engine(client.at, handler) as connections:
        stream = await start(client, {"stream": True}, model="a")
        waiting = [asyncio.create_task(ask(client, {"stream": False}, model=model)) for model in ("a", "b")]
        while sum(len(one.bodies) for one in connections) < 3:
            await asyncio.sleep(0.01)
        await client.end("a")
        with pytest.raises(httpx.ReadError, match="cut off"):
            await waiting[0]
        with pytest.raises(httpx.ReadError, match="cut off"):
            await stream.aread()
        release.set()
        assert await waiting[1] == b"true"


async def test_a_connection_to_an_engine_on_another_socket_is_not_used_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    upstream = Upstream.at(old, lambda: None)

    async def reading(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(WHOLE.replace(b"4\r\n\r\ntrue", b'9\r\n\r\n{"n": 10}'))

    async with engine(old, reading) as before, engine(new, reading) as after:
        assert await upstream.read(await upstream.chat({"model": "m"})) == {"n": 10}
        running = await upstream.chat({"model": "m"})
        upstream.moved(new)
        assert await upstream.read(running) == {"n": 10}  # what runs is left to end
        for _ in range(2):
            assert await upstream.read(await upstream.chat({"model": "m"})) == {"n": 10}
        assert [len(one.bodies) for one in before] == [2] and [len(one.bodies) for one in after] == [2]
        await upstream.close()


async def test_an_answer_that_nobody_reads_to_its_end_is_closed_at_the_engine(client: EngineTransport) -> None:
    left = list[bool]()

    async def handler(connection: Connection) -> None:
        if await connection.request() == "stream":
            await connection.send(CHUNKED + b"1\r\na\r\n")
        left.append(await connection.is_left())

    async with engine(client.at, handler) as connections:
        response = await start(client, "stream")
        assert await anext(aiter(response.stream)) == b"a"  # type: ignore[arg-type]
        await response.aclose()
        waiting = asyncio.create_task(ask(client, "whole"))
        while len(connections) < 2 or not connections[1].bodies:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while len(left) < 2:
            await asyncio.sleep(0.01)
        assert left == [True, True]


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\n\r\nabcde",  # it ends with its connection
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
    ],
)
async def test_answers_are_read_however_they_are_cut_and_framed(client: EngineTransport, answer: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        for byte in answer:
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)

    async with engine(client.at, handler):
        response = await start(client)
        assert (response.status_code, await response.aread()) == (200, b"abcde")
        assert "link" not in response.headers


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", CHUNKED + b"zz\r\n"])
async def test_what_is_no_http_is_an_error(client: EngineTransport, answer: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer)
        await connection.is_left()

    async with engine(client.at, handler):
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(client)


async def test_a_connection_on_which_something_came_unasked_is_not_used_again(client: EngineTransport) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(WHOLE)
        await connection.send(WHOLE)
        await connection.is_left()

    async with engine(client.at, handler) as connections:
        for _ in range(2):
            assert await ask(client) == b"true"
            await asyncio.sleep(0.05)
        assert len(connections) == 2


async def test_a_connection_that_was_idle_for_long_is_closed(client: EngineTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(client.at) as connections:
        assert await ask(client) == b"true"
        monkeypatch.setattr(transport, "IDLE", 0.0)
        await asyncio.sleep(0.01)
        assert await ask(client) == b"true"
        assert [len(one.bodies) for one in connections] == [1, 1]


async def test_an_engine_that_falls_silent_is_waited_for_no_longer_and_asked_no_second_time(
    client: EngineTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(WHOLE)
        await connection.request()
        await connection.is_left()

    async with engine(client.at, handler) as connections:
        assert await ask(client) == b"true"
        client.drop_idle()
        monkeypatch.setattr(transport, "_READ", 0.05)
        assert await ask(client) == b"true"
        with pytest.raises(httpx.ReadTimeout):
            await ask(client)
        assert [len(one.bodies) for one in connections] == [1, 2]


async def test_an_engine_that_sends_faster_than_the_client_reads_has_to_wait(client: EngineTransport) -> None:
    piece, count, sent = b"x" * 65_536, 800, list[int]()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for number in range(count):
            await connection.send(piece)
            sent.append(number)

    async with engine(client.at, handler):
        response = await start(client)
        before = -1
        while before != len(sent):  # until it no longer gets on
            before = len(sent)
            await asyncio.sleep(0.1)
        assert len(sent) < count / 4
        assert len(await response.aread()) == len(piece) * count


async def test_a_poured_answer_comes_piece_by_piece_until_no_more_is_wanted(client: EngineTransport) -> None:
    taken, goes_on = list[bytes](), asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED + b"3\r\none\r\n")
        await goes_on.wait()
        await connection.send(b"3\r\ntw")  # cut anywhere
        await asyncio.sleep(0.01)
        await connection.send(b"o\r\n5\r\nthree\r\n0\r\n\r\n")
        await whole(connection)

    def take(piece: bytes) -> bool:
        taken.append(piece)
        goes_on.set()
        return len(taken) != 2

    async with engine(client.at, handler) as connections:
        response = await start(client)
        assert isinstance(response.stream, PouredStream)
        assert await response.stream.pour(take) is False  # after its second piece
        assert taken[0] == b"one" and len(taken) == 2
        await asyncio.sleep(0.05)
        assert len(taken) == 2
        assert await response.stream.pour(take) is True
        assert b"".join(taken) == b"onetwothree"
        await response.aclose()
        assert await ask(client) == b"true" and len(connections) == 1  # the connection is used again


async def test_an_engine_has_to_wait_for_whoever_takes_nothing_more(client: EngineTransport) -> None:
    sent, piece, count, found = 0, b"x" * 65_536, 400, 0

    async def handler(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(CHUNKED)
        for _ in range(count):
            await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            sent += 1
        await connection.send(b"0\r\n\r\n")

    def take(piece: bytes) -> bool:
        nonlocal found
        found += len(piece)
        return False

    async with engine(client.at, handler):
        response = await start(client)
        assert isinstance(response.stream, PouredStream)
        assert not await response.stream.pour(take)
        await asyncio.sleep(0.2)
        assert sent < count / 2
        while not await response.stream.pour(take):
            pass
        assert found == len(piece) * count
        await response.aclose()


@pytest.mark.parametrize("ends", ["breaks", "take raises"])
async def test_what_ends_a_poured_answer_too_early_reaches_whoever_waits_for_its_end(
    client: EngineTransport, ends: str
) -> None:
    ready = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await connection.send(CHUNKED)
        await ready.wait()
        await connection.send(b"3\r\none\r\n")
        if ends != "breaks":
            await connection.is_left()

    def take(piece: bytes) -> bool:
        taken.append(piece)
        if ends != "breaks":
            raise ZeroDivisionError
        return True

    taken = list[bytes]()
    async with engine(client.at, handler):
        response = await start(client)
        assert isinstance(response.stream, PouredStream)
        pouring = asyncio.create_task(response.stream.pour(take))
        await asyncio.sleep(0)
        ready.set()
        with pytest.raises(httpx.ReadError if ends == "breaks" else ZeroDivisionError):
            await pouring
        assert taken == [b"one"]
        await response.aclose()


async def test_an_engine_that_is_not_there_is_a_connect_error(client: EngineTransport) -> None:
    with pytest.raises(httpx.ConnectError):
        await ask(client)


async def test_whoever_waits_for_the_end_of_an_answer_is_told_once_before_it_is_read(client: EngineTransport) -> None:
    done = list[str]()

    async def handler(connection: Connection) -> None:
        if connection.number == 0:
            await connection.request()
            await connection.send(WHOLE)
            await connection.request()  # the kept connection is closed while the next request is on its way
            return
        await connection.request()
        await connection.send(WHOLE[:-2])
        if connection.number == 1:
            await connection.request()

    def asked(name: str) -> httpx.Request:
        return httpx.Request("POST", "http://engine/x", content=b"0", extensions={"done": lambda: done.append(name)})

    async def until_told(count: int) -> None:
        async with asyncio.timeout(30):
            while len(done) < count:
                await asyncio.sleep(0.01)

    async with engine(client.at, handler):
        first = await client.handle_async_request(asked("whole"))
        await until_told(1)
        assert await first.aread() == b"true"
        second = await client.handle_async_request(asked("left"))
        assert done == ["whole"], "it was sent once more, and is not there yet"
        await second.aclose()
        await until_told(2)
        third = await client.handle_async_request(asked("broken off"))
        with pytest.raises(httpx.ReadError):
            await third.aread()
    assert done == ["whole", "left", "broken off"]
