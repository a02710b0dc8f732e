"""A serving recipe in a thread: its phases, its end, and another start. The seam is `server.started`, one function wide."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from llmbench.engine import Progress
from llmbench.errors import EngineError, RecipeError
from llmbench.gateway import background, server
from llmbench.gateway.background import Background
from llmbench.recipe import ServeRecipe


class Engine:
    """Stands for vLLM: it loads until `loaded` is set, and is dead while `cause` says why."""

    def __init__(self) -> None:
        self.loaded = threading.Event()
        self.refusal: Exception | None = None
        self.cause = ""
        self.starts = 0

    @contextmanager
    def started(
        self, recipe: ServeRecipe, *, progress: Callable[[Progress], None], log: Callable[[str], None]
    ) -> Iterator[SimpleNamespace]:
        self.starts += 1
        if self.refusal is not None:
            raise self.refusal
        log("The engine's log: /logs/engine.log")
        while not self.loaded.wait(0.01):
            progress(Progress(1.5, "loading the weights"))
        yield SimpleNamespace(problem=None)

    def get(self, *_: Any) -> httpx.Response:
        if self.cause:
            return httpx.Response(503, json={"error": {"message": self.cause}})
        return httpx.Response(200, json={})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(server, "started", made.started)
    monkeypatch.setattr(background, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(background, "_CAUSE_SECONDS", 0.01)
    monkeypatch.setattr(httpx.Client, "get", lambda _, address: made.get(address))
    return made


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def served(engine: Engine, lines: list[str], tmp_path: Path) -> Iterator[Background]:
    recipe = ServeRecipe.model_validate(
        {"model": {"model_name_or_path": "llmbench/tiny"}, "variants": [{"name": "base"}], "gateway": {"port": 0}}
    )
    made = Background(recipe, say=lines.append)
    yield made
    made.stop()


def until(found: Callable[[], bool]) -> None:
    for _ in range(1000):
        if found():
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not happen")


def test_it_returns_while_the_engine_loads_and_can_be_stopped_then(engine: Engine, served: Background) -> None:
    served.start()
    until(lambda: served.stage.detail == "loading the weights")
    assert (served.stage.state, served.stage.seconds, served.stage.log) == ("starting", 1.5, "/logs/engine.log")
    served.stop()
    assert served.stage.state == "stopped"


def test_a_dead_engine_is_told_with_its_log_and_can_be_started_again(
    engine: Engine, served: Background, lines: list[str]
) -> None:
    address = served.base_url
    engine.loaded.set()
    served.start()
    until(lambda: served.stage.state == "ready")
    engine.cause = "vLLM ended (exit code 0)"
    until(lambda: served.stage.state == "failed")
    assert served.stage.detail == "vLLM ended (exit code 0)"
    until(lambda: any("The engine stopped: vLLM ended" in line and "/logs/engine.log" in line for line in lines))
    engine.cause = ""
    served.start()
    until(lambda: served.stage.state == "ready")
    assert (engine.starts, served.base_url) == (2, address)


def test_what_cannot_be_started_at_all_is_raised_at_once(engine: Engine, served: Background) -> None:
    engine.refusal = RecipeError("port 1 is in use")
    with pytest.raises(RecipeError, match="port 1 is in use"):
        served.start()
    assert served.stage.state == "failed"


def test_a_start_that_fails_later_is_told(engine: Engine, served: Background, lines: list[str]) -> None:
    def fails(self: threading.Event, timeout: float | None = None) -> bool:
        raise EngineError("vLLM ended while loading\n  the last lines")

    engine.loaded.wait = fails.__get__(engine.loaded)  # type: ignore[method-assign]
    served.start()
    until(lambda: served.stage.state == "failed")
    assert served.stage.detail == "vLLM ended while loading"
    assert any("the last lines" in line for line in lines)
