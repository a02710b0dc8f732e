"""The page of an evaluation: each figure drawn where it is, the pipeline told from the others, chance told from differences."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from llmbench.retrieval.evaluation.metrics import HEADLINE, MEASURES
from llmbench.retrieval.evaluation.page import page
from llmbench.retrieval.evaluation.report import Report, Row
from llmbench.statistics import Difference, Estimate


@pytest.fixture
def report() -> Report:
    means = {"dense": 0.25, "terms": 0.5, "fused": 0.75}
    rows = tuple(
        Row(name, {measure: Estimate(mean, mean - 0.1, mean + 0.1, 40) for measure in MEASURES}, 0.01, 0)
        for name, mean in means.items()
    )
    differences = (
        Difference(HEADLINE, "fused", "dense", 0.5, 0.4, 0.6, 40, 30, 2, 0.001, 0.002, 0.1),
        Difference(HEADLINE, "fused", "terms", 0.25, -0.05, 0.55, 40, 20, 9, 0.2, 0.2, 0.1),
    )
    tuning = {"alpha": 0.5, "curve": [(0.0, 0.5), (0.5, 0.7), (1.0, 0.3)]}
    return Report("things", "set/test", 40, 8, 120, "fused", rows, differences, ("A note.",), tuning)


def section(html: str, heading: str) -> str:
    return html.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]


def test_dots_stand_at_their_means_and_the_pipeline_has_its_own_colour(report: Report) -> None:
    found = section(page(report), HEADLINE)
    assert re.findall(r'class="dot" cx="([\d.]+)%"', found) == ["25.00", "50.00", "75.00"]
    assert re.findall(r'<div class="line (v\d)"><div class="who"><bdi>(\w+)', found) == [
        ("v0", "dense"), ("v0", "terms"), ("v3", "fused"),
    ]  # fmt: skip
    assert "Green is the pipeline as its recipe has it: fused." in found


def test_a_difference_that_may_be_chance_is_hollow(report: Report) -> None:
    found = section(page(report), "Differences")
    assert re.findall(r'class="(dot|hollow)" cx="([\d.]+)%"', found) == [("dot", "87.50"), ("hollow", "56.25")]
    assert re.findall(r'<div class="line (\w+)">', found) == ["v3", "unsure", "axis"]
    assert re.findall(r'text-anchor="middle">([^<]+)<', found)[:2] == ["-0.2", "0"]


def test_the_curve_of_alpha_has_numbers_on_both_axes_and_a_dot_at_the_best(report: Report) -> None:
    found = section(page(report), "Tuning")
    assert re.findall(r"<span[^>]*>([^<]+)</span>", found) == [
        "0.3", "0.4", "0.5", "0.6", "0.7", "0: terms", "0.25", "0.5", "0.75", "1: dense",
    ]  # fmt: skip
    assert 'class="v3 point" d="M50.00 0.00h0"' in found and "the best alpha, 0.5." in found


def test_one_way_to_search_alone_has_no_differences_and_nothing_tuned_no_curve(report: Report) -> None:
    html = page(replace(report, rows=report.rows[-1:], differences=(), notes=(), tuning=None))
    assert re.findall(r"<h2>(.*?)</h2>", html) == [HEADLINE, "All figures"]
    assert html.count("<table>") == 1 and 'class="notes"' not in html


def test_the_page_says_what_came_of_it_and_how_deep_it_looked(report: Report) -> None:
    head = unescape(page(report).split("</header>")[0])
    for words in (
        "fused is better than dense by 0.5000 (p = 0.002).",
        "things on set/test",
        "A note.",
        '<dd dir="auto">120</dd>',
    ):
        assert words in head
