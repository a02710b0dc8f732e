"""What attackers send to a server on the open net, over real sockets, byte by byte.

docs/security.md lists each threat with its test, those of other files too.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from .test_listening import ASK, BODY, Server, engine_at, post, recipe, serving

NEXT = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = NEXT[:-2] + b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with engine_at(tmp_path_factory.mktemp("attacks") / "e.sock") as engine, serving(engine, recipe()) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.engine.seen.clear()
    return running


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)


def chunked(*headers: bytes, body: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"".join(line + b"\r\n" for line in (*headers, b"Transfer-Encoding: chunked")) + b"\r\n" + body


WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"Content-Length: 5"),
        post(b"Content-Length: %d, 5" % len(BODY)),
        post(b"Content-Length: +5"),
        post(b"Content-Length: 0x5"),
        post(b"Content-Length : 5"),
        post(b"Transfer-Encoding: gzip, chunked"),
        post(b"Transfer-Encoding: identity"),
        post(b"Transfer-Encoding: xchunked"),
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        post(b"X-A: a\x00b"),
        post(b"X\xff: a"),
        post(b"X A: a"),
        post(b": a"),
        post(b"Host: evil.example"),
        b"POST /v1/chat/completions HTTP/1.1\rHost: localhost\r\r",
        b"POST  /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/chat completions HTTP/1.1\r\nHost: localhost\r\n\r\n",
        chunked(body=b"-5\r\nabc\r\n0\r\n\r\n"),
        chunked(body=b"0x5\r\nabcde\r\n0\r\n\r\n"),
        chunked(body=b"5\r\nabcdeXX0\r\n\r\n"),
        chunked(body=b"f" * 40 + b"\r\n"),
    ],
)
def test_a_request_whose_end_two_servers_may_see_in_two_places_is_refused_and_the_connection_closed(
    server: Server, request_bytes: bytes
) -> None:
    """Request smuggling: what comes behind is not answered as a request, and nothing reaches the engine (RFC 9112 11.2)."""
    answer = server.ask(request_bytes + NEXT + LAST)
    assert statuses(answer) in ([b"400"], [b"413"], [b"431"], [b"501"], [])
    assert server.engine.seen == []


def test_chunks_win_over_a_length_and_nothing_is_left_over_for_another_request(server: Server) -> None:
    """With both, the chunks count (RFC 9112 6.1), and the connection is not used again for what the length might have cut."""
    both = chunked(b"Content-Length: 3", body=WHOLE)
    answers = statuses(server.ask(both + LAST))
    assert answers in ([b"400"], [b"200"], [b"200", b"200"])
    assert server.engine.seen == [] or [json.loads(one)["messages"] for one in server.engine.seen] == [ASK["messages"]]
    hidden = b"0\r\n\r\nGET /v1/models/hidden HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = statuses(server.ask(chunked(b"Content-Length: %d" % len(hidden), body=hidden)))
    assert answers in ([b"400"], [b"400", b"404"])  # an empty body, and at most what stands behind its last chunk


def test_extensions_of_chunks_and_fields_behind_them_say_nothing(server: Server) -> None:
    body = b"%x;a=b\r\n%s\r\n0;x\r\nContent-Length: 7\r\nX-Late: 1\r\n\r\n" % (len(BODY), BODY)
    assert statuses(server.ask(chunked(body=body) + LAST)) == [b"200", b"200"]


@pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n\t", b" \r\n \t "])
def test_a_folded_line_is_one_line(server: Server, fold: bytes) -> None:
    """Obsolete folding (RFC 9112 5.2): no line of it is a field of its own, and the body ends where it would without."""
    for folded in (b"X-A: one" + fold + b"Content-Length: 3", b"X-A:" + fold + b"Transfer-Encoding: chunked"):
        assert statuses(server.ask(post(folded) + LAST)) == [b"200", b"200"]
    chunks = chunked(body=WHOLE).replace(b"Transfer-Encoding: ", b"Transfer-Encoding:" + fold)
    assert statuses(server.ask(chunks + LAST)) in ([b"400"], [b"200", b"200"])


def test_http_2_is_told_that_this_is_http_1(server: Server) -> None:
    assert statuses(server.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))[-1:] == [b"400"]


def test_lines_that_end_in_a_bare_line_feed_are_one_request_or_none(server: Server) -> None:
    answers = statuses(server.ask(post().replace(b"\r\n", b"\n") + LAST))
    assert answers in ([b"400"], [b"200", b"200"])


@pytest.mark.parametrize("host", [b"localhost\r\nHost: localhost", b"localhost\r\nHost: evil.example", b"", b"localhost, evil"])
def test_two_hosts_or_none_are_refused(server: Server, host: bytes) -> None:
    assert statuses(server.ask(b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" + LAST))[:1] in ([b"400"], [b"421"])


@pytest.mark.parametrize(
    "target",
    [
        b"http://localhost@evil.example/v1/models", b"http://evil.example:80/v1/models", b"http://[::2]/v1/models",
        b"http://localhost%2eevil.example/v1/models", b"http:///v1/models", b"HTTP://EVIL.EXAMPLE/v1/models",
    ],
)  # fmt: skip
def test_a_whole_url_names_the_server_too(server: Server, target: bytes) -> None:
    assert statuses(server.ask(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == [b"421"]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/models/..%2f..%2fmetrics", b"/v1//chat/completions", b"/v1/./chat/completions", b"/v1/%63hat/../invocations",
        b"/v1/chat%2Fcompletions/", b"/%2fv1/models", b"/v1/models;a=b", b"*", b"localhost:8000", b"/v1/%ff%fe", b"/v1/%00",
        b"/v1/chat/completions%20", b"/\\v1\\models", b"/%252e%252e/metrics", b"/invocations", b"/v1/load_lora_adapter",
        b"/pause", b"/collective_rpc", b"/v1/audio/transcriptions", b"/v1/files", b"/v1/batches", b"/pooling",
        b"/classify", b"/score",
        b"/start_profile", b"/update_weights", b"/init_weights_update_group", b"/abort_requests", b"/tokenizer_info", b"/mcp",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_no_other_path_of_the_engine_is_reached_however_it_is_written(server: Server, method: bytes, target: bytes) -> None:
    request = post(b"Connection: close").replace(b"POST /v1/chat/completions", method + b" " + target)
    assert statuses(server.ask(request)) in ([b"404"], [b"405"], [b"400"])
    assert server.engine.seen == []


def test_what_vllm_obeys_in_headers_is_not_passed_on(server: Server) -> None:
    odd = [
        b"X-Vllm-Priority: -9", b"X-Request-Id: mine", b"X-data-parallel-rank: 3", b"X-Session-ID: s", b"Cookie: a=b",
        b"Authorization: Bearer k", b"X-Forwarded-For: 1.2.3.4", b"X-Vllm-Lora: x", b"Forwarded: for=1", b"Connection: close",
    ]  # fmt: skip
    server.engine.heads.clear()
    assert statuses(server.ask(post(*odd))) == [b"200"]
    names = {line.partition(b":")[0].lower() for head in server.engine.heads for line in head.split(b"\r\n")[1:] if line}
    ours = {b"host", b"accept", b"accept-encoding", b"connection", b"user-agent", b"content-length", b"content-type"}
    assert server.engine.heads and names <= ours


def test_a_body_that_comes_too_slowly_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.gateway import receiving

    monkeypatch.setattr(receiving, "_BODY_TIMEOUT", 0.2)
    head, _, body = post().partition(b"\r\n\r\n")
    with server.connect() as client:
        client.sendall(head + b"\r\n\r\n" + body[:5])
        client.settimeout(30)
        assert statuses(client.recv(65536)) == [b"408"]
    assert server.engine.seen == []


@pytest.mark.parametrize("length", [b"1000001", b"99999999999999999999"])
def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(server: Server, length: bytes) -> None:
    head = post().partition(b"Content-Length")[0] + b"Content-Length: " + length + b"\r\n\r\n"
    with server.connect() as client:
        client.sendall(head)
        client.settimeout(30)
        assert statuses(client.recv(65536)) in ([b"413"], [b"400"])


def test_chunks_without_end_are_refused_at_the_limit(server: Server) -> None:
    piece = b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)
    with server.connect() as client:
        client.settimeout(30)
        try:
            client.sendall(chunked(body=b"") + piece * 100)
        except OSError:  # closed while it was still sending
            return
        assert statuses(client.recv(65536)) == [b"413"]


def test_many_connections_that_send_nothing_keep_nobody_out(server: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    try:
        for one in idle:
            one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert statuses(server.ask(post())) == [b"200"]
    finally:
        for one in idle:
            one.close()
