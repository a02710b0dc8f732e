"""What a model, a document or a server wrote comes out inert."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import pytest

from llmbench.endpoint import Delta, Reply

SAFE = {
    "a", "article", "b", "blockquote", "br", "button", "code", "dd", "div", "dl", "dt", "em", "h1", "h2", "h3", "header", "hr",
    "i", "input", "label", "li", "math", "mfrac", "mi", "mn", "mo", "mrow", "mspace", "msqrt", "msub", "msubsup", "msup",
    "mtext", "ol", "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


class Elements(HTMLParser):
    """Every element of a page with its attributes, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_inert(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert tag in SAFE, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "action")]
        assert re.match(r"https?://|mailto:", attributes.get("href") or "https://")


@pytest.fixture
def render(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.render")


@pytest.fixture
def turn(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.conversation").Turn


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,x) [d](vbscript:x)",
        "[e](file:///etc/passwd) [f](/x)",
        "[a](java&#115;cript:alert(1)) [b](&#106;avascript:x) <javascript:alert(1)> [c](//evil.example)",
        '```"><script>alert(1)</script>\ncode\n```',
        '[a](https://x.example/"onmouseover="alert(1) "title\\" onload=x")',
        "![pixel](https://x.example/p.png)",
        "| a |\n|--|\n| <svg/onload=alert(1)> |",
    ],
)
def test_output_of_a_model_is_inert(render: Any, turn: Any, text: str) -> None:
    said = turn(text, text)
    said.take(Delta(text=text, sources=({"n": 1, "title": text, "source": text, "text": text, "score": 0.5},)))
    assert_inert(render.turn(said, side="0"))
    said.error = text
    assert_inert(render.turn(said, side="0"))
    assert_inert(render.empty(text, text, command=text) + render.notice(text, text))


def test_every_known_attack_at_once_is_inert(render: Any, turn: Any, server: Any) -> None:
    said = turn("q", "m")
    said.take(Delta(text=server.hostile, sources=server.sources))
    assert_inert(render.turn(said, side="0"))


def test_an_image_is_never_fetched_because_a_model_wrote_it(render: Any) -> None:
    html = render.prose("![pixel](https://x.example/p.png)")
    assert "<img" not in html
    assert 'rel="noopener noreferrer nofollow"' in html


def test_markdown_is_rendered(render: Any) -> None:
    html = render.prose("**bold** `code`\n\n- one\n- two\n\n| a | b |\n|--|--|\n| 1 | 2 |")
    assert all(part in html for part in ("<strong>bold</strong>", ">code</code>", ">one</li>", ">2</td>"))


def test_a_citation_points_to_its_passage_and_marks_it(render: Any, turn: Any, server: Any) -> None:
    said = turn("How heavy?", "m")
    said.take(Delta(text="240 grams [1]. See [home](https://x.example).", sources=server.sources))
    elements = Elements(render.turn(said, side="0")).found
    assert [e["data-cite"] for t, e in elements if t == "button" and "data-cite" in e] == ["1"]
    assert [(e["data-n"], "data-cited" in e) for t, e in elements if t == "li"] == [("1", True), ("2", False), ("3", False)]
    assert "3 passages, 1 cited" in render.turn(said, side="0")


def test_a_definition_of_a_reference_is_shown_and_resolves_nothing(render: Any) -> None:
    html = render.prose("See [1].\n\n[1]: https://x.example", {1})
    assert html.count('class="cite"') == 2
    assert html.count("href") == 1 and ">https://x.example</a>" in html, "the address is a link of its own"


def test_figures_show_what_the_endpoint_told(render: Any, turn: Any) -> None:
    said = turn("q", "m")
    said.take(
        Delta(text="x", reply=Reply("x", "m", latency=2.5, first_token=0.5, completion_tokens=41, finish_reason="length"))
    )
    html = render.turn(said, side="0")
    assert all(part in html for part in ("2.50 s", "500 ms", "<dd>41</dd>", "<dd>16</dd>", "Cut off at the token limit"))


def test_an_answer_can_be_voted_on_where_the_endpoint_takes_votes(render: Any, turn: Any) -> None:
    said = turn("q", "m")
    said.take(Delta(text="x"))
    assert "data-vote" not in render.turn(said, side="0")
    said.take(Delta(reply=Reply("x", "m", latency=2.5, request_id="r1")))
    for vote, pressed in ((None, ["false", "false"]), (True, ["true", "false"]), (False, ["false", "true"])):
        said.vote = vote
        buttons = [e for t, e in Elements(render.turn(said, side="0-3")).found if t == "button"]
        assert [(e["data-vote"], e["aria-label"]) for e in buttons] == [("0-3:up", "Good answer"), ("0-3:down", "Bad answer")]
        assert [e["aria-pressed"] for e in buttons] == pressed
    for other in ({"text": ""}, {"reply": Reply("x", "m", latency=2.5)}):
        assert "data-vote" not in render.turn(replace(said, **other), side="0")


def test_figures_that_the_endpoint_did_not_tell_are_left_out(render: Any, turn: Any) -> None:
    said = turn("q", "m")
    said.take(Delta(text="x", reply=Reply("x", "m", latency=0.25)))
    html = render.turn(said, side="0")
    assert "250 ms" in html
    assert "Tokens" not in html and "First token" not in html


def test_sources_of_any_shape_are_shown(render: Any, turn: Any) -> None:
    said = turn("q", "m")
    said.take(Delta(sources=({"text": "only text", "score": "high"}, "a string")))  # type: ignore[arg-type]
    html = render.turn(said, side="0")
    assert "only text" in html and "a string" in html


def test_a_passage_names_its_page_and_can_be_opened_where_its_pipeline_is(render: Any, turn: Any) -> None:
    said = turn("q", "model-rag")
    place = {"n": 1, "source": "a.pdf", "page": 3, "start": 10, "end": 20, "text": "t"}
    said.take(Delta(text="x", sources=(place, place | {"n": 2, "page": "<b>", "start": None})))
    assert "a.pdf · page 3<" in render.turn(said, side="0") and "data-open" not in render.turn(said, side="0")
    here = render.turn(said, side="0-1", here={"model-rag"})
    assert 'data-open="0-1:1"' in here and here.count("data-open") == 1
    assert "<b>" not in here.split("passages", 1)[1].split("<ol>")[1].replace('<b class="n">', "")
