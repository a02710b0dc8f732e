"""Charts: round axes, no lost spikes, nothing that is no number."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def chart(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.chart")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.13, 2.02), (3e-6, 2e-4), (-5, 17), (1e6, 3.2e6), (4, 4), (0, 0), (-2, -2)]
)
def test_ticks_are_few_and_enclose_the_data(chart: Any, low: float, high: float) -> None:
    ticks = chart.ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8
    assert all(math.isclose(b - a, ticks[1] - ticks[0], rel_tol=1e-6) for a, b in pairwise(ticks))


def test_a_spike_survives_thinning(chart: Any) -> None:
    points = [(float(x), 99.0 if x == 7_777 else 1.0) for x in range(20_000)]
    html = chart.chart("Loss", [chart.Line("run", "a", tuple(points))])
    assert "&quot;99&quot;" in html
    assert len(html) < 100_000


def test_what_is_not_finite_is_left_out(chart: Any) -> None:
    line = chart.Line("run", "a", ((1.0, math.nan), (2.0, math.inf), (3.0, 0.5)))
    html = chart.chart("Loss", [line])
    assert "nan" not in html and "inf" not in html and "<circle" in html


def test_a_chart_of_nothing_is_nothing(chart: Any) -> None:
    assert chart.chart("Loss", [chart.Line("run", "a", ())]) == ""


def test_names_are_escaped(chart: Any) -> None:
    line = chart.Line("<script>", "a", ((1.0, 1.0), (2.0, 2.0)))
    assert "<script" not in chart.chart("<img>", [line, line])


def test_a_legend_shows_each_line_as_it_is_drawn(chart: Any) -> None:
    line, point = ((1.0, 2.0), (2.0, 1.0)), ((2.0, 1.5),)
    html = chart.chart("Loss", [chart.Line("a", "a", line), chart.Line("a, held out", "a", point, dashed=True)])
    entries = html.split("<li ")[1:]
    assert "<polyline" in entries[0] and "<circle" not in entries[0]
    assert "<polyline" not in entries[1] and "<circle" in entries[1]


def test_no_two_of_many_lines_look_alike(chart: Any) -> None:
    lines = [chart.Line(str(n), chart.COLOURS[n % 8], ((1.0, 2.0), (2.0, 1.0)), mark=n) for n in range(24)]
    entries = chart.chart("Loss", lines).split("<li ")[1:]
    assert len({entry.split("<span")[0] for entry in entries}) == 24
