"""An endpoint of models at different speeds, the program of app/ opened on it, and a real browser to look at it.

The endpoint is the one-method seam under these tests; test_gateway.py has the real one behind the same page.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests import warm

from llmbench.cli import app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


HOSTILE = (
    "<script>window.harmed='script'</script><img src=x onerror=\"window.harmed='img'\"> "
    "[press](javascript:window.harmed='link') ![pixel](http://203.0.113.9/pixel.png) <svg onload=\"window.harmed='svg'\"> "
    "<iframe srcdoc=\"<script>parent.harmed='frame'</script>\"></iframe> [file](file:///etc/passwd) ${window.harmed='js'} "
    "{{value}} `</code><script>window.harmed='code'</script>` [1]"
)
CAMERA = "The weight of the Belvi camera is 240 grams. It costs 81 crowns. The warranty lasts 24 months."
TRAP = "The Dormisen camera weighs 310 grams.<script>window.harmed='passage'</script>"
REFUND = "A refund takes 14 days. The shop keeps the receipt for 2 years."
SOURCES = [
    {"n": 1, "source": "products/belvi-camera.md", "title": "Belvi camera", "score": 0.8123, "text": CAMERA},
    {"n": 2, "source": "products/dormisen.md", "title": "Dormisen <b>camera</b>", "score": 0.6021, "text": TRAP},
    {"n": 3, "source": "policies/refund-policy.md", "title": "Refund policy", "score": 0.331, "text": REFUND},
]


_CUT_OFF = ("AbortError: signal is aborted", "Unexpected error Connection errored out")
"""What Gradio logs of an event that was under way when a page was loaded again, such as its look at the endpoint."""


class Server:
    """Models that are fast, slow, hostile, that hang or fail, and a slow one with passages. It remembers its requests."""

    hostile = HOSTILE
    sources = tuple(SOURCES)
    models = ("fast", "slow", "hostile", "hangs", "fails", "slow-rag")

    def __init__(self) -> None:
        self.rag: dict[str, str] = {}
        """The pipeline of a model that retrieves."""
        self.requests: list[dict[str, Any]] = []
        self.left: list[str] = []
        """Models whose answer nobody waited for."""
        self.base_url = ""
        self.stop: Callable[[], None] = lambda: None
        """Ends it before its time."""
        self.dead = ""
        """Why the engine behind this server does not answer, as `/health` says; it lists its models still."""
        self.key = ""
        """The API key that it asks for."""
        self.pause = 0.15
        """Seconds between two words of a slow model."""
        self.votes: list[dict[str, Any]] | None = None
        """What was said to `/v1/feedback`; None for a server that has no such path."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._list),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/feedback", self._feedback, methods=["POST"]),
            ]
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"error": {"message": self.dead}}, status_code=503 if self.dead else 200)

    async def _list(self, request: Request) -> Response:
        if self._is_stranger(request):
            return JSONResponse({"error": {"message": "Who are you?"}}, status_code=401)
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self.models]})

    def _is_stranger(self, request: Request) -> bool:
        return bool(self.key) and request.headers.get("authorization") != f"Bearer {self.key}"

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "rag": self.rag.get(name)}

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if self._is_stranger(request):
            return JSONResponse({"error": {"message": "Who are you?"}}, status_code=401)
        if body["model"] == "fails":
            return JSONResponse({"error": {"message": "the engine <b>died</b>"}}, status_code=503)
        votable = {"x-request-id": f"r{len(self.requests)}", "x-llmbench-variant": body["model"]}
        headers = None if self.votes is None else votable
        return StreamingResponse(self._events(body), media_type="text/event-stream", headers=headers)

    async def _feedback(self, request: Request) -> Response:
        if self.votes is None:
            return JSONResponse({"error": {"message": "No request of this id"}}, status_code=404)
        self.votes.append(await request.json())
        return JSONResponse({"object": "feedback"})

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        model, question = body["model"], body["messages"][-1]["content"]
        if model.endswith("rag"):
            yield _event({"choices": [], "sources": self.sources})
        if model == "hangs":
            yield _event({"choices": [{"delta": {"content": "Let me think"}}]})
            try:
                await asyncio.sleep(3600)
            finally:
                self.left.append(model)
        words = _answer(model, question).split(" ")
        for word in words:
            yield _event({"choices": [{"delta": {"content": word + " "}}]})
            await asyncio.sleep(self.pause if model.startswith("slow") else 0.01)
        yield _event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 96, "completion_tokens": len(words)}})
        yield "data: [DONE]\n\n"


