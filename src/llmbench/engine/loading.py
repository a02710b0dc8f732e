"""Adapters of a running vLLM: it loads and unloads them when it is asked on its private socket, which no client reaches."""

from __future__ import annotations

import contextlib
import socket as sockets
from collections.abc import Mapping
from pathlib import Path

import httpx

from llmbench.engine.admission import Adapter
from llmbench.engine.forget_lora import FREED
from llmbench.errors import EngineError

__all__ = ["accepts", "load", "unload"]

_SECONDS = 300.0


def load(socket: Path, adapter: Adapter) -> None:
    """Loads an adapter under its id. The id names its content, as vLLM keeps what it computed by name and folder.

    Args:
        socket: vLLM's.
        adapter: one that vLLM does not have.

    Raises:
        EngineError: its folder has gone, or vLLM refuses it or does not answer; it has no adapter of this name then.
    """
    if not adapter.folder.is_dir():
        raise EngineError(f"adapter {adapter.source}: {adapter.folder} is missing. Add the variant again")
    try:
        _ask(socket, "load", {"lora_name": adapter.id, "lora_path": str(adapter.folder)})
    except EngineError as error:
        with contextlib.suppress(EngineError):
            unload(socket, adapter.id)  # it may have it after all, as when it answered too late
        raise EngineError(f"vLLM does not load adapter {adapter.source}: {error}") from error


def unload(socket: Path, id: str) -> bool:
    """Unloads an adapter that no request uses any more. Whether its slot is free again (see forget_lora.py).

    Raises:
        EngineError: vLLM has none of this id, or does not answer.
    """
    return FREED in _ask(socket, "unload", {"lora_name": id})


def _ask(socket: Path, verb: str, body: Mapping[str, str]) -> str:
    if not accepts(socket):
        raise EngineError("it does not answer")
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=_SECONDS) as client:
            response = client.post(f"http://engine/v1/{verb}_lora_adapter", json=body)
    except httpx.HTTPError as error:
        raise EngineError(f"it does not answer ({type(error).__name__}: {error})") from error
    if response.is_success:
        return response.text
    try:
        said = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = response.text
    raise EngineError(f"it answers {response.status_code} ({' '.join(said.split())[:300]})")


def accepts(path: Path) -> bool:
    """Whether somebody listens. Asked first, because httpx leaves a socket open each time that nobody does."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
