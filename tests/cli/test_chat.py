"""`llmbench chat`: a conversation from a pipe and at a terminal, on a server that remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typer.testing import CliRunner, Result

from llmbench.cli import chat as verb
from llmbench.errors import EndpointError, LlmbenchError

SOURCE = {"n": 1, "source": "a.pdf", "page": 3, "title": "Kettle\x1b[31m", "text": "red"}


class Server:
    """Echoes; a model that thinks first, one with passages, one that never ends."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.url = ""

    async def models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": name} for name in ("echo", "thinks", "rag", "hangs", "hostile")]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body["messages"])
        question = body["messages"][-1]["content"]
        if question == "too long":
            return JSONResponse({"error": {"message": "It does not fit."}}, status_code=400)
        return StreamingResponse(self.events(body["model"], question), media_type="text/event-stream")

    async def events(self, model: str, question: str) -> AsyncIterator[str]:
        texts = {"thinks": f"<think>\nHm.\n</think>\n\nIt is {question}", "hostile": "a\x1b]52;c;ZQ==\x07b\u202ec\nd"}
        if model == "rag":
            yield event({"choices": [], "sources": [SOURCE]})
        text = texts.get(model, f"You said {question}")
        for at in range(0, len(text), 3):
            yield event({"choices": [{"delta": {"content": text[at : at + 3]}}]})
        if model == "hangs":
            await asyncio.sleep(3600)
        yield event({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 7}})
        yield "data: [DONE]\n\n"


def event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    fake = Server()
    app = Starlette(routes=[Route("/v1/models", fake.models), Route("/v1/chat/completions", fake.chat, methods=["POST"])])
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.01)
    fake.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    yield fake
    running.should_exit = running.force_exit = True
    thread.join(10)


def chat(server: Server, typed: str | bytes, *arguments: str) -> Result:
    cli = typer.Typer()
    verb.register(cli)
    server.asked.clear()
    return CliRunner().invoke(cli, ["--url", server.url, *arguments], input=typed)


def test_each_line_is_a_question_and_the_conversation_is_sent_along(server: Server) -> None:
    done = chat(server, "one?\n\ntwo?\n/reset\nthree?\n/quit\nnever\n", "--system", "Be short.")
    assert (done.exit_code, done.stdout) == (0, "You said one?\nYou said two?\nYou said three?\n")
    system = {"role": "system", "content": "Be short."}
    first = [system, {"role": "user", "content": "one?"}]
    second = [*first, {"role": "assistant", "content": "You said one?"}, {"role": "user", "content": "two?"}]
    assert server.asked == [first, second, [system, {"role": "user", "content": "three?"}]]


def test_reasoning_is_neither_printed_nor_sent_back(server: Server) -> None:
    done = chat(server, "one\ntwo\n", "thinks")
    assert done.stdout == "It is one\nIt is two\n"
    assert [message["content"] for message in server.asked[1]] == ["one", "It is one", "two"]


def test_sources_stand_under_the_answer(server: Server) -> None:
    assert chat(server, "one\n", "rag").stdout == "You said one\n  [1] a.pdf page 3  Kettle\\x1b[31m\n"


def test_a_terminal_obeys_nothing_that_a_model_writes(server: Server) -> None:
    assert chat(server, "one\n", "hostile").stdout == "a\\x1b]52;c;ZQ==\\x07b\\u202ec\nd\n"


def test_json_is_one_document(server: Server) -> None:
    found = json.loads(chat(server, "one\ntwo\n", "rag", "--json").stdout)
    assert found["model"] == "rag" and [turn["answer"] for turn in found["turns"]] == ["You said one", "You said two"]
    assert found["turns"][0]["sources"] == [SOURCE] and found["turns"][0]["completion_tokens"] == 7


def test_what_cannot_be_asked_is_an_error(server: Server) -> None:
    unknown = chat(server, "one\n", "gone").exception
    assert isinstance(unknown, EndpointError) and "has no model gone. Available: echo, thinks" in str(unknown)
    long = chat(server, "one\ntoo long\n")
    assert isinstance(long.exception, EndpointError) and "It does not fit." in str(long.exception)
    assert long.stdout == "You said one\n", "what was answered before is not lost"
    assert isinstance(chat(server, b"caf\xe9\n").exception, LlmbenchError)


def test_ctrl_c_stops_an_answer_and_not_the_conversation(server: Server) -> None:
    server.asked.clear()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "llmbench", "chat", "hangs", "--url", server.url])
    person = Terminal(terminal)
    try:
        person.wait_for("> ")
        person.type(b"one\n")
        person.wait_for("You said one")
        person.type(b"\x03")
        person.wait_for("Stopped.")
        person.wait_for("> ")
        person.type(b"two\n")
        person.wait_for("You said two")
        person.type(b"\x03")
        person.wait_for("Stopped.")
        person.wait_for("> ")
        person.type(b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(terminal)
    assert [message["content"] for message in server.asked[1]] == ["one", "You said one", "two"]


class Terminal:
    """What a person at a terminal sees and types."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._read = ""

    def wait_for(self, words: str) -> None:
        """Reads on until the words come; fails after a minute."""
        while words not in self._read:
            ready, _, _ = select.select([self._descriptor], [], [], 60)
            assert ready, self._read
            self._read += os.read(self._descriptor, 4096).decode()
        self._read = self._read.partition(words)[2]

    def type(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._descriptor, keys)
