"""Every page that llmbench writes is one file that loads nothing, obeys nothing that stands in the data, and can be printed."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.data.looking import chat, looked

from llmbench.compare import Comparison, Question, Row, report
from llmbench.compare.answers import Answer
from llmbench.data import page as data_page
from llmbench.data.report import Note, Section
from llmbench.page import document, mark
from llmbench.retrieval.evaluation import HEADLINE, MEASURES, Report
from llmbench.retrieval.evaluation import page as evaluation_page
from llmbench.retrieval.evaluation.report import Row as EvaluatedRow
from llmbench.statistics import Difference, Estimate

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KINDS = ["data report", "comparison", "retrieval evaluation"]
NAME = "<img src=x onerror=harm()>\"'&\u202egnp.exe\x1b[2J<svg onload=harm()>"
TEXT = f"</script></style></main><script>harm()</script><style>*{{display:none}}</style>{NAME} <a href=http://x.example>x</a>"


def data_report(folder: Path) -> str:
    """The data report of hostile rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        rows = [chat(TEXT, TEXT), chat(TEXT, TEXT), chat("Why?", "word " * 700)]
        found = looked(folder, rows, data={"max_length": 4096}, model={"model_name_or_path": "llmbench/tiny"})
    found = replace(found, name=NAME, recipe=NAME, model=NAME)
    return data_page.html(found.adding([Note("error", TEXT, TEXT, TEXT)], [Section(TEXT, (TEXT,))]))


def comparison(folder: Path) -> str:
    """The report of a comparison in which everything that somebody may write is hostile."""
    variants = (NAME, f"{NAME} too")
    of = {variants[0]: Estimate(0.5, 0.2, 0.8, 9), variants[1]: Estimate(0.7, 0.4, 0.9, 9)}
    question = Question(TEXT, TEXT, TEXT, TEXT, TEXT)
    answers = [
        Answer(TEXT, variant, "key", TEXT, ({"n": 1, "source": TEXT, "text": TEXT, "title": TEXT},), 0.5, 0.1, 9, 4)
        for variant in variants
    ]
    return report.html(
        Comparison(
            folder=folder / NAME,
            created=0.0,
            endpoint=TEXT,
            source=TEXT,
            split=TEXT,
            variants=(*variants, "silent"),
            questions=(question,),
            headline="exact_match",
            verdict=f"{TEXT}: {TEXT}",
            estimates={"exact_match": of},
            kinds={},
            differences=(Difference("exact_match", *variants, -0.2, -0.3, -0.1, 9, 1, 5, 0.01, 0.01, 0.1),),
            quantiles={},
            grid=None,
            interaction=None,
            missing=1,
            confidence=0.95,
            concurrency=8,
            max_tokens=64,
            listing={},
            versions={},
            rows=tuple(Row(question, answer, {"exact_match": 1.0}) for answer in answers),
            failed={"silent": TEXT},
            notes=(TEXT,),
        )
    )


def evaluation() -> str:
    """The page of an evaluation with hostile names and notes."""
    arms = ("dense", NAME)
    rows = [EvaluatedRow(arm, {name: Estimate(0.5, 0.4, 0.6, 9) for name in MEASURES}, 0.01, 0) for arm in arms]
    difference = Difference(HEADLINE, *arms, 0.1, -0.1, 0.2, 9, 4, 3, 0.3, 0.3, 0.05)
    tuning = {"alpha": 0.5, "curve": [(0.0, 0.4), (0.5, 0.6), (1.0, 0.5)]}
    return evaluation_page.page(Report(NAME, TEXT, 9, 9, 100, "dense", tuple(rows), (difference,), (TEXT,), tuning))


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and what stands in its scripts and as text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._script = self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._script, self._style = tag == "script", tag == "style"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = self._style = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        elif not self._style:
            self.text += data

    def meta(self, name: str, key: str = "name") -> str:
        [content] = [attributes["content"] for tag, attributes in self.found if tag == "meta" and attributes.get(key) == name]
        return content or ""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hostile")
    made = [data_report(folder), comparison(folder), evaluation()]
    return dict(zip(KINDS, made, strict=True))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def html(pages: dict[str, str], kind: str) -> str:
    return pages[kind]


