"""Adapters that come and go in an engine, with a stand-in for vLLM; the real one is in tests/gateway/test_variants.py."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmbench.engine import Adapter, Engine
from llmbench.errors import EngineError
from llmbench.recipe import ServeRecipe

VLLM = """
    # Knows the adapters of its command line and those that are loaded, and says what it knows, as vLLM does.
    import http.server, json, os, socketserver, sys

    words = sys.argv
    known = [word.partition("=")[0] for word in words[words.index("--lora-modules") + 1:]] if "--lora-modules" in words else []

    class Vllm(http.server.BaseHTTPRequestHandler):
        def say(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.say(200, json.dumps({"data": [{"id": name, "max_model_len": 64} for name in ["base", *known]]}).encode())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body.get("lora_name", "")
            if not self.path.endswith("_lora_adapter"):
                return self.say(200, b"{}")
            allowed = os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1" and "bad" not in name
            if not allowed or (name in known) == ("/load" in self.path):
                return self.say(400, json.dumps({"error": {"message": f"no {name}"}}).encode())
            if "/unload" in self.path:
                known.remove(name)
                freed = b"" if "kept" in name else b" Its memory is free."
                return self.say(200, b"Success." + freed)
            known.append(name)
            self.say(200, b"Success.")

        def address_string(self):
            return "socket"

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    Server(words[words.index("--uds") + 1], Vllm).serve_forever()
"""


@pytest.fixture
def adapters(tmp_path: Path) -> Callable[..., Adapter]:
    def make(id: str, rank: int = 8) -> Adapter:
        folder = tmp_path / "adapters" / id
        folder.mkdir(parents=True, exist_ok=True)
        return Adapter(id, f"run-{id}", folder, rank)

    return make


@pytest.fixture
def engine(stand_in: Callable[[str], Path], adapters: Callable[..., Adapter]) -> Iterator[Engine]:
    """One with adapter `a`, and room for one more of rank 8."""
    document = ServeRecipe.model_validate(
        {"variants": [{"name": "base"}], "engine": {"python": str(stand_in(VLLM)), "max_adapters": 2}}
    )
    with Engine(document, {"run-a": adapters("a")}) as made:
        made.wait()
        yield made


def known(engine: Engine) -> list[str]:
    import httpx

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine.socket))) as client:
        return [model["id"] for model in client.get("http://engine/v1/models").json()["data"]]


def test_an_adapter_is_loaded_once_and_unloaded(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    engine.load(adapters("b"))
    engine.load(adapters("b"))
    assert known(engine) == ["base", "a", "b"] and list(engine.adapters) == ["a", "b"]
    engine.unload("a")
    assert known(engine) == ["base", "b"] and list(engine.adapters) == ["b"]


def test_what_does_not_fit_is_refused_before_vllm_sees_it(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    with pytest.raises(EngineError, match=r"run-big has rank 9, but vLLM was started for at most 8.*engine\.max_lora_rank"):
        engine.load(adapters("big", 9))
    engine.load(adapters("b"))
    with pytest.raises(EngineError, match=r"run-c: vLLM was started for 2 adapters, and has them.*engine\.max_adapters"):
        engine.load(adapters("c"))
    with pytest.raises(EngineError, match="is missing"):
        gone = replace(adapters("gone"), folder=Path("/nowhere"))
        engine.unload("b")
        engine.load(gone)
    assert known(engine) == ["base", "a"]


def test_the_stored_copies_of_what_it_has_are_held(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    def free(id: str) -> bool:
        handle = os.open(adapters(id).folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    engine.load(adapters("b"))
    assert not free("a") and not free("b")
    engine.unload("a")
    assert free("a")
    engine.restart()
    engine.wait()
    assert not free("b")
    engine.stop()
    assert not free("b")  # it may be started again
    engine.__exit__(None, None, None)
    assert free("b")


def test_a_slot_that_vllm_does_not_free_stays_taken(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    engine.load(adapters("kept"))
    engine.unload("kept")
    with pytest.raises(EngineError, match="for 2 adapters, and has them"):
        engine.load(adapters("c"))


def test_what_vllm_does_not_load_or_unload_is_told(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    with pytest.raises(EngineError, match=r"vLLM does not load adapter run-bad: it answers 400 \(no bad\)"):
        engine.load(adapters("bad"))
    assert list(engine.adapters) == ["a"]
    engine.adapters["bad"] = adapters("bad")
    with pytest.raises(EngineError, match="it answers 400"):
        engine.unload("bad")
    assert list(engine.adapters) == ["a"]


def test_an_adapter_that_was_not_unloaded_is_loaded_afresh(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    engine.load(adapters("b"))
    socket, engine.socket = engine.socket, Path("/nowhere")
    with pytest.raises(EngineError, match="does not answer"):
        engine.unload("b")
    engine.socket = socket
    assert known(engine) == ["base", "a", "b"]
    engine.load(adapters("b"))
    assert known(engine) == ["base", "a", "b"] and list(engine.adapters) == ["a", "b"]


def test_a_restart_has_what_it_had_before_on_another_socket(engine: Engine, adapters: Callable[..., Adapter]) -> None:
    engine.load(adapters("b"))
    engine.unload("a")
    before = engine.socket
    engine.restart()
    engine.wait()
    assert known(engine) == ["base", "b"] and engine.socket != before and not before.parent.exists()
    engine.load(adapters("a"))
    assert known(engine) == ["base", "b", "a"]


def test_an_engine_without_room_says_how_to_get_some(stand_in: Callable[[str], Path], adapters: Callable[..., Adapter]) -> None:
    document = ServeRecipe.model_validate({"variants": [{"name": "base"}], "engine": {"python": str(stand_in(VLLM))}})
    with pytest.raises(EngineError, match=r"without room for adapters. Set engine\.max_adapters"):
        Engine(document, {}).load(adapters("a"))
