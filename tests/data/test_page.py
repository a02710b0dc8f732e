"""The report for people, in the terminal and as a page: what stands in the data is shown and does nothing."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from llmbench.data import page, terminal
from llmbench.data.report import DataReport, Note, Section

from .looking import chat, looked

HOSTILE = (
    "<script>harm()</script></div></details><img src=x onerror=harm()> \x1b[2J\x1b]0;title\x07 \u202egnp.exe "
    "[bold red]markup[/] </style><style>*{display:none}</style> ${harm} {{harm}} &lt; \" ' -->"
)
ELEMENTS = {
    "html", "head", "meta", "link", "title", "style", "body", "main", "header", "section", "h1", "h2", "p", "b", "i", "span",
    "dl", "div", "dt", "dd", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "svg", "g", "line",
    "rect", "text", "details", "summary", "br",
}  # fmt: skip


class Elements(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> DataReport:
    """A report of rows that try to harm whoever looks at them."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>x"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        rows = [chat(HOSTILE, HOSTILE), chat(HOSTILE, HOSTILE), chat("Why?", "word " * 250)]
        found = looked(folder, rows, data={"max_length": 4096}, model={"model_name_or_path": "llmbench/tiny"})
    return found.adding([Note("error", HOSTILE, HOSTILE, HOSTILE)], [Section(HOSTILE, (HOSTILE,))])


def printed(report: DataReport, *, width: int = 80, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        highlight=False,
        markup=False,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
    )
    terminal.show(report, console)
    return out.getvalue()


def test_the_page_holds_its_own_elements_and_no_others(hostile: DataReport) -> None:
    elements = Elements(page.html(hostile))
    assert {tag for tag, _ in elements.found} <= ELEMENTS
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert [tag for tag, _ in elements.found].count("style") == 1
    assert "<script>harm()</script>" in elements.text


def test_the_page_runs_no_script_and_asks_for_nothing(hostile: DataReport) -> None:
    html = page.html(hostile)
    assert "default-src 'none'" in html
    assert "<script" not in html
    links = {value for _, attributes in Elements(html).found for name, value in attributes.items() if name in ("href", "src")}
    assert links == {"data:,"}
    assert not re.search(r"url\(", html)


def test_control_characters_are_shown_on_the_page(hostile: DataReport) -> None:
    html = page.html(hostile)
    assert "\x1b" not in html and "\u202e" not in html
    assert "\\x1b" in html and "\\u202e" in html


def test_a_long_run_is_folded_on_the_page(hostile: DataReport) -> None:
    assert re.search(r"<details><summary>[\d,]+ more tokens</summary>", page.html(hostile))


def test_no_control_character_of_the_data_reaches_the_terminal(hostile: DataReport) -> None:
    for colour in (False, True):
        text = printed(hostile, colour=colour)
        assert "\x1b[2J" not in text and "\x1b]" not in text and "\x07" not in text and "\u202e" not in text
        assert "\\x1b" in text
    assert "\x1b" not in printed(hostile)


def test_markup_of_the_data_is_text(hostile: DataReport) -> None:
    assert "[bold red]markup[/]" in printed(hostile, width=300)


def test_learned_tokens_stand_in_brackets_without_colour(hostile: DataReport) -> None:
    text = printed(hostile, width=400)
    assert "⟦<script>harm()" in text and "<|im_end|>⟧" in text
    assert "⟦" not in printed(hostile, colour=True)


def test_learned_tokens_are_green_and_bold_in_colour(hostile: DataReport) -> None:
    assert re.search(r"\x1b\[1;30;102m", printed(hostile, colour=True))


@pytest.mark.parametrize("width", [80, 60, 120])
def test_no_line_is_wider_than_the_terminal_nor_ends_in_spaces(hostile: DataReport, width: int) -> None:
    for line in printed(hostile, width=width).splitlines():
        assert len(line) <= width, line
        assert line == line.rstrip(), line


def test_the_last_line_says_what_the_notes_come_to(hostile: DataReport) -> None:
    assert printed(hostile).splitlines()[-1].startswith("Training would start (1 error")
    assert printed(replace(hostile, notes=())).splitlines()[-1] == "No problems found."
    refused = replace(hostile, notes=(Note("refused", "a", "b"), Note("note", "a", "b")))
    assert terminal.verdict(refused) == ("Training would not start", "1 note")
    notes = (Note("note", "a", "b"),) * 2
    assert terminal.verdict(replace(hostile, notes=notes)) == ("No problems found", "2 notes")


def test_a_training_prints_what_is_grave(hostile: DataReport) -> None:
    few = replace(
        hostile, notes=(Note("error", "data", "one"), Note("warning", "data.eval", "two"), Note("note", "x", "three"))
    )
    assert terminal.brief(few) == ["error   data: one", "warning data.eval: two"]


def test_bars_of_the_histogram_are_as_high_as_their_counts(hostile: DataReport) -> None:
    rects = [attributes for tag, attributes in Elements(page.html(hostile)).found if tag == "rect"]
    heights = [float(str(attributes["height"])) for attributes in rects]
    counts = [one.rows for one in hostile.train.lengths.histogram]
    tallest = max(heights)
    for height, count in zip(heights, counts, strict=True):
        assert height == pytest.approx(tallest * count / max(counts), abs=1)


def test_the_page_is_written_into_a_folder_with_the_json(hostile: DataReport, tmp_path: Path) -> None:
    from llmbench.data import kept
    from llmbench.data.report import read_json

    kept.write(hostile, tmp_path / "run")
    assert read_json((tmp_path / "run" / "data.json").read_text(encoding="utf-8")) == hostile
    assert (tmp_path / "run" / "data.html").read_text(encoding="utf-8") == page.html(hostile)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["data.html", "data.json"]
