"""Adapters of a running vLLM: it loads and unloads them when it is asked, on a path that no client of the gateway reaches."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import httpx

from llmbench.engine.address import Place, accepts, client
from llmbench.engine.admission import Adapter
from llmbench.engine.command import Capacity
from llmbench.engine.forget_lora import FREED
from llmbench.engine.key_guard import GATEWAY, LOAD, UNLOAD
from llmbench.errors import EngineError

__all__ = ["UNLOAD", "NoAnswer", "Used", "load", "refuse_misfit", "refuse_without_slot", "unload"]

_SECONDS = 300.0
_CONFLICT = 409


class NoAnswer(EngineError):
    """Nobody answers where an engine should."""


class Used(EngineError):
    """Another gateway uses what should be unloaded."""


def refuse_misfit(adapter: Adapter, capacity: Capacity) -> None:
    """Raises EngineError where vLLM can never load an adapter, whatever is unloaded before."""
    if capacity.adapters == 0:
        raise EngineError(
            f"adapter {adapter.source}: vLLM was started without room for adapters. Set engine.max_adapters and start again"
        )
    if adapter.rank > capacity.rank:
        raise EngineError(
            f"adapter {adapter.source} has rank {adapter.rank}, but vLLM was started for at most {capacity.rank}. "
            "Set engine.max_lora_rank and start again"
        )


def refuse_without_slot(adapter: Adapter, capacity: Capacity, taken: int) -> None:
    """Raises EngineError where so many slots are taken that none is left for an adapter."""
    if taken >= capacity.adapters:
        raise EngineError(
            f"adapter {adapter.source}: vLLM was started for {capacity.adapters} adapters, and has them. "
            "Remove a variant, or set engine.max_adapters and start again"
        )


def load(at: Place, adapter: Adapter, gateway: str | None = None) -> None:
    """Loads an adapter under its id. The id names its content, as vLLM keeps what it computed by name and folder.

    Args:
        at: where vLLM answers.
        adapter: one that vLLM does not have.
        gateway: which gateway asks, where others may share the vLLM.

    Raises:
        NoAnswer: vLLM does not answer.
        EngineError: its folder has gone, or vLLM refuses it; it has no adapter of this name then.
    """
    if not adapter.folder.is_dir():
        raise EngineError(f"adapter {adapter.source}: {adapter.folder} is missing. Add the variant again")
    try:
        _ask(at, LOAD, {"lora_name": adapter.id, "lora_path": str(adapter.folder)}, gateway)
    except EngineError as error:
        with contextlib.suppress(EngineError):
            unload(at, adapter.id, gateway)  # it may have it after all, as when it answered too late
        raise type(error)(f"vLLM does not load adapter {adapter.source}: {error}{_hint(at, adapter.folder)}") from error


def _hint(at: Place, folder: Path) -> str:
    """What vLLM on another machine needs."""
    if isinstance(at, Path):
        return ""
    return f". The engine at {at.url} reads {folder} on its own machine: share the workspace with it, or copy the folder there"


def unload(at: Place, id: str, gateway: str | None = None) -> bool:
    """Unloads an adapter that no request uses any more. Whether its slot is free again (see forget_lora.py).

    Args:
        at: where vLLM answers.
        id: the adapter's.
        gateway: which gateway asks: what another one uses is not unloaded then (see key_guard.py).

    Raises:
        NoAnswer: vLLM does not answer.
        Used: another gateway uses it.
        EngineError: it has none of this id.
    """
    return FREED in _ask(at, UNLOAD, {"lora_name": id}, gateway)


def _ask(at: Place, path: str, body: Mapping[str, str], gateway: str | None = None) -> str:
    if not accepts(at):
        raise NoAnswer("it does not answer")
    try:
        with client(at, _SECONDS) as http:
            response = http.post(path, json=body, headers={GATEWAY: gateway} if gateway is not None else {})
    except httpx.HTTPError as error:
        raise NoAnswer(f"it does not answer ({type(error).__name__}: {error})") from error
    if response.is_success:
        return response.text
    try:
        said = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = response.text
    kind = Used if response.status_code == _CONFLICT else EngineError
    raise kind(f"it answers {response.status_code} ({' '.join(said.split())[:300]})")
