"""Puts the probes to a server: vLLM on its Unix socket, or any OpenAI-compatible server that tells log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from llmbench.errors import EndpointError
from llmbench.parity.certificate import Certificate, Probe
from llmbench.parity.said import Said

__all__ = ["ask"]


def ask(client: httpx.Client, model: str, certificate: Certificate, *, base_url: str = "http://engine/v1") -> list[Said]:
    """What a model of the server says to each probe of the certificate, one after the other.

    vLLM 0.32 with adapters on a CPU dies of prompt log-probabilities for two requests in one batch (docs/upstream.md).

    Args:
        client: how the server is reached, with its key and timeout.
        model: the name to ask for.
        certificate: whose probes are put, rendered as it says.
        base_url: ends in `/v1`.

    Raises:
        EndpointError: it does not answer, or tells no token ids or log-probabilities of the prompt, as vLLM does.
    """
    path = "chat/completions" if certificate.rendered == "chat" else "completions"
    url = f"{base_url.rstrip('/')}/{path}"
    return [_one(client, url, model, certificate, probe) for probe in certificate.probes]


def _one(client: httpx.Client, url: str, model: str, certificate: Certificate, probe: Probe) -> Said:
    chat = certificate.rendered == "chat"
    body: dict[str, Any] = {
        "model": model, "max_tokens": max(len(probe.trained.greedy), 1), "temperature": 0, "seed": 0, "ignore_eos": True,
        "prompt_logprobs": 0, "return_token_ids": True,
    }  # fmt: skip
    body |= {"messages": list(probe.messages), "logprobs": True, "top_logprobs": 2} if chat else {}
    body |= {"chat_template_kwargs": certificate.template_kwargs} if chat and certificate.template_kwargs else {}
    body |= {} if chat else {"prompt": probe.messages[-1]["content"], "logprobs": 2}
    try:
        response = client.post(url, json=body)
        if not response.is_success:
            said = " ".join(response.text.split())[:200]
            raise EndpointError(f"{url} answered {response.status_code} to a probe of {model}: {said}")
        return _said(response.json(), chat=chat)
    except httpx.HTTPError as error:
        raise EndpointError(f"{url} did not answer a probe of {model} ({type(error).__name__}: {error})") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EndpointError(
            f"{url} tells no token ids and log-probabilities of the prompt, without which nothing can be proven. "
            "vLLM does (prompt_logprobs, return_token_ids)"
        ) from error


def _said(answer: dict[str, Any], *, chat: bool) -> Said:
    choice = answer["choices"][0]
    holder = answer if chat else choice
    ids = tuple(int(token) for token in holder["prompt_token_ids"])
    told = holder["prompt_logprobs"]
    logprobs = tuple(float(place[str(token)]["logprob"]) for token, place in zip(ids[1:], told[1:], strict=True))
    greedy = tuple(int(token) for token in choice["token_ids"])
    return Said(ids, logprobs, greedy, tuple(_gaps(choice["logprobs"], chat=chat)))


def _gaps(told: dict[str, Any], *, chat: bool) -> Sequence[float]:
    places = [[one["logprob"] for one in place["top_logprobs"]] for place in told["content"]] if chat else [
        list(place.values()) for place in told["top_logprobs"]
    ]  # fmt: skip
    both = [sorted(place, reverse=True) for place in places]
    return [found[0] - found[1] if len(found) > 1 else float("inf") for found in both]
