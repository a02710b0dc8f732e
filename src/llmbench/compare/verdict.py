"""Figures in words: how each is written, and the sentences that say what a comparison has shown and what it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbench.compare.measures import KNOWN, Measure, known
from llmbench.compare.result import Comparison
from llmbench.statistics import Difference, Estimate, p_value

__all__ = ["LABELS", "amount", "interval", "pair_sentence", "promised", "signed", "stopped", "verdict"]

_COUNTED = ("tokens", "words", "characters")
LABELS = {name: measure.label for name, measure in KNOWN.items()}
"""What people read for each metric of its own name."""


def amount(metric: str | Measure, value: float) -> str:
    """`85.0%`, `0.84 s`, `117` (tokens, words, characters) or `0.0021 EUR`."""
    measure = _measure(metric)
    if not measure.is_amount:
        return f"{100 * value:.1f}%"
    bare = _bare(measure, value, False)
    return bare if measure.unit in _COUNTED else f"{bare} {_unit(measure)}"


def interval(metric: str | Measure, low: float, high: float, *, sign: bool = False) -> str:
    """`[78.1, 90.2]`, in the unit of the amount before it."""
    measure = _measure(metric)
    return f"[{_bare(measure, low, sign)}, {_bare(measure, high, sign)}]"


def signed(metric: str | Measure, value: float) -> str:
    """A difference: `+31.0 points`, `-0.42 s` or `+12.0 tokens`."""
    measure = _measure(metric)
    return f"{_bare(measure, value, True)} {_unit(measure)}"


def pair_sentence(one: Difference, alpha: float, measure: Measure | None = None) -> str:
    """What one pair shows: who is ahead, by how much and how surely; or the smallest difference that could be detected.

    Args:
        one: the pair.
        alpha: what p has to be below.
        measure: of the metric; by default the one of its name.
    """
    measure = measure or known(one.metric)
    # Told from the side of the one that is ahead, whichever way the pair is written.
    ahead, behind, mean, low, high = one.a, one.b, one.mean, one.low, one.high
    if mean < 0:
        ahead, behind, mean, low, high = behind, ahead, -mean, -high, -low
    figures = f"{signed(measure, mean)} {interval(measure, low, high)}, {p_value(one.p_holm)}"
    if one.p_holm < alpha:
        return f"{ahead} {measure.words_for_more} {behind}: {figures}, n = {one.n}."
    can = (
        f"can only detect differences above {_rounded(one, measure)}"
        if one.detectable is not None
        else "are too few to detect any difference"
    )
    return f"No difference shown between {ahead} and {behind}: {figures}. {one.n:,} questions {can}."


def verdict(metric: str | Measure, estimates: Mapping[str, Estimate], pairs: Sequence[Difference], alpha: float) -> str:
    """The one sentence about a quality metric: the best variant against the next best, and against all."""
    measure = _measure(metric)
    ranked = sorted(estimates, key=lambda variant: estimates[variant].mean, reverse=not measure.less_is_better)
    best = ranked[0]
    share = estimates[best]
    figures = f"{amount(measure, share.mean)} {interval(measure, share.low, share.high)}"
    if len(ranked) == 1 and not measure.does:
        return f"{best} has {measure.label} {figures}, n = {share.n}."
    if len(ranked) == 1:
        return f"{best} {measure.does} {figures} of {share.n} questions."
    of_best = {one.b if one.a == best else one.a: one for one in pairs if best in (one.a, one.b)}
    if ranked[1] not in of_best:
        return f"{best} and {ranked[1]} have too few answered questions in common to be compared."
    sentence = pair_sentence(of_best[ranked[1]], alpha, measure)
    beaten = [other for other in ranked[1:] if other in of_best and of_best[other].p_holm < alpha]
    it = "It"
    if measure.less_is_better:
        sentence, it = f"{sentence} Less is better.", best
    if of_best[ranked[1]].p_holm < alpha:
        if len(ranked) > 2 and len(beaten) == len(ranked) - 1:
            sentence += f" {it} is ahead of {'every other variant' if len(ranked) > 3 else ranked[2]} too."
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


def _bare(measure: Measure, value: float, sign: bool) -> str:
    match measure.unit:
        case "s":
            text = _seconds(value)
        case "tokens" | "words" | "characters":
            text = _tokens(value)
        case "money" | "Wh":
            text = f"{value:.3g}"
        case _:
            text = f"{100 * value:.1f}"
    text = text.removeprefix("-") if not any(c in "123456789" for c in text) else text
    return f"+{text}" if sign and not text.startswith("-") else text


def _unit(measure: Measure) -> str:
    return measure.currency if measure.unit == "money" else measure.unit or "points"


def _measure(metric: str | Measure) -> Measure:
    return known(metric) if isinstance(metric, str) else metric


def _rounded(one: Difference, measure: Measure) -> str:
    return f"{_bare(measure, one.detectable or 0.0, False).removesuffix('.0')} {_unit(measure)}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
