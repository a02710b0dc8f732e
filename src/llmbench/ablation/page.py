"""An ablation as one HTML page: means with their intervals, differences to the full recipe around 0, tables, notes."""

from __future__ import annotations

from llmbench.ablation.conditions import FULL
from llmbench.ablation.figures import Ablation
from llmbench.ablation.rows import difference_rows, mean_rows
from llmbench.page import document, facts, forest, header, notes, section, table, text
from llmbench.svg import marks
from llmbench.svg.scale import ticks

__all__ = ["page"]

_KIND = "ablation"
_ALPHA = 0.05


def page(found: Ablation) -> str:
    """The whole page; every name in it is escaped."""
    body = [_head(found), _means(found), _differences(found)]
    for metric in found.values:
        inner = _table(mean_rows(found, metric)) + _table(difference_rows(found, metric))
        body.append(section(text(_capital(metric)), inner))
    body.append(section("Runs", _table([["condition", "seed", "run"], *_runs(found)])))
    return document(found.name, _KIND, "".join(body))


def _head(found: Ablation) -> str:
    values = {
        "Conditions": f"{len(found.conditions)}",
        "Seeds": ", ".join(map(str, found.seeds)),
        "Measured by": found.headline,
    }
    said = notes(("note", f'<p dir="auto">{text(note)}</p>') for note in found.notes)
    return header(
        _KIND, found.name, text(f"{_capital(found.headline)} of {len(found.conditions)} conditions"), facts(values), said
    )


def _means(found: Ablation) -> str:
    known = {name: one for name, one in found.estimates[found.headline].items() if one is not None}
    if not known:
        return ""
    at_ticks = ticks(min(one.low for one in known.values()), max(one.high for one in known.values()))
    low, high = at_ticks[0], at_ticks[-1]

    def at(x: float) -> float:
        return (x - low) / (high - low)

    lines = [
        marks.row(
            _name(name),
            marks.track(marks.interval(at(one.low), at(one.high)) + marks.dot(at(one.mean)), [at(x) for x in at_ticks]),
            f"<b>{one.mean:.4f}</b> <span>[{one.low:.4f}, {one.high:.4f}]</span>",
            "v3" if name == FULL else "v0",
        )
        for name, one in known.items()
    ]
    axis = marks.axis([(at(x), f"{x:g}") for x in at_ticks])
    lead = "Dots are means over seeds, bars their 95% intervals. Green is the full recipe."
    return section(text(_capital(found.headline)), f'<div class="card plot">{"".join(lines)}{axis}</div>', lead=lead)


def _differences(found: Ablation) -> str:
    differences = found.differences[found.headline]
    if not differences:
        return ""
    lead = (
        f"Each condition minus the full recipe, paired by seed. A filled dot is a difference that this ablation shows (p below "
        f"{_ALPHA:g} after Holm's correction over the conditions); a hollow one may be chance."
    )
    return section("Differences", forest(differences, _ALPHA, who=lambda one: _name(one.a), colour=lambda _: "v0"), lead=lead)


def _runs(found: Ablation) -> list[list[str]]:
    return [[condition, str(seed), run] for condition, by in found.runs.items() for seed, run in by.items()]


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _name(name: str) -> str:
    return f"<bdi>{text(name)}</bdi>"


def _table(lines: list[list[str]]) -> str:
    heads, *others = ([text(cell) for cell in line] for line in lines)
    return table(heads, others) if others else ""
