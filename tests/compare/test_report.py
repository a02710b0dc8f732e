from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import compare
from llmbench.compare import charts
from llmbench.compare.result import Comparison
from llmbench.recipe import CompareRecipe
from llmbench.statistics import Difference, Estimate
from llmbench.svg.scale import ticks

if TYPE_CHECKING:
    from playwright.sync_api import Page

Document = Callable[..., CompareRecipe]
EVIL = "</script><script>alert(document.title)</script><img src=x onerror=alert(document.title)> It weighs 300 grams [1]."


class Reader(HTMLParser):
    """Collects elements and their attributes, and that every element that must be closed is."""

    VOID = {"meta", "link", "input", "br", "line", "circle"}

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID and tag != "th":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag != "th":
            assert self.open.pop() == tag


@pytest.fixture
def made(fake: Any, document: Document) -> Comparison:
    return compare.run(document(), endpoint=fake)


def test_the_report_needs_nothing_from_outside(made: Comparison) -> None:
    text = made.report.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    for tag, attributes in reader.elements:
        assert not {"src", "srcset", "action", "formaction", "ping"} & attributes.keys()
        assert attributes.get("href", "data:,") == "data:,", tag
    assert not re.search(r"url\(|@import", text)
    policy = next(a["content"] for tag, a in reader.elements if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-inline'; img-src data:; script-src 'sha256-" in policy


def test_what_models_and_users_write_stays_text(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("variants=[base, adapter]")
    fake.answer = lambda variant, question: EVIL
    fake.entries = [{**entry, "description": EVIL} for entry in fake.entries]
    path = tmp_path / "questions.jsonl"
    path.write_text(
        path.read_text(encoding="utf-8").replace("How heavy", "<script>alert(3)</script>How heavy"), encoding="utf-8"
    )
    text = compare.run(recipe, endpoint=fake).report.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert [tag for tag, _ in reader.elements].count("script") == 2
    assert not any(tag == "img" for tag, _ in reader.elements)
    assert "alert(document.title)" in text


def test_a_variants_name_is_escaped(fake: Any, document: Document) -> None:
    fake.entries = [{"id": "<b>base</b>"}, {"id": "adapter"}]
    text = compare.run(document("variants=['<b>base</b>', adapter]"), endpoint=fake).report.read_text(encoding="utf-8")
    assert "&lt;b&gt;base" in text
    assert "<b>base</b>" not in text


def test_the_report_says_verdict_figures_and_definitions(made: Comparison) -> None:
    text = made.report.read_text(encoding="utf-8")
    claim, _, figures = made.verdict.partition(": ")
    assert f"<h1>{claim}</h1>" in text
    assert figures.replace("<", "&lt;") in text
    assert len(re.findall(r'class="panel[ "]', text)) == 8  # five metrics, the first of them by kind of question, and latency
    assert "Listing does not count" in text
    assert "McNemar" in text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.13, 0.86, [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.004, 0.0, [-0.004, -0.003, -0.002, -0.001, 0.0]),
        (0.0, 37.2, [0, 10, 20, 30, 40]),
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
)
def test_axes_have_round_marks_around_all_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 6) == pytest.approx(expected)


def test_dots_stand_where_their_shares_are() -> None:
    text = charts.dots("grounded", {"a": Estimate(0.25, 0.1, 0.5, 40)}, {"a": 0})
    assert 'class="dot" cx="25.00%"' in text
    assert 'class="interval" x1="10.00%" x2="50.00%"' in text


def test_a_straggler_does_not_press_the_latencies_together() -> None:
    text = charts.curves({"a": [1.0] * 199 + [500.0]}, {"a": 0})
    assert "500" not in text
    assert 'd="M0 100H100.00V99.50' in text
    assert "V0.50H100" in text


def test_equal_differences_have_an_axis_too() -> None:
    same = Difference("squad_f1", "a", "b", 0.0, 0.0, 0.0, 9, 0, 0, 1.0, 1.0, None)
    assert 'cx="50.00%"' in charts.forest("squad_f1", [same], {"a": 0, "b": 1}, 0.05)
    assert charts.curves({"a": []}, {"a": 0})


def test_text_has_its_own_direction_and_nothing_turns_it(fake: Any, document: Document) -> None:
    fake.answer = lambda variant, question: "\u202etxt.exe"
    text = compare.run(document(), endpoint=fake).report.read_text(encoding="utf-8")
    assert "\u202e" not in text
    assert "\\\\u202etxt.exe" in text, "written out, in JSON's own spelling"
    assert 'element.dir = "auto"' in text and '<dd dir="auto">' in text


@pytest.fixture
def page() -> Iterator[Page]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        except sync_api.Error as error:
            pytest.skip(f"no browser: {error.message.splitlines()[0]}")
        yield browser.new_page(viewport={"width": 390, "height": 800})
        browser.close()


@pytest.fixture
def hostile(fake: Any, document: Document) -> Path:
    """A report in which every variant answers one question with markup."""
    calm = fake.answer
    fake.answer = lambda variant, question: EVIL if question.endswith("heavy is kettle 7?") else calm(variant, question)
    return compare.run(document(), endpoint=fake).report


@pytest.mark.slow
def test_the_explorer_finds_and_marks_single_answers(hostile: Path, page: Page) -> None:
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("request", lambda request: troubles.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(hostile.as_uri())
    assert page.locator("#count").inner_text() == "16 of 16 questions"
    page.fill("#search", "heavy is kettle 7")
    assert page.locator("#cards .card").count() == 1
    assert page.locator(".card .said").first.inner_text().startswith("</script><script>alert(")
    assert page.locator(".card .answer mark").first.inner_text() == "300 grams"
    assert page.locator(".card .answer:last-child header").inner_text().split("\n")[-1] == "\u2713 right"
    page.locator(".card .answer:last-child summary").click()
    assert page.locator(".card .answer:last-child .passage").inner_text().startswith("[1] handbook/kettle.md")
    page.fill("#search", "")
    page.select_option("#kind", "0")
    page.select_option("#variant", label="adapter-rag")
    page.select_option("#outcome", "1")
    assert page.locator("#count").inner_text() == "4 of 16 questions"
    page.select_option("#variant", label="base")
    assert page.locator("#count").inner_text() == "0 of 16 questions"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert troubles == []
