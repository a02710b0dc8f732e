"""A sweep's report: the verdict, how the search went, which settings matter, every trial, and what all of it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources
from typing import Any

from llmbench.page import document, facts, header, notes, section, table, text
from llmbench.shown import clock
from llmbench.svg import curves, marks
from llmbench.svg.parallel import Axis, Strand, parallel
from llmbench.svg.scale import label, ticks
from llmbench.sweep import table as trials
from llmbench.sweep.result import Sweep
from llmbench.sweep.trial import Trial

__all__ = ["html"]

_KIND = "sweep"


def html(sweep: Sweep) -> str:
    """The whole page."""
    style = resources.files("llmbench.sweep").joinpath("report.css").read_text(encoding="utf-8")
    states = {state: sum(one.state == state for one in sweep.trials) for state in ("finished", "pruned", "failed")}
    trained = (*sweep.trials, *sweep.confirmations)
    seconds, tokens = sum(one.seconds for one in trained), sum(one.tokens for one in trained)
    known = facts(
        {
            "trials": ", ".join(f"{count} {state}" for state, count in states.items() if count),
            "sampler": sweep.sampler,
            "pruner": sweep.pruner,
            "objective": f"{text(sweep.objective)}, {'less' if sweep.minimizes else 'more'} is better",
            "training time": clock(seconds),
            "tokens": f"{tokens:,}",
        }
    )
    said = [("note", f"<p>{text(one)}</p>") for one in sweep.notes]
    figures = f'<p class="figures">{text(sweep.claim.sentence())}</p>' if sweep.claim else ""
    claim = f"Trial {sweep.best} is the best of {len(sweep.trials)}: {text(sweep.objective)} {_figure(sweep.winner.value)}"
    parts = [
        header(_KIND, sweep.name, claim, figures, known, notes(said)),
        section("Settings of the winner", facts({text(k): text(trials.shown(v)) for k, v in sweep.winner.params.items()})),
        section(
            "History", _history(sweep), lead="A dot for each trial, in the order of their start; the line is the best so far."
        ),
        _settings(sweep),
        _importances(sweep),
        section("Trials", _trials(sweep), lead="Best first. Pruned trials have the figure at which they were stopped."),
        _cost(sweep),
    ]
    return document(sweep.name, _KIND, "".join(parts), style=style)


def _history(sweep: Sweep) -> str:
    """Dots over numbers; a figure that lies far from the better half is drawn at the edge."""
    found = [(one.number, value, one.state) for one in sweep.trials if (value := _last(one)) is not None]
    up, rules = _scale([value for _, value, _ in found], sweep.minimizes)
    most = max(1, *(number for number, _, _ in found))
    lines = [
        (f"point {'v1' if state == 'finished' else 'v0'}", curves.point(number / most, up(value)))
        for number, value, state in found
    ]
    best: float | None = None
    steps: list[tuple[float, float]] = []
    for number, value, state in found:
        if state == "finished" and (best is None or (value < best if sweep.minimizes else value > best)):
            steps += [(number / most, up(best))] if best is not None else []
            best = value
            steps.append((number / most, up(best)))
    if best is not None:
        lines.append(("v3", curves.straight([*steps, (1.0, up(best))])))
    marked = [t for t in ticks(0, most) if t <= most and t == int(t)]
    chart = curves.box(
        f"{sweep.objective} of each trial",
        lines,
        x=[(t / most, f"{t:g}") for t in marked],
        y=[(up(rule), label(rule)) for rule in rules],
    )
    legend = '<div class="legend"><span class="name v1"><i></i>finished</span><span class="name v0"><i></i>pruned</span></div>'
    return f'<div class="card">{legend}{chart}</div>'


def _settings(sweep: Sweep) -> str:
    """Parallel coordinates: the settings, and the objective as the last axis."""
    shown = [one for one in sweep.trials if _last(one) is not None]
    up, rules = _scale([value for one in shown if (value := _last(one)) is not None], sweep.minimizes)
    columns = [_axis(key, shown, logarithmic=key in sweep.logarithmic) for key in sweep.keys]
    axes = [axis for axis, _ in columns] + [Axis(sweep.objective, tuple((up(rule), label(rule)) for rule in rules))]
    order = [one.number for one in sweep.ranked if one.state == "finished"]
    good = set(order[: max(1, len(order) // 4)])
    strands = []
    for one in reversed(sweep.ranked):
        value = _last(one)
        if value is None:
            continue
        kind = "winner" if one.number == sweep.best else "good" if one.number in good else "other"
        places = (
            *(
                place(one.params[key]) if key in one.params else None
                for key, (_, place) in zip(sweep.keys, columns, strict=True)
            ),
            up(value),
        )
        strands.append(Strand(places, kind, f"trial {one.number}: {json.dumps(one.params)} {value:.4g}"))
    lead = "A line for each trial through its settings to its figure. Green: the winner; blue: the best quarter."
    return section("Settings", f'<div class="card scroll">{parallel("Settings of all trials", axes, strands)}</div>', lead=lead)


def _axis(key: str, shown: list[Trial], *, logarithmic: bool) -> tuple[Axis, Callable[[Any], float]]:
    """An axis of numbers, or of words in the order of their text."""
    values = [one.params[key] for one in shown if key in one.params]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > 1:
        low, high = min(values), max(values)
        scale: Callable[[float], float] = math.log if logarithmic else float

        def place(value: Any) -> float:
            return (scale(value) - scale(low)) / (scale(high) - scale(low))

        return Axis(key, ((0.0, label(low)), (1.0, label(high)))), place
    words = sorted({trials.shown(value) for value in values})
    shares = {word: i / (len(words) - 1) if len(words) > 1 else 0.5 for i, word in enumerate(words)}
    return Axis(key, tuple((share, word[:20]) for word, share in shares.items())), lambda value: shares[trials.shown(value)]


def _importances(sweep: Sweep) -> str:
    if not sweep.importances:
        return ""
    lines = "".join(
        marks.row(text(key), marks.track(marks.interval(0, share), (0, 0.5, 1)), f"{100 * share:.0f} %", "importance")
        for key, share in sweep.importances.items()
    )
    lead = (
        "How much each setting had to do with which trials were good (PED-ANOVA, of finished trials). With few trials it is "
        "a hint."
    )
    axis = marks.axis([(0, "0"), (1, "100 %")])
    return section("Which settings matter", f'<div class="card plot">{lines}{axis}</div>', lead=lead)


def _trials(sweep: Sweep) -> str:
    heads, *found = trials.rows(sweep)
    reasons = {str(one.number): one.reason for one in sweep.trials if one.reason}
    cells = [[*(text(cell) for cell in row), text(reasons.get(row[0], ""))] for row in found]
    return table([*(text(head) for head in heads), "why"], cells)


def _cost(sweep: Sweep) -> str:
    """Time and tokens by what became of the trials."""
    found = []
    groups = {state: [one for one in sweep.trials if one.state == state] for state in ("finished", "pruned", "failed")}
    for state, of in {**groups, "confirming the winner": list(sweep.confirmations)}.items():
        if of:
            tokens = sum(one.tokens for one in of)
            found.append([state, f"{len(of)}", clock(sum(one.seconds for one in of)), f"{tokens:,}"])
    whole = sum(one.seconds for one in (*sweep.trials, *sweep.confirmations))
    slowest = sorted(sweep.trials, key=lambda one: -one.seconds)[:12]
    longest = slowest[0].seconds if slowest else 0.0
    lines = "".join(
        marks.row(
            f"trial {one.number}",
            marks.track(marks.interval(0, one.seconds / longest), (0, 0.5, 1)),
            clock(one.seconds),
            "cost",
        )
        for one in slowest
        if longest > 0
    )
    chart = f'<div class="card plot">{lines}</div>' if lines else ""
    lead = f"{clock(whole)} of training, without starting the processes; the 12 longest trials."
    return section("Cost", table(["trainings", "number", "time", "tokens"], found) + chart, lead=lead)


def _last(one: Trial) -> float | None:
    """A trial's figure; None where it has no finite one."""
    return one.figure if one.figure is not None and math.isfinite(one.figure) else None


def _scale(values: list[float], minimizes: bool) -> tuple[Callable[[float], float], list[float]]:
    """Shares of a height for figures, and round numbers on it. Bad ones beyond four times the better half's reach are cut."""
    ranked = sorted(values, reverse=not minimizes)
    half = ranked[len(ranked) // 2] if ranked else 1.0
    best = ranked[0] if ranked else 0.0
    worst = best + 4 * (half - best) if half != best else ranked[-1] if ranked else 1.0
    worst = min(worst, ranked[-1]) if minimizes and ranked else max(worst, ranked[-1]) if ranked else worst
    rules = ticks(min(best, worst), max(best, worst))
    low, high = rules[0], rules[-1]
    return (lambda value: min(max((value - low) / (high - low), 0.0), 1.0)), rules


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
