"""The port and its connections, over real sockets: who may have it, how long a client may take, and how it all ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench.errors import RecipeError
from llmbench.gateway import Access, Catalogue, Served, build, connection, listening
from llmbench.gateway.limit import Open
from llmbench.gateway.relay import Upstream
from llmbench.recipe import ServeRecipe, Variant

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps(ASK).encode()
PIECE = b'data: {"model":"e","choices":[{"index":0,"delta":{"content":"' + b"x" * 100 + b'"}}]}\n\n'


class Engine:
    """A server on a Unix socket that answers as vLLM does: with an event every `gap` seconds, `count` times."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.gap, self.count = socket, 0.0, 3
        self.seen: list[bytes] = []
        self.heads: list[bytes] = []
        self.given_up = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.heads.append(head)
        self.seen.append(await reader.readexactly(length))
        try:
            if b'"stream":true' not in self.seen[-1]:
                data = b'{"model":"e","choices":[]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data))
                await writer.drain()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(self.count):
                writer.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
                await writer.drain()
                await asyncio.sleep(self.gap)
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
        except ConnectionError:
            self.given_up += 1
        finally:
            writer.close()


@dataclass
class Server:
    """The gateway in front of the engine, on a port of its own."""

    port: int
    engine: Engine
    open: Open
    said: list[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def ask(self, request: bytes) -> bytes:
        """The answer to some bytes, until the server closes or has nothing more to say."""
        with self.connect() as client:
            client.sendall(request)
            client.settimeout(1.0)
            found = b""
            try:
                while piece := client.recv(65536):
                    found += piece
            except TimeoutError:
                pass
            return found


def recipe(**gateway: Any) -> ServeRecipe:
    return ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": {"port": 0} | gateway})


@contextmanager
def engine_at(path: Path) -> Iterator[Engine]:
    """The engine's server in a thread of its own."""
    engine, ready, stop = Engine(path), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        async with await asyncio.start_unix_server(engine.answer, path, backlog=1000):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    ready.wait(30)
    try:
        yield engine
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def serving(engine: Engine, document: ServeRecipe, *, most: int = 1000) -> Iterator[Server]:
    upstream, said = Upstream.at(engine.socket, lambda: None), list[str]()
    open = Open(most)
    app = build(
        Catalogue([Served(Variant(name="m"), "e", {})], context=64),
        upstream,
        access=Access(None, listening.hosts(document.gateway)),
        open=open,
    )
    with listening.listener_of(document) as listener:
        port = listener.getsockname()[1]
        with listening.answering(app, listener, document, upstream, open, said.append):
            yield Server(port, engine, open, said)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engine_at(tmp_path / "e.sock") as engine:
        yield engine


@pytest.fixture
def server(engine: Engine) -> Iterator[Server]:
    with serving(engine, recipe()) as server:
        yield server


def post(*headers: bytes, version: bytes = b"1.1", host: bytes = b"Host: 127.0.0.1\r\n", body: bytes = BODY) -> bytes:
    head = b"POST /v1/chat/completions HTTP/%s\r\n%sContent-Type: application/json\r\n" % (version, host)
    return head + b"".join(h + b"\r\n" for h in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"TLS/1.0"])
def test_an_upgrade_that_is_not_taken_leaves_the_request_as_it_was(server: Server, upgrade: bytes) -> None:
    answer = server.ask(
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABkAAQAAP__")
    )
    assert answer.startswith(b"HTTP/1.1 200 ") and json.loads(server.engine.seen[0])["messages"] == ASK["messages"]


def test_what_is_done_between_a_requests_arrival_and_its_handler_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = connection.Connection.data_received

    def slowly(self: connection.Connection, data: bytes) -> None:
        read(self, data)
        time.sleep(0.2)  # as many others that were read with it

    monkeypatch.setattr(connection.Connection, "data_received", slowly)
    answer = server.ask(post(b"Connection: close"))
    found = re.search(rb"server-timing: .*accept;dur=([0-9.]+)", answer)
    assert answer.startswith(b"HTTP/1.1 200 ") and found is not None and float(found[1]) >= 199