def _answer(model: str, question: str) -> str:
    if model == "hostile":
        return HOSTILE
    if model.endswith("rag"):
        return "The **Belvi camera** weighs 240 grams [1]. The Dormisen camera is heavier, at 310 grams, so take the Belvi [2]."
    return f"You asked: {question} I would say that it weighs as much as any camera does, which is not very much at all."


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """The server on a port of this machine; 0 takes a free one."""
    fake = Server()
    server = uvicorn.Server(uvicorn.Config(fake.app(), host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    fake.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"

    def stop() -> None:
        server.should_exit = server.force_exit = True
        thread.join(10)

    fake.stop = stop
    try:
        yield fake
    finally:
        stop()


@pytest.fixture(scope="session")
def program() -> ModuleType:
    """The module `main` of app/."""
    return app.program()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium: LLMBENCH_CHROMIUM, one in PATH, or playwright's own. Without any the test fails and says so.

    One a file and no longer: while it is open its event loop counts as running in this thread, and no async test can run.
    """
    from playwright.sync_api import Error, sync_playwright

    path = os.environ.get("LLMBENCH_CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=path, args=_ARGS)
        except Error as error:
            pytest.fail(
                "The app's tests need a browser. Install one (apt-get install chromium, or playwright install chromium), "
                f"or name it in LLMBENCH_CHROMIUM.\n{error.message[:400]}"
            )
        yield found
        found.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of its own: no cookies, no storage, 1280 by 800.

    Whatever a test does, its pages must ask no address but this machine's, and log no error.
    """
    made = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    made.set_default_timeout(60_000)
    asked: list[str] = []
    errors: list[str] = []
    made.on("request", lambda request: asked.append(request.url))
    made.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    made.on("weberror", lambda error: errors.append(str(error.error)))
    yield made
    made.close()
    assert not [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert not [error for error in errors if not error.startswith(_CUT_OFF)]


@pytest.fixture(scope="session")
def write() -> Callable[[Locator, str], None]:
    """Types until it stays: on a busy machine Gradio sets a field that just opened to its old value for a moment more."""

    def until_it_stays(field: Locator, text: str) -> None:
        for _ in range(20):
            field.fill(text)
            field.page.wait_for_timeout(250)
            if field.input_value() == text:
                return
        pytest.fail(f"the field does not take {text}")

    return until_it_stays


@pytest.fixture(scope="session")
def serve() -> Any:
    """`serving`, for a test whose endpoint has its own passages."""
    return serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The fake endpoint."""
    with serving() as running:
        yield running


@pytest.fixture
def brisk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow models answer at once, for a test that is not about answers under way."""
    monkeypatch.setattr(server, "pause", 0.01)


@contextmanager
def opened(*arguments: str, home: Path) -> Iterator[str]:
    """`llmbench app` in a process of its own, until the block ends; gives its address."""
    environment = os.environ | {"LLMBENCH_HOME": str(home), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    command = ("app", "--port", "0", *arguments)
    process = warm.Process("app", warm.LLMBENCH, *command, env=environment, stderr=subprocess.STDOUT)
    with process:
        said = ""
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if "The app is open at " in line:
                    yield line.split("The app is open at ")[1].split()[0]
                    return
            pytest.fail(f"llmbench app ended before it was open:\n{said}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def open_app() -> Any:
    """`opened`, for a test that opens the app its own way."""
    return opened


@pytest.fixture(scope="session")
def app_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of the app on the fake endpoint: conversations, and nothing else."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def address(server: Server, app_home: Path) -> Iterator[str]:
    """The app on the fake endpoint; one for all tests that need no other, each with a browser of its own."""
    with opened("--url", server.base_url, home=app_home) as url:
        yield url
