"""Figures in words: how each is written, and the sentences that say what a comparison has shown and what it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbench.compare.result import Comparison
from llmbench.statistics import Difference, Estimate, p_value

__all__ = ["LABELS", "amount", "interval", "pair_sentence", "promised", "signed", "stopped", "verdict"]

LABELS = {
    "grounded": "Correct and cited",
    "contains_value": "Value",
    "value_retrieved": "Value retrieved",
    "citation": "Citation",
    "abstention": "Abstention",
    "exact_match": "Exact match",
    "squad_em": "SQuAD exact match",
    "squad_f1": "SQuAD F1",
    "latency": "Latency",
    "first_token": "First token",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Answer tokens",
}
"""What people read for each metric."""

_MORE = {
    "grounded": "is correct more often than",
    "contains_value": "gives the correct value more often than",
    "value_retrieved": "is given the correct value more often than",
    "citation": "cites the correct page more often than",
    "abstention": "correctly answers or abstains more often than",
    "exact_match": "gives the expected sentence more often than",
    "squad_em": "gives exactly the value more often than",
    "squad_f1": "shares more words with the value than",
    "latency": "takes longer than",
    "first_token": "starts to answer later than",
    "prompt_tokens": "reads more tokens than",
    "completion_tokens": "writes more tokens than",
}
_DOES = {
    "grounded": "is correct in",
    "contains_value": "gives the correct value in",
    "value_retrieved": "is given the correct value in",
    "citation": "cites the correct page in",
    "abstention": "correctly answers or abstains in",
    "exact_match": "gives the expected sentence in",
    "squad_em": "gives exactly the value in",
}


def amount(metric: str, value: float) -> str:
    """`85.0%`, `0.84 s` or `117 tokens`."""
    match metric:
        case "latency" | "first_token":
            return f"{_seconds(value)} s"
        case "prompt_tokens" | "completion_tokens":
            return _tokens(value)
        case _:
            return f"{100 * value:.1f}%"


def interval(metric: str, low: float, high: float, *, sign: bool = False) -> str:
    """`[78.1, 90.2]`, in the unit of the amount before it."""
    return f"[{_bare(metric, low, sign)}, {_bare(metric, high, sign)}]"


def signed(metric: str, value: float) -> str:
    """A difference: `+31.0 points`, `-0.42 s` or `+12.0 tokens`."""
    unit = {"latency": "s", "first_token": "s", "prompt_tokens": "tokens", "completion_tokens": "tokens"}.get(metric, "points")
    return f"{_bare(metric, value, True)} {unit}"


def pair_sentence(one: Difference, alpha: float) -> str:
    """What one pair shows: who is ahead, by how much and how surely; or the smallest difference that could be detected."""
    # Told from the side of the one that is ahead, whichever way the pair is written.
    ahead, behind, mean, low, high = one.a, one.b, one.mean, one.low, one.high
    if mean < 0:
        ahead, behind, mean, low, high = behind, ahead, -mean, -high, -low
    figures = f"{signed(one.metric, mean)} {interval(one.metric, low, high)}, {p_value(one.p_holm)}"
    if one.p_holm < alpha:
        return f"{ahead} {_MORE[one.metric]} {behind}: {figures}, n = {one.n}."
    can = (
        f"can only detect differences above {_rounded(one)}"
        if one.detectable is not None
        else "are too few to detect any difference"
    )
    return f"No difference shown between {ahead} and {behind}: {figures}. {one.n:,} questions {can}."


def verdict(metric: str, estimates: Mapping[str, Estimate], pairs: Sequence[Difference], alpha: float) -> str:
    """The one sentence about a quality metric: the best variant against the next best, and against all."""
    ranked = sorted(estimates, key=lambda variant: estimates[variant].mean, reverse=True)
    best = ranked[0]
    share = estimates[best]
    if len(ranked) == 1 and metric not in _DOES:
        figures = f"{amount(metric, share.mean)} {interval(metric, share.low, share.high)}"
        return f"{best} has {LABELS[metric]} {figures}, n = {share.n}."
    if len(ranked) == 1:
        return (
            f"{best} {_DOES[metric]} {amount(metric, share.mean)} {interval(metric, share.low, share.high)} "
            f"of {share.n} questions."
        )
    of_best = {one.b if one.a == best else one.a: one for one in pairs if best in (one.a, one.b)}
    if ranked[1] not in of_best:
        return f"{best} and {ranked[1]} have too few answered questions in common to be compared."
    sentence = pair_sentence(of_best[ranked[1]], alpha)
    beaten = [other for other in ranked[1:] if other in of_best and of_best[other].p_holm < alpha]
    if of_best[ranked[1]].p_holm < alpha:
        if len(ranked) > 2 and len(beaten) == len(ranked) - 1:
            sentence += " It is ahead of every other variant too." if len(ranked) > 3 else f" It is ahead of {ranked[2]} too."
    elif beaten:
        sentence += f" {best} is ahead of {_and(beaten)}."
    return sentence


def promised(comparison: Comparison) -> list[str]:
    """Sentences about what was registered before the first answer, what came otherwise, and when asking stopped."""
    said = []
    if (found := comparison.preregistration) is not None:
        plan = found["plan"]
        said.append(
            f"Preregistered on {found['registered']} ({found['hash'][:12]}): {plan['metric']}, margin {plan['margin']}, "
            f"alpha {plan['alpha']:g}, stop {plan['stop']}."
        )
        if not comparison.deviations:
            said.append("No deviation from it.")
    said += [f"Deviation: {one}" for one in comparison.deviations]
    reasons = sorted(set(comparison.excluded.values()))
    for reason in reasons:
        count = sum(one == reason for one in comparison.excluded.values())
        said.append(f"{count:,} {'questions were' if count != 1 else 'question was'} left out: {reason}")
    if (stop := comparison.stopping) is not None:
        said.append(stopped(stop))
    return said


def stopped(stop: Mapping[str, Any]) -> str:
    """When a sequential comparison ended, by which bounds, and what that saved."""
    metric, pair = stop["metric"], f"{stop['candidate']} - {stop['baseline']}"
    figures = f"{pair} {signed(metric, stop['mean'] or 0.0)} {interval(metric, stop['low'], stop['high'], sign=True)}"
    ended = (
        f"Asking ended after {stop['asked']:,} of {stop['planned']:,} questions"
        if stop["asked"] < stop["planned"]
        else f"All {stop['planned']:,} questions were asked"
    )
    decided = {
        "not inferior": f"{stop['candidate']} is not worse than {stop['baseline']} by {stop['margin']} or more",
        "worse": f"{stop['candidate']} is worse than {stop['baseline']} by more than {stop['margin']}",
        None: f"they do not decide about a margin of {stop['margin']}",
    }[stop["decided"]]
    saved = f" {100 * stop['saved']:.0f}% of the tokens were saved." if stop["asked"] < stop["planned"] else ""
    return (
        f"{ended}. Bounds that hold at every moment: {figures}: {decided}.{saved} The other intervals hold for a number of "
        "questions that is fixed beforehand."
    )


def _seconds(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _tokens(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e6 else f"{value:.3g}"


def _bare(metric: str, value: float, sign: bool) -> str:
    match metric:
        case "latency" | "first_token":
            text = _seconds(value)
        case "prompt_tokens" | "completion_tokens":
            text = _tokens(value)
        case _:
            text = f"{100 * value:.1f}"
    text = text.removeprefix("-") if not any(c in "123456789" for c in text) else text
    return f"+{text}" if sign and not text.startswith("-") else text


def _rounded(one: Difference) -> str:
    unit = signed(one.metric, 0.0).split(" ", 1)[1]
    return f"{_bare(one.metric, one.detectable or 0.0, False).removesuffix('.0')} {unit}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