def test_a_body_in_chunks_and_one_that_waits_for_leave_are_read(server: Server) -> None:
    head = post().partition(b"Content-Length")[0]
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert server.ask(chunked).startswith(b"HTTP/1.1 200 ")
    with server.connect() as client:
        head, _, body = post(b"Expect: 100-continue").partition(b"\r\n\r\n")
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_requests_one_behind_the_other_are_answered_in_turn(server: Server) -> None:
    assert server.ask(post() + b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + post()).count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        (b"GET /v1/models HTTP/1.0", b"", b"200"),
        (b"GET /v1/models HTTP/1.1", b"", b"400"),
        (b"HEAD /v1/models HTTP/1.1", b"127.0.0.1", b"200"),
        (b"GET http://127.0.0.1:%d/v1/models HTTP/1.1", b"evil.example", b"200"),
        (b"GET http://evil.example/v1/models HTTP/1.1", b"127.0.0.1", b"421"),
        (b"GET /v1/models HTTP/1.1", b"[::1]:80", b"200"),
        (b"GET /v1/models HTTP/1.1", b"models.example.org", b"200"),
        (b"GET /v1/models HTTP/1.1", b"other.example.org", b"421"),
        (b"SSH-2.0-OpenSSH_9", b"", b"400"),
    ],
)
def test_whom_a_request_calls_by_which_name(engine: Engine, request_line: bytes, host: bytes, status: bytes) -> None:
    with serving(engine, recipe(allowed_hosts=["Models.Example.org"])) as server:
        line = request_line % server.port if b"%d" in request_line else request_line
        answer = server.ask(line + b"\r\n" + (b"Host: " + host + b"\r\n" if host else b"") + b"\r\n")
    assert answer.split(b" ")[1] == status
    assert status == b"200" or b'{"error":{"message":' in answer


