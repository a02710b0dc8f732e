"""How a rollout looks: a line for each guard-rail in a terminal, and a page with its decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from math import log1p
from typing import Any

from llmbench.gateway.traffic.verdict import KINDS
from llmbench.page import document, facts, header, mark, notes, section, table, text
from llmbench.recipe import RAILS
from llmbench.svg import marks

__all__ = ["LABELS", "MARK", "amount", "apart", "bounds", "html", "margin", "strip", "turnout"]

LABELS = {name: rail.label for name, rail in RAILS.items()}
_KIND = "rollout"
MARK = mark(_KIND)
"""By which its pages are known as llmbench's."""
_POINTS = ("share", "mean")
"""Kinds whose differences are those of the values themselves, and not ratios."""
_SPAN = 2.5
"""The axis ends at so many margins; bounds beyond it are cut there."""
_TONES = {"worse": "worse", "not worse": "fine", "undecided": "open", "no data": "open"}


def amount(rail: str, value: float | None) -> str:
    """A share, a score, seconds or characters."""
    if value is None:
        return "-"
    match RAILS[rail].unit:
        case "percent":
            return f"{100 * value:.1f} %"
        case "score":
            return f"{value:.3f}"
        case "seconds":
            return f"{value:.3g} s"
        case "characters":
            return f"{value:.0f}"


def apart(rail: str, value: float) -> str:
    """A difference: points of a share, of a score that itself, or percent of the control's."""
    if RAILS[rail].unit == "score":
        return f"{value:+.3f}"
    return f"{100 * value:+.1f}" if KINDS[rail] in _POINTS else f"{100 * value:+.0f} %"


def margin(one: Mapping[str, Any]) -> str:
    """A verdict's margin as a difference: below 0 where less is worse."""
    return apart(one["rail"], -one["margin"] if KINDS[one["rail"]] == "mean" else one["margin"])


def turnout(one: Mapping[str, Any], canary: str, control: str) -> str:
    """A line about which share of the units has a vote or a score.

    Args:
        one: an entry of the status' `turnout`.
        canary: its name.
        control: likewise.
    """
    what = {"votes": "Voted on", "judge": "Judged"}[one["rail"]]
    line = f"{what}: {100 * one['canary']:.1f} % of the units of {canary}, {100 * one['control']:.1f} % of {control}'s"
    if (differs := one["differs"]) is None:
        return line
    low, high = (f"{100 * differs[end]:+.1f}" for end in ("low", "high"))
    return f"{line}. These differ ({low} to {high} points), so the two samples may not be comparable"


def bounds(one: Mapping[str, Any]) -> str:
    """What is not ruled out of a verdict's difference."""
    if one["difference"] is None:
        return "-"
    low, high = (None if one[end] is None else apart(one["rail"], one[end]) for end in ("low", "high"))
    return f"{low or '-∞'} to {high or '∞'}"


def strip(one: Mapping[str, Any], width: int) -> str:
    """The bounds of a difference as text: `·` is no difference, `|` a margin, `─` what is not ruled out, `●` what was seen.

    Args:
        one: a guard-rail's verdict, as plain values.
        width: characters.
    """
    places = _places(one)
    if places is None:
        return " " * width
    low, high, seen, zero, margins = places
    line = [" "] * width

    def put(at: float, mark: str) -> None:
        line[min(max(round(at * (width - 1)), 0), width - 1)] = mark

    for i in range(round(max(low, 0) * (width - 1)), round(min(high, 1) * (width - 1)) + 1):
        line[i] = "─"
    put(zero, "·")
    for margin in margins:
        put(margin, "|")
    if low < 0:
        line[0] = "◂"
    if high > 1:
        line[-1] = "▸"
    put(seen, "●")
    return "".join(line)


