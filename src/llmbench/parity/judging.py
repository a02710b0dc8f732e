"""Whether a server's answers to the probes are those of the certificate; if not, which ingredient differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmbench.parity.certificate import Certificate
from llmbench.parity.said import Said

__all__ = ["Parity", "effect", "judge"]

_FLOOR = 1e-4
"""Nats. A float32 server with a float32 certificate differs by 2e-6 on average (1,631 tokens), by 2e-5 at most."""
_TIMES = 1.5
"""How many times the base's own difference the adapter's may be: they are alike (.023 and .023 in bfloat16)."""
_WORST_BASE = {False: 0.15, True: 0.6}
"""Nats. A base further off than this is another base, or in another precision than bfloat16; that in few bits differs more."""
_SCALED = 0.9
"""The part of what is amiss that another scale of the adapter explains, from which on it is called that."""


@dataclass(frozen=True)
class Parity:
    """The verdict on one adapter, or on a model without one. Differences are means over tokens, in nats."""

    state: Literal["proven", "inconclusive", "differs"]
    """`inconclusive`: within the tolerance, but so is the adapter's whole effect, so that a lost adapter would not show."""
    reason: str
    """What differs, or what the proof is; one sentence without a full stop."""
    remedy: str
    probes: int
    tokens: int
    difference: float | None
    """Between server and certificate; None where the prompts' tokens differ, so that there is nothing to compare."""
    allowed: float
    base_difference: float | None
    """Between the server's base and the certificate's: what precision and kernels make of the same weights."""
    effect: float | None
    """Between the certificate's adapter and its base: what the training did."""
    greedy_same: int
    """Probes after which the server writes what the trained model does, ties apart."""

    @property
    def title(self) -> str:
        """The state, as people read it."""
        return {"proven": "Proven", "inconclusive": "Inconclusive", "differs": "Not as trained"}[self.state]

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.state != "differs"

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def judge(certificate: Certificate, served: Sequence[Said], base: Sequence[Said] | None) -> Parity:
    """Compares what a server says to the probes with the certificate.

    The tolerance is learned from the base, whose weights are not in question: the adapter may differ from its certificate by
    half as much again as the base from its own.

    Args:
        certificate: of the adapter, or of the model.
        served: what the server says as the adapter, probe by probe.
        base: what it says as the base; None where there is no adapter, or the server does not offer it.
    """
    probes = certificate.probes
    wanted = [probe.trained for probe in probes]
    known = [probe.base for probe in probes if probe.base is not None]
    fault = _prompt_fault(wanted, served)
    if fault is None and base is not None and len(known) == len(probes):
        fault = _prompt_fault(known, base)
    if fault is not None:
        reason, remedy = fault
        return Parity("differs", reason, remedy, len(probes), 0, None, _FLOOR, None, None, 0)
    difference = _mean(wanted, served)
    did = effect(certificate)
    noise = _mean(known, base) if base is not None and did is not None else None
    allowed = max(_FLOOR, _TIMES * (noise if noise is not None else _WORST_BASE[certificate.quantized]))
    same = sum(_continues(a, b, allowed) for a, b in zip(wanted, served, strict=True))

    def verdict(state: Literal["proven", "inconclusive", "differs"], reason: str, remedy: str = "") -> Parity:
        return Parity(
            state, reason, remedy, len(probes), certificate.tokens, difference, allowed, noise, did, same,
        )  # fmt: skip

    if noise is not None and noise > _WORST_BASE[certificate.quantized]:
        return verdict(
            "differs", f"the base answers otherwise than the one that was trained on (by {noise:.2g} nats a token)",
            "serve the base that the adapter was trained on, in the precision of its training",
        )  # fmt: skip
    if difference <= allowed and same < len(probes):
        return verdict(
            "differs", f"it writes something else after {len(probes) - same} of {len(probes)} probes",
            "the engine samples otherwise than greedily: see engine.extra_args",
        )  # fmt: skip
    if difference <= allowed:
        if did is not None and did <= allowed:
            return verdict(
                "inconclusive", f"within {difference:.1e} nats a token, but the adapter changes only {did:.1e}, so that a lost "
                "adapter would not show", "train for longer, or serve in float32",
            )  # fmt: skip
        return verdict("proven", f"within {difference:.1e} nats a token of its training, {_of_effect(did)}")
    if did is None:
        return verdict("differs", f"it is {difference:.2g} nats a token from what was trained", "serve the certified model")
    plain = _mean(known, served)
    if plain <= max(allowed, 0.05 * did):
        return verdict(
            "differs", "it answers as the base: the adapter has no effect",
            "its matrices do not reach the model's modules: see whether adapter_model.safetensors names them as the base does",
        )  # fmt: skip
    scale = _scale(certificate, wanted, known, served, allowed)
    if scale is not None:
        return verdict(
            "differs", f"the adapter's strength is {scale} of what was trained",
            "compare lora_alpha, r and use_rslora in adapter_config.json with the run's",
        )  # fmt: skip
    return verdict(
        "differs",
        f"it is {difference:.2g} nats a token from what was trained ({allowed:.1e} allowed; the training changed {did:.2g})",
        "matrices are missing or changed, or the engine computes otherwise: see the engine's log, and serve in float32",
    )


