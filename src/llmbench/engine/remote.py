"""What a running vLLM says of itself: its base, its adapters, since when it runs, how it reads a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from llmbench.engine.address import Address, Place, client
from llmbench.engine.command import BASE
from llmbench.engine.key_guard import ADAPTERS
from llmbench.engine.loading import NoAnswer
from llmbench.errors import EngineError

__all__ = ["Card", "Shared", "card", "hold", "started_at", "token_ids"]

_SECONDS = 10.0
_TOKENIZE_SECONDS = 60.0
_START = "process_start_time_seconds"


@dataclass(frozen=True)
class Card:
    """What a vLLM serves. `base` is the last part of its model's name or path, `context` its tokens, `adapters` their ids."""

    base: str
    context: int
    adapters: frozenset[str]


def card(at: Address) -> Card:
    """What the vLLM there serves.

    Raises:
        NoAnswer: it does not answer, or has not loaded yet.
        EngineError: it refuses the key, or is not what a gateway can ask.
    """
    response = _get(at, "/v1/models")
    if response.status_code in (401, 403):
        raise EngineError(f"{at.url} refuses the key ({response.status_code}). Set engine.api_key to what it was started with")
    try:
        models: list[dict[str, Any]] = response.raise_for_status().json()["data"]
        names = {str(model["id"]): model for model in models}
        base = names.pop(BASE)
        return Card(Path(str(base["root"])).name, int(base["max_model_len"]), frozenset(names))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"{at.url} serves no model named {BASE}. Start it with: llmbench serve DOCUMENT --engine-only (or give vLLM "
            f"--served-model-name {BASE})"
        ) from error


@dataclass(frozen=True)
class Shared:
    """What gateways do with a vLLM's adapters: `used` by others, and `free`: loaded by gateways of which none uses them."""

    used: frozenset[str]
    free: frozenset[str]


def hold(at: Address, gateway: str, uses: Iterable[str]) -> Shared | None:
    """Says which adapters a gateway uses, so that no other one unloads them; it holds for a minute (see key_guard.py).

    Args:
        at: where the vLLM answers.
        gateway: which one says so.
        uses: the ids of adapters that the vLLM has, or will have.

    Returns:
        What is known of the others; None where the vLLM keeps nothing of that kind, as it was not started by llmbench.

    Raises:
        NoAnswer: it does not answer.
    """
    body = {"gateway": gateway, "uses": sorted(uses)}
    try:
        with client(at, _SECONDS) as http:
            response = http.post(ADAPTERS, json=body)
        told = response.json() if response.is_success else {}
        return Shared(frozenset(map(str, told["used"])), frozenset(map(str, told["free"])))
    except httpx.HTTPError as error:
        raise NoAnswer(f"{at.url} does not answer ({type(error).__name__}: {error})") from error
    except (ValueError, KeyError, TypeError):
        return None


def started_at(at: Address) -> float | None:
    """When its process started, in seconds since 1970, by which a restart is noticed; None where it does not say.

    vLLM tells it among its metrics, unless several processes answer.

    Raises:
        NoAnswer: it does not answer.
    """
    for line in _get(at, "/metrics").text.splitlines():
        name, _, value = line.partition(" ")
        if name == _START:
            try:
                return float(value)
            except ValueError:
                return None
    return None


def token_ids(at: Place, text: str) -> list[int]:
    """The tokens of a text, as the served tokenizer makes them, without those that it puts at the beginning.

    Raises:
        EngineError: the engine does not say.
    """
    body = {"model": BASE, "prompt": text, "add_special_tokens": False}
    try:
        with client(at, _TOKENIZE_SECONDS) as http:
            return [int(number) for number in http.post("/tokenize", json=body).json()["tokens"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"vLLM did not tokenise a test text ({type(error).__name__}: {error})") from error


def _get(at: Address, path: str) -> httpx.Response:
    try:
        with client(at, _SECONDS) as http:
            return http.get(path)
    except httpx.HTTPError as error:
        raise NoAnswer(f"{at.url} does not answer ({type(error).__name__}: {error})") from error