def test_a_page_may_load_nothing_and_run_only_the_script_that_it_came_with(html: str, kind: str) -> None:
    elements = Elements(html)
    policy = dict(rule.split(" ", 1) for rule in elements.meta("Content-Security-Policy", "http-equiv").split("; "))
    programs = [
        script
        for script, (_, attributes) in zip(elements.scripts, [one for one in elements.found if one[0] == "script"], strict=True)
        if attributes.get("type") != "application/json"
    ]
    allowed = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in programs]
    assert len(programs) == (kind == "comparison")
    assert policy == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    } | ({"script-src": " ".join(allowed)} if allowed else {})


def test_a_page_names_no_other_file_and_no_element_acts(html: str) -> None:
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag not in ("img", "a", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.keys() & {"src", "srcset", "action", "formaction", "ping", "srcdoc"}
        assert attributes.get("href", "data:,") == "data:,"
    assert not re.search(r"url\(|@import", html)
    assert [tag for tag, _ in elements.found].count("style") == 1


def test_what_others_wrote_is_text_in_which_nothing_is_hidden(html: str) -> None:
    elements = Elements(html)
    assert "\u202e" not in html and "\x1b" not in html
    shown = NAME.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert f"</main><script>harm()</script><style>*{{display:none}}</style>{shown}" in elements.text


def test_a_page_says_what_wrote_it_and_its_kind_is_told_from_others(html: str, kind: str) -> None:
    elements = Elements(html)
    assert elements.meta("generator") == f"llmbench {kind}"
    assert [other for other in KINDS if re.search(mark(other), html[:2000])] == [kind]
    assert elements.meta("viewport") == "width=device-width, initial-scale=1"
    assert elements.meta("color-scheme") == "light dark"


def test_a_page_is_dark_on_screens_only_and_has_rules_for_paper(html: str) -> None:
    assert "@media print" in html
    assert re.findall(r"@media (.*)\(prefers-color-scheme", html) == ["screen and "] * html.count("prefers-color-scheme")


def test_data_cannot_end_its_element_and_comes_back_as_it_was() -> None:
    import json

    elements = Elements(document("x", "test", "", script="1", data={"a": ["</script><b>", 1, None], "b": "\u202e\n"}))
    assert [tag for tag, _ in elements.found].count("b") == 0
    assert json.loads(elements.scripts[0]) == {"a": ["</script><b>", 1, None], "b": "\\u202e\n"}


def light(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_its_background_as_wcag_asks(scheme: int) -> None:
    css = resources.files("llmbench.page").joinpath("page.css").read_text(encoding="utf-8")
    block = css.split(":root {")[scheme + 1].split("}")[0]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    pairs = [(text, behind) for text in ("ink", "soft", "faint", "good", "bad") for behind in ("page", "surface")]
    pairs += [("good", "chip"), ("bad", "chip"), ("ink", "mark")]
    for text, behind in [*pairs, *((level, f"{level}-back") for level in ("bad", "warn", "note"))]:
        dark, bright = sorted((light(colours[text]), light(colours[behind])))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, behind)


@pytest.fixture
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        except sync_api.Error as error:
            pytest.skip(f"no browser: {error.message.splitlines()[0]}")
        yield found
        found.close()


@pytest.mark.slow
def test_a_browser_shows_a_page_whole_on_a_phone_and_prints_it_light_and_open(
    browser: Browser, html: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: troubles.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
    page.goto(file.as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.evaluate(background) == "rgb(19, 21, 24)"
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 between its margins
    assert page.evaluate("document.documentElement.scrollWidth") == 690
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    hidden = "(all) => all.filter((one) => !one.checkVisibility({contentVisibilityAuto: true})).length"
    assert page.locator("details:not(.answer *) > :not(summary)").evaluate_all(hidden) == 0
    controls = page.locator("input, select, button")
    assert controls.evaluate_all(hidden) == controls.count()
    assert troubles == []