def html(status: Mapping[str, Any]) -> str:
    """A page of one rollout: its guard-rails as they are now, and every decision.

    Args:
        status: as `Control.status` gives it.
    """
    plan = status["plan"]
    claim = f"{status['canary']} on {status['route']}: {status['state']}, {status['share']:g} %"
    about = {
        "Control": text(plan["control"]),
        "Step": f"{status['step']} of {len(status['steps'])} ({', '.join(f'{one:g}' for one in status['steps'])} %)",
        "Units in this step": ", ".join(f"{text(name)} {count:,}" for name, count in status["units"].items()),
        "Alpha": f"{plan['alpha']:g}, over all guard-rails, steps and looks",
        "Plan": text(status["hash"]),
    }
    level = "note" if status["state"] == "promoted" else "warning"
    said = [(level, f"<p>{text(status['reason'])}</p>")] if status["reason"] else []
    lead = (
        "How far the new variant is from the control, with bounds that hold at every look. Beyond the margin (dashed) it is "
        "worse and rolled back; wholly within, it is no worse. Shares differ in points, seconds and characters in percent."
    )
    body = header(_KIND, f"{status['route']} {status['number']}", text(claim), facts(about), notes(said))
    heard = "".join(f"<p>{text(turnout(one, status['canary'], status['control']))}.</p>" for one in status["turnout"])
    body += section("Guard-rails", _rails(status["evidence"]) + heard, lead=lead)
    body += section("Decisions", _decisions(status["audit"]))
    style = resources.files("llmbench.gateway.traffic").joinpath("drawing.css").read_text(encoding="utf-8")
    return document(f"{status['route']} {status['number']}", _KIND, body, style=style)


def _rails(evidence: Sequence[Mapping[str, Any]]) -> str:
    rows = ""
    for one in evidence:
        rail, places = one["rail"], _places(one)
        if places is not None:
            low, high, seen, zero, margins = places
            dashed = "".join(
                f'<line class="margin" x1="{100 * at:.2f}%" x2="{100 * at:.2f}%" y1="0" y2="100%"/>' for at in margins
            )
            shown = marks.interval(_within(low), _within(high)) + marks.dot(_within(seen)) + dashed
            track = marks.track(shown, [], zero=zero)
        else:
            track = marks.track("", [])
        figures = f"<b>{one['state']}</b> <span>{bounds(one)}, margin {margin(one)}</span>"
        both = f"{amount(rail, one['canary'])} against {amount(rail, one['control'])}"
        who = f"{LABELS[rail]}<small>{both}, n {one['canary_n']:,} and {one['control_n']:,}</small>"
        rows += marks.row(who, track, figures, _TONES[one["state"]])
    return f'<div class="card"><div class="plot forest rails">{rows}</div></div>'


def _within(place: float) -> float:
    """What is beyond the plot stands at its edge."""
    return min(max(place, 0.0), 1.0)


def _decisions(audit: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for line in audit:
        units = ", ".join(f"{text(name)} {count:,}" for name, count in line["units"].items())
        when = text(line["at"].replace("T", " ").removesuffix("Z"))
        rows.append([when, text(line["action"]), f"{line['share']:g} %", units, text(line["reason"])])
    return table(["When (UTC)", "Decision", "Share", "Units", "Why"], rows)


def _places(one: Mapping[str, Any]) -> tuple[float, float, float, float, list[float]] | None:
    """Low, high, seen, no difference and the margins, as shares of the width; None without observations."""
    if one["difference"] is None:
        return None
    share = KINDS[one["rail"]] in _POINTS
    end = _SPAN * max(one["margin"] if share else log1p(one["margin"]), 0.01)

    def at(value: float | None, missing: float) -> float:
        if value is None:
            return missing
        return ((value if share else log1p(max(value, -0.999999))) + end) / (2 * end)

    margins = [at(-one["margin"] if KINDS[one["rail"]] == "mean" else one["margin"], 1.0)]
    if KINDS[one["rail"]] == "median":
        margins.append(1 - margins[0])
    return at(one["low"], -1.0), at(one["high"], 2.0), at(one["difference"], 0.5), 0.5, margins
