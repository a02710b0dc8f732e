"""What a model writes is shown as it was meant, and nothing of it is lost."""

from __future__ import annotations

import importlib
import re
from html import unescape
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def prose(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.prose")


def words(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html)).strip()


def cites(html: str) -> list[str]:
    return re.findall(r'<button[^>]* data-cite="(\d+)"', html)


def test_brackets_are_brackets_where_there_are_no_passages(prose: Any) -> None:
    text = "In numpy a[0] is the first and a[1] the second; see also [12]."
    assert words(prose.prose(text)) == text
    assert "<button" not in prose.prose(text)


@pytest.mark.parametrize(
    ("text", "buttons", "shown"),
    [
        ("It weighs 240 grams [1].", ["1"], "It weighs 240 grams 1."),
        ("It weighs 240 grams[2].", ["2"], "It weighs 240 grams2."),
        ("Both [1, 3] say so.", ["1", "3"], "Both 13 say so."),
        ("Both [1; 3] say so.", ["1", "3"], "Both 13 say so."),
        ("An index a[0] and x_[9] stay.", [], "An index a[0] and x_[9] stay."),
        ("In code `a[1]` too.", [], "In code a[1] too."),
        ("A [1](https://x.example) link.", [], "A 1 link."),
    ],
)
def test_a_citation_needs_a_passage(prose: Any, text: str, buttons: list[str], shown: str) -> None:
    html = prose.prose(text, {1, 2, 3})
    assert (cites(html), words(html)) == (buttons, shown)
    assert prose.cited(text, {1, 2, 3}) == set(map(int, buttons))


def test_a_number_without_a_passage_is_marked(prose: Any) -> None:
    html = prose.prose("See [999].", {1, 2, 3})
    assert 'title="There is no passage 999"' in html and not cites(html)


@pytest.mark.parametrize(
    "text",
    [
        r"$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$",
        "$$\n\\int_{-\\infty}^{\\infty} e^{-x^2}\\,dx = \\sqrt{\\pi}\n$$",
        r"\(a^2 + b^2 = c^2\)",
        r"\[ E = mc^2 \]",
        r"in a line \[ E = mc^2 \] too",
        "\\begin{align}a&=b\\\\c&=d\\end{align}",
    ],
)
def test_formulas_are_typeset(prose: Any, text: str) -> None:
    html = prose.prose(text)
    assert html.count("<math") == 1 and html.count("</math>") == 1
    assert "\\" not in words(html) and "$" not in words(html)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and then $10.", r"\(a^2 is open", r"\[ E is open", r"a \, b", r"a \{ b", "100 $ and 200 $",
        r"$\no_such_command{x}$",
    ],
)  # fmt: skip
def test_what_is_no_formula_keeps_every_character(prose: Any, text: str) -> None:
    assert words(prose.prose(text)).strip("$") == text.strip("$")


@pytest.mark.parametrize("text", [r"$\text{<script>alert(1)</script>}$", r"$\href{javascript:alert(1)}{x}$", r"$\style{x}{y}$"])
def test_a_formula_is_inert(prose: Any, text: str) -> None:
    html = re.sub(r' title="[^"]*"', "", prose.prose(text))
    assert "<script" not in html and "href" not in html and "style" not in html.replace("mstyle", "")


def test_each_block_is_read_from_the_side_of_its_first_letter(prose: Any) -> None:
    html = prose.prose("\u05e9\u05dc\u05d5\u05dd.\n\n- مرحبا\n\n> English\n\n| a |\n|--|\n| ب |")
    for tag in ("p", "ul", "li", "blockquote", "table", "td"):
        assert f'<{tag} dir="auto"' in html
    assert '<code dir="ltr"' in prose.prose("`x`")


def test_what_would_turn_the_text_round_is_shown_by_name(prose: Any) -> None:
    for html in (prose.prose("invoice \u202etxt.exe"), prose.prose("`\u202etxt.exe`"), prose.plain("\u202etxt.exe")):
        assert "\u202e" not in html and ">U+202E</span>txt.exe" in html
    assert prose.plain("\u200f\u05e9") == "\u200f\u05e9", "marks that Hebrew needs stay"


def test_markdown_that_models_write_is_drawn(prose: Any) -> None:
    html = prose.prose(
        "- [ ] todo\n- [x] done\n\nhttps://example.org/a?b=1.\n\n```python\nx = 1\n```\n\n![cat](https://x.example/c.png)"
    )
    assert html.count('type="checkbox"') == 2 and html.count(" checked ") == 1
    assert '<a href="https://example.org/a?b=1" target="_blank"' in html
    assert '<span class="n">x</span>' in html and 'class="copy"' in html
    assert "Image: cat</a>" in html and "<img" not in html


def test_a_growing_text_is_drawn_as_the_finished_one(prose: Any) -> None:
    text = "\n\n".join(f"Paragraph {n} with **bold** words [1]." * 5 for n in range(100)) + "\n\n```\ncode\n\nmore\n```"
    assert prose.growing(text, {1}) == prose.prose(text, {1})
