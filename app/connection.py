"""How the endpoint is: its models, and why it cannot answer. A page looks every few seconds, however many pages there are."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from html import escape
from typing import Any

from llmbench.endpoint import KEY_HINT, HttpEndpoint
from llmbench.errors import EndpointError

from . import render
from .conversation import Session
from .settings import Settings

__all__ = ["SECONDS", "Condition", "banner", "inquire", "key_for", "pill", "variants"]

SECONDS = 4.0
"""Between two looks at the endpoint."""
_TIMEOUT = 8.0


@dataclass(frozen=True)
class Condition:
    """What a look at an endpoint found. `models` are what its listing says of each; `problem` is empty while it can answer.

    `locked`: it asks for a key, or for another one.
    """

    models: tuple[dict[str, Any], ...] = ()
    problem: str = ""
    locked: bool = False


@dataclass
class _Known:
    """The last look at one endpoint, shared by every page."""

    at: float = float("-inf")
    condition: Condition | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


_known: dict[tuple[str, str | None], _Known] = {}


def key_for(settings: Settings, session: Session) -> str | None:
    """The key of the settings goes to the URL of the settings only."""
    return session.api_key or (settings.api_key if session.url == settings.url else None)


async def inquire(url: str, key: str | None, *, fresh: bool = False) -> Condition:
    """How the endpoint is; at most one request goes out every few seconds unless `fresh` is asked for."""
    known = _known.setdefault((url, key), _Known())
    async with known.lock:
        if fresh or known.condition is None or time.monotonic() - known.at >= SECONDS / 2:
            found = await _ask(url, key)
            _tell(url, known.condition, found)
            known.condition, known.at = found, time.monotonic()
        return known.condition


async def _ask(url: str, key: str | None) -> Condition:
    try:
        async with HttpEndpoint(url, api_key=key, timeout=_TIMEOUT) as endpoint:
            listed = tuple(await endpoint.listing())
            problem = await endpoint.health() or ("" if listed else f"{url} is up but lists no models.")
    except EndpointError as error:
        locked = error.status in (401, 403)
        problem = str(error).replace(KEY_HINT, " Check the API key in the settings below.") if locked else str(error)
        return Condition((), problem, locked)
    return Condition(listed, problem)


def _tell(url: str, before: Condition | None, now: Condition) -> None:
    """Says on the terminal that an endpoint went or came back."""
    if before is None or bool(before.problem) == bool(now.problem):
        return
    clock = time.strftime("%H:%M:%S")
    print(f"{clock}  {now.problem or f'{url} answers again.'}", file=sys.stderr, flush=True)


def pill(session: Session, settings: Settings) -> str:
    """The state of the connection, for the page's head."""
    address = session.url.split("://")[-1].removesuffix("/v1")
    title = escape(f"{session.url}: {session.problem}" if session.problem else session.url)
    stage = settings.engine.stage if settings.engine is not None and session.url == settings.url else None
    if stage is not None and stage.state == "starting":
        return f'<span class="pill" data-on="wait" title="{title}">starting</span>'
    if stage is not None and stage.state in ("failed", "stopped"):
        return f'<span class="pill" data-on="no" title="{title}">engine stopped</span>'
    if session.problem and session.models:
        return f'<span class="pill" data-on="no" title="{title}">cannot answer</span>'
    if not session.models:
        return f'<span class="pill" data-on="no" title="{title}">no endpoint</span>'
    return (
        f'<span class="pill" data-on="yes" title="{title}">'
        f'<span class="address">{render.plain(address)} · </span>{variants(len(session.models))}</span>'
    )


def variants(count: int) -> str:
    """`1 variant`, `1,000 variants`."""
    return f"{count:,} variant{'s' if count != 1 else ''}"


def banner(session: Session, settings: Settings) -> str:
    """Why no question can be asked, and what to do; empty while all is well."""
    stage = settings.engine.stage if settings.engine is not None and session.url == settings.url else None
    log = f"Log: {stage.log}" if stage is not None and stage.log else ""
    if stage is not None and stage.state == "starting":
        text = f"{stage.detail}, {stage.seconds:.0f} s. Documents, Runs and Reports work in the meantime."
        return render.empty("The engine is starting", text, detail=log)
    if stage is not None and stage.state in ("failed", "stopped"):
        return render.empty("The engine is not running", stage.detail or "It was stopped.", detail=log)
    if not session.problem:
        return ""
    reason, _, command = session.problem.partition(" Start one: ")
    title = "The endpoint cannot answer" if session.models else "Not connected"
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return render.empty(title, f"{reason}{stop} This page checks again every few seconds.", command=command)
