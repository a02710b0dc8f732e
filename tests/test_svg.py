"""Charts: round axes, no lost spikes, nothing that is no number."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from llmbench.svg import bars, curves, panels, scale
from llmbench.svg import lines as chart


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.13, 2.02), (3e-6, 2e-4), (-5, 17), (1e6, 3.2e6), (4, 4), (0, 0), (-2, -2)]
)
def test_ticks_are_few_and_enclose_the_data(low: float, high: float) -> None:
    ticks = scale.ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8
    assert all(math.isclose(b - a, ticks[1] - ticks[0], rel_tol=1e-6) for a, b in pairwise(ticks))


def test_a_spike_survives_thinning() -> None:
    points = [(float(x), 99.0 if x == 7_777 else 1.0) for x in range(20_000)]
    html = chart.chart("Loss", [chart.Line("run", "a", tuple(points))])
    assert "&quot;99&quot;" in html
    assert len(html) < 100_000


def test_what_is_not_finite_is_left_out() -> None:
    line = chart.Line("run", "a", ((1.0, math.nan), (2.0, math.inf), (3.0, 0.5)))
    html = chart.chart("Loss", [line])
    assert "nan" not in html and "inf" not in html and "<circle" in html


def test_a_chart_of_nothing_is_nothing() -> None:
    assert chart.chart("Loss", [chart.Line("run", "a", ())]) == ""


def test_names_are_escaped() -> None:
    line = chart.Line("<script>", "a", ((1.0, 1.0), (2.0, 2.0)))
    assert "<script" not in chart.chart("<img>", [line, line])


def test_a_legend_shows_each_line_as_it_is_drawn() -> None:
    line, point = ((1.0, 2.0), (2.0, 1.0)), ((2.0, 1.5),)
    html = chart.chart("Loss", [chart.Line("a", "a", line), chart.Line("a, held out", "a", point, dashed=True)])
    entries = html.split("<li ")[1:]
    assert "<polyline" in entries[0] and "<circle" not in entries[0]
    assert "<polyline" not in entries[1] and "<circle" in entries[1]


def test_no_two_of_many_lines_look_alike() -> None:
    lines = [chart.Line(str(n), chart.COLOURS[n % 8], ((1.0, 2.0), (2.0, 1.0)), mark=n) for n in range(24)]
    entries = chart.chart("Loss", lines).split("<li ")[1:]
    assert len({entry.split("<span")[0] for entry in entries}) == 24


def test_panels_share_their_x_and_leave_out_what_is_empty() -> None:
    loss = panels.Panel(
        "loss", [panels.Curve([(0, 2.0), (10, 1.0)], "a", "train"), panels.Curve([], "b", "held out")], 200, (0.0,)
    )
    text = panels.draw("a <run>", [loss, panels.Panel("nothing", [])], at=(10, "best (10)"))
    drawn = ElementTree.fromstring(text)
    words = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a <run>", "loss", "train", "best (10)", "step", "0", "10"} <= set(words) and "held out" not in words
    assert "nothing" not in words
    [line] = drawn.iter("{http://www.w3.org/2000/svg}polyline")
    assert line.get("points") == "64.0,34.0 704.0,134.0"


def histogram(*counts: int, limit: tuple[int, str] | None = None) -> ElementTree.Element:
    found = [bars.Bar(10 * i, 10 * i + 9, count) for i, count in enumerate(counts)]
    return ElementTree.fromstring(bars.histogram("a <title>", found, x="tokens", what="rows", limit=limit))


def test_bars_are_as_high_as_their_counts_and_those_beyond_the_limit_are_told_apart() -> None:
    drawn = histogram(4, 0, 8, 2, limit=(20, "max_length 20"))
    rects = list(drawn.iter("rect"))
    assert [rect.get("height") for rect in rects] == ["66.0", "0.0", "132.0", "33.0"]
    assert [rect.get("class") for rect in rects] == [None, None, "beyond", "beyond"]
    assert [rect.findtext("title") for rect in rects][2] == "20 to 29 tokens: 8 rows"
    assert drawn.get("aria-label") == "a <title>"
    assert [line.get("x1") for line in drawn.iter("line")] == ["0", "50.00%"]
    assert "max_length 20" in [text.text for text in drawn.iter("text")]


def test_a_limit_off_the_axis_has_no_line() -> None:
    assert len(list(histogram(1, 2, limit=(500, "far")).iter("line"))) == 1
    assert histogram(0).find("rect") is not None, "nothing counted is drawn too"


def test_curves_have_rules_labels_and_points_at_their_shares() -> None:
    lines = [("v0", curves.straight([(0.0, 0.0), (1.0, 0.5)])), ("v0 point", curves.point(0.25, 1.0))]
    html = curves.box("by <alpha>", lines, x=[(0.0, "0"), (1.0, "<1>")], y=[(0.0, "low"), (1.0, "high")])
    drawn = ElementTree.fromstring(html)
    assert [(path.get("class"), path.get("d")) for path in drawn.iter("path")] == [
        ("grid", "M0 100.00H100"), ("grid", "M0 0.00H100"), ("v0", "M0.00 100.00L100.00 50.00"), ("v0 point", "M25.00 0.00h0"),
    ]  # fmt: skip
    assert [(span.get("style"), span.text) for span in drawn.iter("span")] == [
        ("top:100.00%", "low"), ("top:0.00%", "high"), ("left:0.00%", "0"), ("left:100.00%", "<1>"),
    ]  # fmt: skip


def test_a_climbing_curve_ends_below_the_top_where_values_lie_beyond() -> None:
    assert curves.climbing([3.0, 1.0], 2.0) == "M0 100H50.00V50.00H100"
