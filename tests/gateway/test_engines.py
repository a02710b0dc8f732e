"""Two real vLLMs behind one gateway: proven, asked, one of them killed, and back again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from llmbench import recipe
from llmbench.gateway import Gateway, started
from llmbench.recipe import ServeRecipe, Variant

KEY = "sesame-open-1234"


class Mark(Protocol):
    """The fixture of tests/conftest.py."""

    env: dict[str, str]

    def left(self, seconds: float = 30.0) -> dict[int, str]: ...


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def engine(document: Path, port: int, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`llmbench serve --engine-only`, ended by SIGTERM."""
    argv = [sys.executable, "-m", "llmbench", "serve", str(document), "--engine-only", "--listen", f"127.0.0.1:{port}"]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def until(true: Callable[[], bool], seconds: float = 400.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


class Users:
    """Eight at a time who ask until they are told to stop; what each got."""

    def __init__(self, base_url: str) -> None:
        self.url, self.end = f"{base_url}/chat/completions", threading.Event()
        self.answers: list[str] = []
        """Of questions that are not streamed."""
        self.streams: list[tuple[bool, bool]] = []
        """Whether each began, and whether it was complete."""
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=120) as http:
            while not self.end.is_set():
                number += 8
                asked = {"role": "user", "content": f"Question {number}: how heavy is the Alba kettle?"}
                body = {
                    "model": ("base", "adapter")[number // 8 % 2],
                    "messages": [asked],
                    "max_tokens": 40,
                    "ignore_eos": True,
                }
                if number % 2:
                    response = http.post(self.url, json=body)
                    (self.answers if response.status_code == 200 else self.lost).append(response.text)
                else:
                    with http.stream("POST", self.url, json=body | {"stream": True}) as stream:
                        text = stream.read().decode()
                        self.streams.append(('"content"' in text, "[DONE]" in text))
                        if stream.status_code != 200:
                            self.lost.append(text)

    def stop(self) -> None:
        self.end.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_engine_that_is_killed_costs_no_request_that_had_not_begun_and_comes_back_proven(
    tmp_path: Path, home: Path, lora: Path, mark: Mark
) -> None:
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    own = {"dtype": "float32", "cpu_kv_cache_gib": 0.25, "api_key": KEY}
    variants = [{"name": "base"}, {"name": "adapter", "adapter": str(lora)}]
    document = tmp_path / "serve.yaml"
    written = {"variants": variants, "engine": own | {"urls": urls}, "gateway": {"port": 0}}
    document.write_text(json.dumps(written))
    said: list[str] = []
    with ExitStack() as stack:
        env = mark.env | {"LLMBENCH_HOME": str(home)}
        processes = [
            stack.enter_context(engine(document, port, env, tmp_path / f"{number}.log")) for number, port in enumerate(ports)
        ]
        gateway = stack.enter_context(started(recipe.load(document, ServeRecipe), log=said.append))
        until(lambda: [one["state"] for one in gateway.engines] == ["ready", "ready"])
        proven = [f"Proven: adapter {lora} on {url}: " for url in urls]
        assert all(any(line.startswith(one) for line in said) for one in proven)
        gateway.deployment.remove("adapter")
        assert [_adapters(url) for url in urls] == [0, 0]
        gateway.deployment.add(Variant(name="adapter", adapter=str(lora)))
        assert [_adapters(url) for url in urls] == [1, 1]
        assert all(sum(line.startswith(one) for line in said) == 2 for one in proven)
        _asks_both(gateway, urls)

        users = Users(gateway.base_url)
        stack.callback(users.end.set)
        until(lambda: len(users.answers) > 8 and all(one["requests"] for one in gateway.engines))
        (supervisor,) = children(processes[0].pid)
        os.kill(children(supervisor)[0], signal.SIGKILL)
        until(lambda: gateway.engines[0]["state"] == "out")
        before = len(users.answers)
        until(lambda: len(users.answers) > before + 16 and gateway.engines[0]["state"] == "out")
        until(lambda: gateway.engines[0]["state"] == "ready")
        until(lambda: gateway.engines[0]["requests"] > 0)
        users.stop()
        assert users.lost == []
        assert all(begun for begun, _ in users.streams) and sum(not complete for _, complete in users.streams) <= 8
        assert [sum(line.startswith(one) for line in said) for one in proven] == [3, 2]
        answers = [held(url) for url in urls]
        assert all(len(one["used"]) == 1 and one["free"] == [] for one in answers), answers

        document.write_text(json.dumps(written | {"engine": own | {"urls": urls[:1]}}))
        assert gateway.deployment.reload(recipe.load(document, ServeRecipe)).engines_removed == urls[1:]
        assert held(urls[1]) == {"used": [], "free": []} and [one["state"] for one in gateway.engines] == ["ready"]
        document.write_text(json.dumps(written))
        plan = gateway.deployment.reload(recipe.load(document, ServeRecipe))
        assert (plan.engines_added, plan.engines_waiting, plan.complete) == (urls[1:], {}, True)
        assert [_adapters(url) for url in urls] == [1, 1]
        _asks_both(gateway, urls)
        assert [sum(line.startswith(one) for line in said) for one in proven] == [3, 3]
        assert KEY not in "".join([*said, *(path.read_text() for path in tmp_path.glob("*.log"))])
    assert mark.left() == {}


def _adapters(url: str) -> int:
    """How many adapters an engine has."""
    return len(httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()["data"]) - 1


def held(url: str) -> Any:
    """What gateways do with an engine's adapters, as another one is told."""
    body = {"gateway": "another", "uses": []}
    return httpx.post(f"{url}/llmbench/adapters", json=body, headers={"authorization": f"Bearer {KEY}"}).json()


def _asks_both(gateway: Gateway, urls: list[str]) -> None:
    """Each engine answers the same question in the same words, and streams through the gateway."""
    with httpx.Client(timeout=120) as http:
        hello = {"model": "base", "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0, "max_tokens": 32}
        key = {"authorization": f"Bearer {KEY}"}
        answers = [http.post(f"{url}/v1/chat/completions", json=hello, headers=key).json() for url in urls]
        assert answers[0]["choices"][0]["message"] == answers[1]["choices"][0]["message"]

        def answered() -> dict[str, float]:
            lines = http.get(f"{gateway.base_url.removesuffix('/v1')}/metrics").text.splitlines()
            starts = {url: f'llmbench_engine_requests_total{{engine_url="{url}",outcome="answered"}}' for url in urls}
            return {url: float(line.rpartition(" ")[2]) for url in urls for line in lines if line.startswith(starts[url])}

        for number in range(64):
            body: dict[str, Any] = hello | {"model": "adapter", "messages": [{"role": "user", "content": f"Hello {number}!"}]}
            with http.stream("POST", f"{gateway.base_url}/chat/completions", json=body | {"stream": True}) as stream:
                assert "[DONE]" in stream.read().decode()
            if len(answered()) == 2:
                return
    raise AssertionError("one engine got no request")