def test_a_request_that_does_not_come_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD", 0.2)
    for begun in (b"", b"GET /v1/models HT", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx: "):
        with server.connect() as client:
            client.sendall(begun)
            assert client.recv(100) == b""
    with server.connect() as client:  # after a whole one, on the same connection
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in client.recv(65536)
        client.sendall(b"GET /v1/mod")
        assert client.recv(100) == b""


def test_an_answer_that_takes_longer_than_the_head_may_is_not_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD", 0.1)
    server.engine.gap = 0.15
    answer = httpx.post(f"http://127.0.0.1:{server.port}/v1/chat/completions", json=ASK | {"stream": True}, timeout=30)
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fields", [1, 5000])
def test_headers_without_end_are_refused(server: Server, fields: int) -> None:
    line = b"x: " + b"a" * (1_000_000 // fields) + b"\r\n"
    try:
        answer = server.ask(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + line * fields + b"\r\n")
    except OSError:  # closed while it was still sending
        return
    assert answer == b"" or b" 431 " in answer


def test_a_client_that_does_not_read_is_let_go_and_the_engine_with_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD", 0.3)
    server.engine.count = 200_000
    with server.connect() as client:
        client.sendall(post(body=json.dumps(ASK | {"stream": True}).encode()))
        end = time.monotonic() + 30
        while not server.engine.given_up and time.monotonic() < end:
            time.sleep(0.05)
    assert server.engine.given_up == 1
    assert server.open.count == 0


def test_a_client_that_reads_slowly_gets_all_of_its_stream(server: Server) -> None:
    server.engine.count = 60_000  # more than the buffers of both connections hold
    with server.connect() as client:
        client.sendall(post(b"Connection: close", body=json.dumps(ASK | {"stream": True}).encode()))
        time.sleep(0.5)
        found = b"".join(iter(lambda: client.recv(65536), b""))
    assert found.count(b"data: {") == 60_000 and found.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_stream_in_http_1_0_ends_with_its_connection_and_has_no_chunks(server: Server) -> None:
    answer = server.ask(post(version=b"1.0", body=json.dumps(ASK | {"stream": True}).encode()))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower() and body == PIECE.replace(b'"e"', b'"m"') * 3 + b"data: [DONE]\n\n"


def test_streams_asked_for_one_behind_the_other_stay_on_their_own_connections(server: Server) -> None:
    """What is sent in one go is begun while the connection of another client is being read."""
    server.engine.gap = 0.02
    body = json.dumps(ASK | {"stream": True}).encode()
    with server.connect() as one, server.connect() as other:
        for client in (one, other):
            client.sendall(post(body=body) * 3)
        for client in (one, other):
            client.settimeout(30)
            found = b""
            while found.count(b"[DONE]") < 3:
                found += client.recv(65536)
            assert found.count(b"HTTP/1.1 200 ") == 3 and found.count(b"data: {") == 9


def test_a_client_that_leaves_ends_its_stream_at_the_engine_at_once(server: Server) -> None:
    server.engine.gap, server.engine.count = 0.02, 500
    with server.connect() as client:
        client.sendall(post(body=json.dumps(ASK | {"stream": True}).encode()))
        assert b" 200 " in client.recv(100)
    end = time.monotonic() + 30
    while not server.engine.given_up and time.monotonic() < end:
        time.sleep(0.02)
    assert server.engine.given_up == 1 and server.open.count == 0


def test_many_streams_at_once_all_come_whole(server: Server) -> None:
    server.engine.gap = 0.2

    async def ask(count: int) -> list[bytes]:
        async def one() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(post(b"Connection: close", body=json.dumps(ASK | {"stream": True}).encode()))
            try:
                return await reader.read(-1)
            finally:
                writer.close()

        return await asyncio.gather(*(one() for _ in range(count)))

    answers = asyncio.run(ask(600))
    assert all(b" 200 " in answer[:20] and b"[DONE]" in answer for answer in answers)


def test_a_port_can_be_had_again_at_once_and_never_twice(engine: Engine) -> None:
    with serving(engine, recipe()) as server:
        client = server.connect()
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in client.recv(65536)
        port = server.port
        with pytest.raises(RecipeError, match="is in use"), listening.listener_of(recipe(port=port)):
            pass
    client.close()  # the server closed first, so the port lingers on its side
    with (
        listening.listener_of(recipe(port=port)),  # taken, not listening yet, as while vLLM loads
        pytest.raises(RecipeError, match="is in use"),
        listening.listener_of(recipe(port=port)),
    ):
        pass
    for _ in range(2):
        with serving(engine, recipe(port=port)) as server:
            assert server.ask(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def stream_in_thread(server: Server) -> tuple[threading.Thread, list[str]]:
    """A stream that has begun."""
    found: list[str] = []

    def work() -> None:
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        with httpx.stream("POST", url, json=ASK | {"stream": True}, timeout=60) as response:
            found.extend(response.iter_text())

    thread = threading.Thread(target=work)
    thread.start()
    while not found:
        time.sleep(0.01)
    return thread, found


def test_an_answer_that_runs_when_the_server_ends_is_given_its_time(engine: Engine) -> None:
    engine.gap, engine.count = 0.3, 4
    with serving(engine, recipe()) as server:
        thread, found = stream_in_thread(server)
    thread.join(30)
    assert "".join(found).endswith("data: [DONE]\n\n")
    assert "1 running answer" in server.said[0]


def test_an_answer_that_takes_longer_ends_in_an_error_event(engine: Engine) -> None:
    engine.gap, engine.count = 0.1, 1000
    with serving(engine, recipe(shutdown_timeout=0.3)) as server:
        thread, found = stream_in_thread(server)
    thread.join(30)
    last = json.loads("".join(found).strip().rpartition("data: ")[2])
    assert "stopped before this answer was complete" in last["error"]["message"]


def test_a_last_answer_that_ends_while_it_is_to_be_cut_off_is_no_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(engine, recipe()) as server:
        assert server.ask(post(b"Connection: close")).startswith(b"HTTP/1.1 200 ")
        join = threading.Thread.join
        monkeypatch.setattr(threading.Thread, "join", lambda thread, _=None: join(thread))
        monkeypatch.setattr(threading.Thread, "is_alive", lambda _: True)  # as it was a moment before its loop was closed


@pytest.mark.parametrize("signals", [["SIGTERM"], ["SIGTERM", "SIGTERM"]])
def test_signals_of_a_supervisor_end_the_block_in_order(signals: list[str]) -> None:
    program = """
        import os, signal, sys, time
        from contextlib import suppress
        from llmbench.cli.serve import _Hangup, _signals, _Told
        with suppress(_Told), _signals(_Hangup()):
            try:
                os.kill(os.getpid(), getattr(signal, sys.argv[1]))
                time.sleep(30)
            finally:
                with suppress(KeyboardInterrupt):
                    for name in sys.argv[2:]:
                        os.kill(os.getpid(), getattr(signal, name))
                        time.sleep(30)
                print("in order", flush=True)
    """
    lines = "\n".join(line.removeprefix("        ") for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", lines, *signals], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in order\n", "")


HANGUP = """
    import fcntl, sys, termios, time
    from contextlib import suppress
    from llmbench.cli.serve import _Hangup, _signals, _Told
    if sys.stdin.isatty():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    hangup, said = _Hangup(), "ended"
    with suppress(_Told), _signals(hangup):
        print("ready", flush=True)
        while not hangup.came:
            time.sleep(0.05)
        said = "reload"
    open(sys.argv[1], "w").write(said)
"""


def hung_up(folder: Path, terminal: int | None, send: Callable[[subprocess.Popen[bytes]], None]) -> str:
    """What SIGHUP is taken for by a program whose input, output and errors are a terminal, or none of them is."""
    argv = [sys.executable, "-c", textwrap.dedent(HANGUP), str(folder / "said")]
    other = subprocess.PIPE if terminal is None else terminal
    with subprocess.Popen(argv, stdin=other, stdout=other, stderr=other, start_new_session=True) as process:
        if terminal is None:
            assert process.stdout is not None
            process.stdout.readline()
        send(process)
        process.wait(60)
    return (folder / "said").read_text()


def test_sighup_from_a_supervisor_is_a_reload(tmp_path: Path) -> None:
    assert hung_up(tmp_path, None, lambda process: process.send_signal(signal.SIGHUP)) == "reload"


def test_sighup_of_a_terminal_that_stays_is_a_reload_and_that_of_a_closed_one_the_end(tmp_path: Path) -> None:
    def kill(process: subprocess.Popen[bytes]) -> None:
        assert b"ready" in os.read(ours, 100)
        process.send_signal(signal.SIGHUP)

    ours, theirs = os.openpty()
    try:
        assert hung_up(tmp_path, theirs, kill) == "reload"
    finally:
        os.close(ours)
        os.close(theirs)

    def close(_: subprocess.Popen[bytes]) -> None:
        os.close(theirs)
        assert b"ready" in os.read(ours, 100)
        os.close(ours)

    ours, theirs = os.openpty()
    assert hung_up(tmp_path, theirs, close) == "ended"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8/v1"),
        ("0.0.0.0", "http://127.0.0.1:8/v1"),
        ("::", "http://[::1]:8/v1"),
        ("2001:db8::5", "http://[2001:db8::5]:8/v1"),
        ("box.example", "http://box.example:8/v1"),
    ],
)
def test_a_server_is_reached_at_an_address_that_can_be_asked(host: str, url: str) -> None:
    assert listening.base_url(host, 8) == url and httpx.URL(url).port == 8
