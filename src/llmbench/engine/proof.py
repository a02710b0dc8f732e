"""Whether the engine answers as training did: the probes of each adapter's certificate, put to the running vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx

from llmbench import parity
from llmbench.engine.address import Place, client
from llmbench.engine.admission import Adapter
from llmbench.engine.command import BASE
from llmbench.errors import EndpointError, EngineError
from llmbench.parity import Certificate, Parity, Said

__all__ = ["prove", "prove_base", "uncertified"]

_SECONDS = 600.0


def uncertified(adapter: Adapter) -> str | None:
    """Why an adapter cannot be proven, with what to do about it, in one line; None where its certificate belongs to it."""
    again = f"Write one: llmbench certify {adapter.source}"
    if adapter.certificate is None:
        return f"adapter {adapter.source} has no certificate, so nothing shows that serving equals training. {again}"
    if adapter.changed:
        return f"adapter {adapter.source}: {' and '.join(adapter.changed)} changed since it was certified. {again} --again"
    return None


def prove(at: Place, adapters: Iterable[Adapter], progress: Callable[[str], None] | None = None) -> dict[str, Parity]:
    """The verdict on each adapter that has a certificate, by its id.

    Args:
        at: where vLLM answers.
        adapters: those that it serves.
        progress: told what is being done, in a few words.

    Raises:
        EngineError: vLLM does not answer the probes.
    """
    found: dict[str, Parity] = {}
    known: dict[str, list[Said]] = {}
    with client(at, _SECONDS) as http:
        for adapter in adapters:
            if adapter.certificate is None or adapter.id in found:
                continue
            if progress is not None:
                progress(f"comparing {adapter.source} with its training")
            try:
                base = _base(http, adapter.certificate, known)
                found[adapter.id] = parity.judge(adapter.certificate, _said(http, adapter.id, adapter.certificate), base)
            except EndpointError as error:
                raise EngineError(f"adapter {adapter.source} cannot be proven: {error}") from error
    return found


def prove_base(at: Place, folder: Path | None) -> Parity | None:
    """The verdict on a base with a certificate of its own, as `llmbench merge` leaves one; None where it has none.

    Args:
        at: where vLLM answers.
        folder: the base's files.

    Raises:
        EngineError: vLLM does not answer the probes.
    """
    certificate = parity.read(folder) if folder is not None else None
    if certificate is None:
        return None
    with client(at, _SECONDS) as http:
        try:
            return parity.judge(certificate, _said(http, BASE, certificate), None)
        except EndpointError as error:
            raise EngineError(f"{folder} cannot be proven: {error}") from error


def _base(http: httpx.Client, certificate: Certificate, known: dict[str, list[Said]]) -> list[Said]:
    """What the base says to the same probes; asked once for all adapters whose probes are the same."""
    asked = [certificate.rendered, certificate.template_kwargs, [probe.messages for probe in certificate.probes]]
    key = json.dumps(asked, sort_keys=True)
    if key not in known:
        known[key] = _said(http, BASE, certificate)
    return known[key]


def _said(http: httpx.Client, model: str, certificate: Certificate) -> list[Said]:
    return parity.ask(http, model, certificate, base_url=str(http.base_url.join("/v1")))
