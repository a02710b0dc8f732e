"""Verdicts on invented log-probabilities: what is named, what is a tie, and how the tolerance is learned."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from llmbench import parity
from llmbench.parity import Certificate, Parity, Probe, Said

IDS = (1, 15, 27, 33, 2, 9)


def said(offset: float = 0.0, *, ids: tuple[int, ...] = IDS, seed: int = 0) -> Said:
    dice = random.Random(seed)
    return Said(ids, tuple(-dice.uniform(1, 9) + offset * dice.choice((-1, 1)) for _ in ids[1:]), (4, 5, 6), (2.0, 0.3, 1.0))


def certificate(*, effect: float = 1.0, quantized: bool = False, base: bool = True) -> Certificate:
    probes = []
    for seed in range(12):
        plain, trained = said(seed=seed), said(effect, seed=seed)
        half = tuple((a + b) / 2 for a, b in zip(plain.logprobs, trained.logprobs, strict=True))
        probes.append(
            Probe(({"role": "user", "content": "?"},), trained, plain if base else None, {"0.5": half} if base else {})
        )
    return Certificate("chat", "float32", quantized, None, {}, {}, {}, {}, {}, tuple(probes))


def trained(known: Certificate) -> list[Said]:
    return [probe.trained for probe in known.probes]


def plain(known: Certificate) -> list[Said]:
    return [probe.base for probe in known.probes if probe.base is not None]


def noisy(every: Sequence[Said], size: float, seed: int = 0) -> list[Said]:
    """Each log-probability up to `size` off; `size` / 2 on average."""
    dice = random.Random(seed)
    return [replace(one, logprobs=tuple(value + dice.uniform(-size, size) for value in one.logprobs)) for one in every]


def verdict(known: Certificate, served: Sequence[Said], base: Sequence[Said] | None) -> Parity:
    found = parity.judge(known, served, base)
    assert "\n" not in found.reason and not found.reason.endswith(".")
    return found


def test_what_rounds_as_the_base_does_is_proven() -> None:
    known = certificate()
    found = verdict(known, noisy(trained(known), 0.04), noisy(plain(known), 0.04, seed=1))
    assert found.state == "proven" and found.holds
    assert found.base_difference is not None and found.allowed == pytest.approx(1.5 * found.base_difference)
    assert found.effect == pytest.approx(1.0)


def test_what_is_twice_as_far_off_as_the_base_is_not() -> None:
    known = certificate()
    found = verdict(known, noisy(trained(known), 0.08), noisy(plain(known), 0.04, seed=1))
    assert found.state == "differs" and "nats a token from what was trained" in found.reason


def test_an_adapter_that_changes_less_than_rounding_is_inconclusive() -> None:
    known = certificate(effect=0.01)
    found = verdict(known, noisy(trained(known), 0.04), noisy(plain(known), 0.04, seed=1))
    assert found.state == "inconclusive" and found.holds and "lost adapter would not show" in found.reason


def test_the_base_in_place_of_the_adapter_is_named() -> None:
    known = certificate()
    found = verdict(known, plain(known), plain(known))
    assert found.state == "differs" and found.reason == "it answers as the base: the adapter has no effect"


def test_half_the_strength_is_named() -> None:
    known = certificate()
    half = [
        replace(a, logprobs=tuple((x + y) / 2 for x, y in zip(a.logprobs, b.logprobs, strict=True)))
        for a, b in zip(trained(known), plain(known), strict=True)
    ]
    assert verdict(known, half, plain(known)).reason == "the adapter's strength is 0.5 of what was trained"


def test_another_strength_is_fitted_where_the_adapter_changes_little() -> None:
    known = certificate()
    more = [
        replace(a, logprobs=tuple(x + 0.3 * (x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)))
        for a, b in zip(trained(known), plain(known), strict=True)
    ]
    assert verdict(known, more, plain(known)).reason == "the adapter's strength is about 1.30 of what was trained"


@pytest.mark.parametrize(("quantized", "state"), [(False, "differs"), (True, "proven")])
def test_a_base_in_few_bits_may_be_further_from_the_served_one(quantized: bool, state: str) -> None:
    known = certificate(quantized=quantized)
    found = verdict(known, noisy(trained(known), 0.6), noisy(plain(known), 0.6, seed=1))
    assert found.state == state
    assert quantized or "the base answers otherwise than the one that was trained on" in found.reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ids: (ids[0], *ids), "the prompt begins with token 1 twice (BOS): 12 of 12 prompts"),
        (lambda ids: (7, *ids), "token 7 stands before the prompt, which training had not"),
        (lambda ids: ids[1:], "token 1 is missing at the beginning of the prompt"),
        (lambda ids: (*ids[:3], 8, *ids[4:]), "probe 1 from token 4 on (8 2 9 instead of 33 2 9)"),
        (lambda ids: ids[:4], "probe 1 from token 5 on (nothing instead of 2 9)"),
    ],
)
def test_other_prompts_are_named_by_how_they_differ(change: Callable[[tuple[int, ...]], tuple[int, ...]], says: str) -> None:
    known = certificate()
    served = [said(1.0, ids=change(IDS), seed=seed) for seed in range(12)]
    found = verdict(known, served, plain(known))
    assert found.state == "differs" and says in found.reason and found.difference is None and found.remedy
    base = [said(ids=change(IDS), seed=seed) for seed in range(12)]
    assert says in verdict(known, trained(known), base).reason, "the base's prompts are looked at too"


@pytest.mark.parametrize(("at", "state"), [(1, "proven"), (0, "differs")])
def test_other_words_are_a_fault_unless_they_were_about_as_likely(at: int, state: str) -> None:
    """The second token's lead is .3 nats; rounding moves a log-probability by some hundredths here, and by .2 at most."""
    known = certificate()
    turned = [replace(one, greedy=(*one.greedy[:at], 99, *one.greedy[at + 1 :])) for one in noisy(trained(known), 0.04)]
    found = verdict(known, turned, noisy(plain(known), 0.04, seed=1))
    assert found.state == state
    assert state == "proven" or "writes something else after 12 of 12 probes" in found.reason


def test_a_model_without_an_adapter_is_judged_by_a_fixed_bound() -> None:
    known = certificate(base=False)
    assert verdict(known, noisy(trained(known), 0.1), None).state == "proven"
    assert verdict(known, noisy(trained(known), 1.0), None).state == "differs"
    assert parity.effect(known) is None
