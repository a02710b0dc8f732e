"""What vLLM, the program that a folder is written for, says to the probes, compared with what the trained model says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from llmbench import engine
from llmbench.errors import EngineError, LlmbenchError, MissingPackage
from llmbench.exporting.material import Reference
from llmbench.exporting.proof import Compared
from llmbench.exporting.values import Allowance, Probes
from llmbench.recipe import ServeRecipe

__all__ = ["VllmSaid", "ask", "check", "divergence", "until"]

_LIKELIEST = 20
"""Log-probabilities a position that vLLM tells, its own limit; those of a whole vocabulary would be megabytes of JSON each."""
_SECONDS = 600.0
_LEAST = 1e-6
"""Of a probability that is left for all others; below it the digits of what vLLM tells end."""
_NO_KERNEL = ("not supported", "No compiled", "not implemented", "NotImplementedError", "Failed to find a kernel")


@dataclass(frozen=True)
class VllmSaid:
    """What vLLM said."""

    logprobs: list[list[dict[int, float]]]
    """Of each sequence and each position but the last: token -> log-probability, for the likeliest tokens."""
    greedy: list[list[int]]
    seconds: float
    """From its start to its answers."""


def ask(folder: Path, probes: Probes, dtype: str) -> VllmSaid:
    """Starts vLLM on a folder and puts the probes to it.

    Raises:
        MissingPackage: there is no vLLM here.
        EngineError: it cannot serve the folder.
    """
    recipe = ServeRecipe.model_validate(
        {
            "model": {"model_name_or_path": str(folder)},
            "variants": [{"name": engine.BASE}],
            "engine": {"dtype": dtype, "cpu_kv_cache_gib": 0.25, "max_adapters": 0},
        }
    )
    with engine.Engine(recipe, {}) as running:
        running.wait()
        with engine.client(running.at, _SECONDS) as http:
            said, greedy = [], []
            for ids, n in zip(probes.sequences, probes.prompts, strict=True):
                said.append(_logprobs(_asked(http, list(ids), 1, prompt_logprobs=_LIKELIEST)))
                greedy.append(_asked(http, list(ids[:n]), probes.new_tokens)["token_ids"])
        return VllmSaid(said, greedy, running.seconds)


def check(
    folder: Path, reference: Reference, allowed: Allowance, dtype: str
) -> tuple[Compared, dict[str, Any], list[list[int]]]:
    """The verdict on what vLLM says of a folder, its numbers, and its answers (none where it could not be asked)."""
    try:
        found = ask(folder, reference.probes, dtype)
    except MissingPackage:
        return Compared("served", None, "vLLM is not installed here: serve it where it is, and ask"), {}, []
    except EngineError as error:
        why = next((line for line in str(error).splitlines() if _no_kernel(line)), None)
        if why is not None:
            return Compared("served", None, f"vLLM has no kernel for it on this machine ({why.strip()[:160]})"), {}, []
        return Compared("served", False, f"vLLM cannot serve it ({str(error).splitlines()[0][:200]})"), {}, []
    kl, agreement = _far(reference, found)
    answers = [until(ids, reference.heard.stops) for ids in found.greedy]
    same = sum(a == b for a, b in zip(answers, reference.heard.greedy, strict=True))
    said = f"vLLM: KL {kl:.1e}, the same likeliest token at {agreement:.1%}, {same} of {len(answers)} answers the same"
    holds = kl <= allowed.kl and agreement >= allowed.agreement
    figures = {"kl": kl, "agreement": agreement, "greedy_same": same, "seconds": found.seconds}
    return Compared("served", holds, said, f"KL {allowed.kl:.1e}, {allowed.agreement:.0%}"), figures, answers


def _no_kernel(line: str) -> bool:
    """Whether a line of vLLM's log says that this machine cannot compute it; an unknown architecture is the folder's fault."""
    return any(sign in line for sign in _NO_KERNEL) and "architecture" not in line


def _asked(http: httpx.Client, ids: list[int], count: int, **more: Any) -> dict[str, Any]:
    body = {"model": engine.BASE, "prompt": ids, "max_tokens": count, "temperature": 0, "ignore_eos": True}
    try:
        reply = http.post("/v1/completions", json=body | {"return_token_ids": True} | more)
        found: dict[str, Any] = reply.raise_for_status().json()["choices"][0]
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        raise EngineError(f"vLLM did not answer a probe ({type(error).__name__}: {str(error)[:200]})") from error
    return found


def _logprobs(choice: dict[str, Any]) -> list[dict[int, float]]:
    """The first position has none: nothing stands before it."""
    try:
        return [{int(token): float(one["logprob"]) for token, one in at.items()} for at in choice["prompt_logprobs"][1:]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LlmbenchError(f"vLLM told no log-probabilities of a probe ({error})") from error


def _far(reference: Reference, found: VllmSaid) -> tuple[float, float]:
    """The mean divergence, and the part of positions with the same likeliest token."""
    kl, same, count = 0.0, 0, 0
    for logits, said in zip(reference.heard.logits, found.logprobs, strict=True):
        known = torch.from_numpy(logits).double().log_softmax(-1)
        for row, at in zip(known, said, strict=False):
            kl += divergence(row, at)
            same += int(row.argmax()) == max(at, key=lambda token: at[token])
            count += 1
    return max(kl / count, 0.0), same / count


def divergence(known: torch.Tensor, named: dict[int, float]) -> float:
    """The Kullback-Leibler divergence in nats over the tokens that vLLM names, with all others as one: never more than over
    the whole vocabulary (Cover and Thomas, Elements of Information Theory, 2.7).

    Args:
        known: log-probabilities of the whole vocabulary.
        named: token -> log-probability of the other model.
    """
    p, q = known[torch.tensor(list(named))], torch.tensor(list(named.values()), dtype=known.dtype)
    rest = [max(1 - float(one.exp().sum()), _LEAST) for one in (p, q)]
    return float((p.exp() * (p - q)).sum()) + rest[0] * math.log(rest[0] / rest[1])


def until(ids: list[int], stops: frozenset[int]) -> list[int]:
    """What was written, up to the first token that ends it."""
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in stops), ids)
