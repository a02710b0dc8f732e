"""A serving recipe in a thread of its own: whoever started it can look at how far it is, and start it again when it died."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import httpx

from llmbench.engine import Progress
from llmbench.errors import LlmbenchError
from llmbench.gateway import server
from llmbench.gateway.listening import base_url
from llmbench.recipe import ServeRecipe

__all__ = ["Background", "Stage"]

_LOOK_SECONDS = 1.0
_CAUSE_SECONDS = 5.0
"""vLLM takes as long to end once its core is dead; what it wrote last is the cause."""


@dataclass(frozen=True)
class Stage:
    """How a serving recipe stands. `detail` is the phase while it starts, and the cause once it has failed."""

    state: Literal["starting", "ready", "failed", "stopped"]
    detail: str = ""
    seconds: float = 0.0
    log: str = ""
    """vLLM's log file."""


class _Stopped(Exception):
    """Ends a start that nobody waits for any more."""


class Background:
    """vLLM and its gateway, started and watched by a thread. `say` gets a line for each thing worth knowing."""

    def __init__(self, recipe: ServeRecipe, *, say: Callable[[str], None]) -> None:
        spec = recipe.gateway
        port = spec.port or _free_port(spec.host)  # the same one after another start, for whoever knows the address
        # Whoever started it asks without a named key: where there are only those, with one made for this purpose.
        own = spec.api_key or (secrets.token_urlsafe(32) if spec.keys is not False else None)
        self._recipe = recipe.model_copy(update={"gateway": spec.model_copy(update={"port": port, "api_key": own})})
        self._say = say
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._under_way = threading.Event()
        self._error: BaseException | None = None
        self.stage = Stage("stopped")
        self.base_url = base_url(spec.host, port)
        self.api_key = own

    def start(self) -> None:
        """Starts what does not run, and returns once vLLM is loading.

        Raises:
            LlmbenchError: it failed before that: a taken port, an adapter that does not fit, no vLLM.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._end.clear()
            self._under_way.clear()
            self._error = None
            self.stage = Stage("starting", "checking the recipe")
            self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
            self._thread.start()
            self._under_way.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends vLLM and the gateway, and waits for that."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        try:
            with server.started(self._recipe, progress=self._progress, log=self._log) as gateway:
                seconds = self.stage.seconds
                self.stage = Stage("ready", "", seconds, self.stage.log)
                self._say(f"{seconds:5.1f} s  ready at {self.base_url}")
                cause = self._watch(gateway)
            self.stage = Stage("failed", cause, 0.0, self.stage.log) if cause else Stage("stopped", "", 0.0, self.stage.log)
            if cause:
                self._say(f"The engine stopped: {cause}\n  Its log: {self.stage.log}")
        except _Stopped:
            self.stage = Stage("stopped", "", 0.0, self.stage.log)
        except Exception as error:
            if self._under_way.is_set():
                self._say(str(error) if isinstance(error, LlmbenchError) else f"{type(error).__name__}: {error}")
            else:
                self._error = error  # for the caller, who still waits
            self.stage = Stage("failed", str(error).partition("\n")[0], self.stage.seconds, self.stage.log)
        finally:
            self._under_way.set()

    def _progress(self, state: Progress) -> None:
        if self._end.is_set():
            raise _Stopped
        if state.phase != self.stage.detail:
            self._say(f"{state.seconds:5.1f} s  {state.phase}")
        self.stage = replace(self.stage, detail=state.phase, seconds=state.seconds)

    def _log(self, line: str) -> None:
        self._say(line)
        if line.startswith("The engine's log: "):
            self.stage = replace(self.stage, log=line.removeprefix("The engine's log: "))
        if line.startswith(("The engine's log: ", "Engines: ")):
            self._under_way.set()

    def _watch(self, gateway: server.Gateway) -> str:
        """Looks every second until it is told to end (an empty string), or until the engine is dead (the cause)."""
        address = f"{self.base_url.removesuffix('/v1')}/health"
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            while not self._end.wait(_LOOK_SECONDS):
                try:
                    response = client.get(address)
                    if response.status_code == 503:
                        self._end.wait(_CAUSE_SECONDS if gateway.problem is None else 0)
                        return gateway.problem or str(response.json()["error"]["message"])
                except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                    print(f"checking the engine: {type(error).__name__}: {error}", file=sys.stderr)
        return ""


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
