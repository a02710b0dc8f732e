"""Starts the engine again when it died, with the adapters that it had, and proves them again before anybody is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from llmbench.engine import Adapter
from llmbench.errors import EngineError

__all__ = ["Keeper", "Startable"]

_HOUR = 3600.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_WAIT = "The engine ended and is being started again. Try again in a minute."


class Startable(Protocol):
    """What a restart needs of the engine; `Engine` is one."""

    @property
    def problem(self) -> str | None:
        """Why it does not run; None while it runs."""
        ...

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """What it has, by id."""
        ...

    def check(self) -> None:
        """Raises EngineError with the cause if it does not run."""
        ...

    def restart(self) -> None:
        """Starts it again."""
        ...

    def wait(self) -> None:
        """Blocks until it answers."""
        ...

    def stop(self) -> None:
        """Ends it."""
        ...


class Keeper:
    """Looks after an engine.

    Args:
        engine: the engine.
        most: how many restarts an hour may have.
        hold: called before a restart with what requests are told meanwhile, and with None when they may pass again.
        prove: raises EngineError where the adapters do not answer as they were trained.
        say: told what happens, a line each.
    """

    def __init__(
        self,
        engine: Startable,
        *,
        most: Callable[[], int],
        hold: Callable[[str | None], None],
        prove: Callable[[], object],
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._most = most
        self._hold = hold
        self._prove = prove
        self._say = say
        self._deaths: list[float] = []
        self.restarting = False

    def look(self) -> None:
        """Starts the engine again if it died, and returns once it answers.

        Raises:
            EngineError: it died too often in the last hour, or no longer answers as its adapters were trained.
        """
        if self._engine.problem is None:
            return
        self.restarting = True
        while self._engine.problem is not None:
            self._begin()
            if self._engine.problem is None:
                self._prove()
        self._hold(None)
        self.restarting = False
        self._say("The engine answers again")

    def _begin(self) -> None:
        """One restart; the engine has a problem afterwards where it failed."""
        now, most = time.monotonic(), self._most()
        self._deaths = [death for death in self._deaths if now - death < _HOUR]
        if len(self._deaths) >= most:
            self._engine.check()
        self._deaths.append(now)
        pause = min(_FIRST_PAUSE * 2 ** (len(self._deaths) - 1), _LONGEST_PAUSE)
        self._say(
            f"{self._engine.problem}\nStarting it again in {pause:g} s ({len(self._deaths)} of {most} restarts in an hour)"
        )
        self._hold(_WAIT)
        time.sleep(pause)
        try:
            self._engine.restart()
            self._engine.wait()
        except EngineError as error:
            self._say(str(error))
            self._engine.stop()
