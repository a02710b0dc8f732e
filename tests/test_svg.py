"""Charts: round axes, no lost spikes, nothing that is no number."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from llmbench.svg import lines as chart
from llmbench.svg import panels, scale


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