def effect(certificate: Certificate) -> float | None:
    """What the training changed: how far the adapter's log-probabilities are from its base's, in nats, the mean over tokens."""
    known = [probe.base for probe in certificate.probes if probe.base is not None]
    if len(known) != len(certificate.probes):
        return None
    return _mean([probe.trained for probe in certificate.probes], known)


def _of_effect(effect: float | None) -> str:
    return f"which changed {effect:.2g}" if effect is not None else "with no base to compare"


def _prompt_fault(wanted: Sequence[Said], served: Sequence[Said]) -> tuple[str, str] | None:
    """What is amiss with the prompts' tokens, and what to do about it."""
    differ = [(i, a.ids, b.ids) for i, (a, b) in enumerate(zip(wanted, served, strict=True)) if a.ids != b.ids]
    if not differ:
        return None
    number, ours, theirs = differ[0]
    many = f"{len(differ)} of {len(wanted)} prompts have other tokens"
    if all(b[1:] == a and b[:1] == b[1:2] for _, a, b in differ if len(b) > 1):
        return (
            f"the prompt begins with token {theirs[0]} twice (BOS): {many} than in training",
            "the template writes BOS and the tokenizer adds it: take it out of the chat template",
        )
    if all(b[1:] == a for _, a, b in differ):
        return (f"token {theirs[0]} stands before the prompt, which training had not: {many}", _TEMPLATE)
    if all(a[1:] == b for _, a, b in differ):
        return (f"token {ours[0]} is missing at the beginning of the prompt: {many}", _TEMPLATE)
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return (
        f"the chat template or the tokenizer differs: {many}; probe {number + 1} from token {at + 1} on "
        f"({_some(theirs, at)} instead of {_some(ours, at)})",
        _TEMPLATE,
    )


_TEMPLATE = "serve with the training's chat template (engine.extra_args: [--chat-template, FILE]) and tokenizer"


def _some(ids: tuple[int, ...], at: int) -> str:
    return " ".join(map(str, ids[at : at + 3])) or "nothing"


def _mean(one: Sequence[Said], other: Sequence[Said]) -> float:
    """The mean absolute difference of log-probabilities, over all tokens of all prompts."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x.logprobs, y.logprobs, strict=True)]
    return sum(abs(a - b) for a, b in pairs) / max(len(pairs), 1)


def _scale(
    certificate: Certificate, wanted: Sequence[Said], known: Sequence[Said], served: Sequence[Said], allowed: float
) -> str | None:
    """The strength that the adapter is served with, in words, where that alone explains what is amiss.

    A half and the double were computed with the certificate. Others are found by least squares of served - base =
    s (trained - base), which holds for adapters that change little.
    """
    for scale in {scale for probe in certificate.probes for scale in probe.scaled}:
        pairs = [
            abs(a - b)
            for probe, said in zip(certificate.probes, served, strict=True)
            for a, b in zip(probe.scaled.get(scale, ()), said.logprobs, strict=False)
        ]
        if sum(pairs) / len(pairs) <= 2 * allowed:  # fewer tokens than `allowed` is made for
            return f"{float(scale):g}"
    rows = [
        (t - b, s - b)
        for x, y, z in zip(wanted, known, served, strict=True)
        for t, b, s in zip(x.logprobs, y.logprobs, z.logprobs, strict=True)
    ]
    fitted = sum(t * s for t, s in rows) / (sum(t * t for t, _ in rows) or 1.0)
    amiss = sum((s - t) ** 2 for t, s in rows) or 1.0
    explained = 1 - sum((s - fitted * t) ** 2 for t, s in rows) / amiss
    return f"about {fitted:.2f}" if explained >= _SCALED else None


def _continues(wanted: Said, served: Said, allowed: float) -> bool:
    """Whether the greedy tokens are the same, as far as none was about as likely as another."""
    for ours, theirs, gap in zip(wanted.greedy, served.greedy, wanted.gaps, strict=False):
        if ours != theirs:
            return gap <= 20 * allowed  # the largest difference is about ten times the mean one, on either side
    return True
