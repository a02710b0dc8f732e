"""The report's part about labels: a matrix of right and told ones, the commonest mistakes, and confidence against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbench.compare import charts
from llmbench.compare.classes import NONE
from llmbench.compare.result import Comparison
from llmbench.page import section, table, text
from llmbench.svg import curves

__all__ = ["html"]

_MATRIX = 20
"""Labels of which a matrix can be read."""
_MISTAKES = 10


def html(c: Comparison, colours: Mapping[str, int]) -> str:
    """The section; nothing where no metric is about labels."""
    blocks = ""
    for metric, of in c.classes.get("confusion", {}).items():
        for variant, counts in of["variants"].items():
            inner = _matrix(of["labels"], counts) if len(of["labels"]) <= _MATRIX else ""
            name = f"{text(c.measure(metric).label)}: {charts.name(variant, colours)}"
            blocks += f'<details class="card"><summary>{name}</summary>{inner}{_mistakes(counts)}</details>'
    for metric, of in c.classes.get("reliability", {}).items():
        blocks += _reliable(c.measure(metric).label, of, colours)
    if not blocks:
        return ""
    lead = "Rows are the right labels, columns what answers tell. Confidence is what answers state of themselves."
    return section("Labels", blocks, lead=lead, place="labels")


def _matrix(labels: Sequence[str], counts: Sequence[Sequence[Any]]) -> str:
    found = {(right, told): many for right, told, many in counts}
    told = [*labels, *([NONE] if any(one == NONE for _, one, _ in counts) else [])]
    rows = [[text(right), *(str(found.get((right, one), "")) for one in told)] for right in labels]
    return table(["right", *map(text, told)], rows)


def _mistakes(counts: Sequence[Sequence[Any]]) -> str:
    wrong = [(right, told, many) for right, told, many in counts if right != told][:_MISTAKES]
    if not wrong:
        return "<p>No mistake.</p>"
    return table(["right", "told", "answers"], [[text(right), text(told), str(many)] for right, told, many in wrong])


def _reliable(label: str, of: Mapping[str, Sequence[Sequence[float]]], colours: Mapping[str, int]) -> str:
    """One line a variant, through its bins; on the diagonal, confidence is just earned."""
    lines = [("grid", curves.straight([(0.0, 0.0), (1.0, 1.0)]))]
    for variant, bins in of.items():
        points = [(sure, right) for sure, right, _ in bins]
        if len(points) > 1:
            lines.append((f"v{colours[variant]}", curves.straight(points)))
    scale = [(x, f"{100 * x:.0f}%") for x in (0.0, 0.25, 0.5, 0.75, 1.0)]
    drawn = curves.box("Share that is right by stated confidence", lines, x=scale, y=scale)
    rows = [
        [charts.name(variant, colours), f"{sure:.0%}", f"{right:.0%}", f"{many:,}"]
        for variant, bins in of.items()
        for sure, right, many in bins
    ]
    caption = f"<figcaption>{text(label)} <span>share that is right by stated confidence</span></figcaption>"
    legend = " ".join(charts.name(variant, colours) for variant in of)
    figures = table(["Variant", "Mean confidence", "Right", "Answers"], rows)
    return f'<figure class="panel card">{caption}<div class="legend">{legend}</div>{drawn}{figures}</figure>'
