"""Starting the engine again, over one that dies when it is told to."""

from __future__ import annotations

import pytest

from llmbench.errors import EngineError
from llmbench.gateway import keeper as keeper_module
from llmbench.gateway.keeper import Keeper


class Engine:
    """Runs until `problem` says otherwise; its next starts fail as often as `failing` says."""

    def __init__(self) -> None:
        self.adapters: dict[str, object] = {}
        self.problem: str | None = None
        self.failing = 0
        self.starts = 0

    def check(self) -> None:
        if self.problem is not None:
            raise EngineError(f"vLLM ended while serving: {self.problem}\n    the last lines")

    def restart(self) -> None:
        self.starts += 1
        self.problem = None

    def wait(self) -> None:
        if self.failing:
            self.failing -= 1
            raise EngineError("vLLM was not ready after 600 s")

    def stop(self) -> None:
        self.problem = "vLLM ended (exit code 0)"


class Watched:
    """A keeper with what it did."""

    def __init__(self, most: int = 3) -> None:
        self.engine, self.most = Engine(), most
        self.events: list[str] = []
        self.keeper = Keeper(
            self.engine,  # type: ignore[arg-type]
            most=lambda: self.most,
            hold=lambda reason: self.events.append("hold" if reason else "pass"),
            prove=self.prove,
            say=self.events.append,
        )
        self.wrong = 0

    def prove(self) -> None:
        self.events.append(f"prove ({self.keeper.restarting})")
        if self.wrong:
            raise EngineError("it answers otherwise than it was trained")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(keeper_module, "_FIRST_PAUSE", 0.0)
    return Watched()


def test_an_engine_that_runs_is_left_alone(watched: Watched) -> None:
    watched.keeper.look()
    assert watched.events == [] and watched.engine.starts == 0


def test_requests_wait_until_the_engine_is_proven_again(watched: Watched) -> None:
    watched.engine.problem = "vLLM ended (exit code 137)"
    watched.keeper.look()
    assert watched.events[0] == "vLLM ended (exit code 137)\nStarting it again in 0 s (1 of 3 restarts in an hour)"
    assert watched.events[1:] == ["hold", "prove (True)", "pass", "The engine answers again"]
    assert not watched.keeper.restarting


def test_a_start_that_fails_is_tried_again_while_restarts_are_left(watched: Watched) -> None:
    watched.engine.problem, watched.engine.failing = "vLLM ended", 2
    watched.keeper.look()
    assert watched.engine.starts == 3 and watched.events[-2] == "pass"
    watched.engine.problem = "vLLM ended again"
    with pytest.raises(EngineError, match="ended while serving: vLLM ended again\n    the last lines"):
        watched.keeper.look()
    assert watched.engine.starts == 3


def test_restarts_of_more_than_an_hour_ago_do_not_count(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_HOUR", 0.0)
    for _ in range(10):
        watched.engine.problem = "vLLM ended"
        watched.keeper.look()
    assert watched.engine.starts == 10


def test_with_no_restarts_the_first_death_is_the_end() -> None:
    watched = Watched(most=0)
    watched.engine.problem = "vLLM ended"
    with pytest.raises(EngineError, match="ended while serving"):
        watched.keeper.look()
    assert watched.engine.starts == 0 and watched.events == []


def test_an_engine_that_answers_otherwise_afterwards_is_not_served(watched: Watched) -> None:
    watched.engine.problem, watched.wrong = "vLLM ended", 1
    with pytest.raises(EngineError, match="otherwise than it was trained"):
        watched.keeper.look()
    assert "pass" not in watched.events
