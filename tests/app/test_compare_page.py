"""Compare, in a real browser, on an endpoint whose models have different speeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.slow

DONE = """() => {
  const turns = [...document.querySelectorAll('.side .live .turn')];
  return turns.length > 1 && turns.every((turn) => turn.dataset.state === 'done');
}"""


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    return open_page(context, address)


def open_page(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pill[data-on=yes]")
    return page


def side(page: Page, position: int) -> Locator:
    return page.locator(f".side-{position}")


def choose(page: Page, position: int, model: str) -> None:
    picker = side(page, position).locator(".picker input")
    picker.click()
    # Gradio takes the mouse going down; a click would first wait for the list to stop moving.
    page.get_by_role("option", name=model, exact=True).dispatch_event("mousedown")
    page.get_by_role("option").first.wait_for(state="detached")
    assert picker.input_value() == model


def ask(page: Page, question: str) -> None:
    page.fill("#prompt textarea", question)
    page.press("#prompt textarea", "Enter")
    page.wait_for_function(
        "(q) => document.querySelector('.live .question')?.innerText === q", arg=question
    )  # not the last one


def answered(page: Page) -> None:
    """Waits until every side is done and the page takes the next question."""
    page.wait_for_function(DONE)
    page.wait_for_selector("#send", state="visible")


def test_each_side_streams_on_its_own_clock(page: Page) -> None:
    ask(page, "How much does the Belvi camera weigh?")
    lengths: dict[int, set[int]] = {0: set(), 1: set()}
    states: set[tuple[str, ...]] = set()
    while (now := page.eval_on_selector_all(".side .live .turn", "all => all.map((t) => t.dataset.state)")) != ["done", "done"]:
        states.add(tuple(now))
        for i in lengths:
            lengths[i].add(len(side(page, i).locator(".live .answer").inner_text()))
    assert len(lengths[1]) >= 4, "the slow side grew step by step"
    assert ("done", "writing") in states, "the fast side ended while the slow one wrote"
    assert "240 grams" in side(page, 1).locator(".answer").inner_text()


def test_figures_and_passages_stand_under_the_answer(page: Page) -> None:
    ask(page, "How much does the Belvi camera weigh?")
    answered(page)
    rag = side(page, 1)
    assert rag.locator(".figures dt").all_inner_texts() == ["Latency", "First token", "Tokens", "Tokens/s"]
    assert rag.locator(".passages li").count() == 3
    assert rag.locator(".passages li[data-cited]").count() == 2
    first = rag.locator(".passages li").first
    assert (
        "Belvi camera" in first.inner_text()
        and "products/belvi-camera.md" in first.inner_text()
        and "score 0.812" in first.inner_text()
    )
    assert side(page, 0).locator(".passages").count() == 0
    rag.get_by_text("3 passages, 2 cited").click()
    assert not first.is_visible()
    rag.locator(".cite").first.click()
    assert first.is_visible()


@pytest.mark.usefixtures("brisk")
def test_answers_are_voted_on_and_the_votes_survive_a_reload(page: Page, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "votes", [])
    server.requests.clear()
    ask(page, "First question")
    answered(page)
    ask(page, "Second question")
    page.wait_for_function("() => document.querySelectorAll('.past .turn').length === 2")
    answered(page)
    side(page, 0).locator(".past .vote").first.click()
    page.wait_for_selector(".side-0 .past .vote[aria-pressed=true]")
    side(page, 1).get_by_label("Bad answer").last.click()
    page.wait_for_selector(".side-1 .live .vote[aria-pressed=true]")
    asked = [(body["model"], body["messages"][-1]["content"]) for body in server.requests]
    ids = [f"r{1 + asked.index(one)}" for one in (("fast", "First question"), ("slow-rag", "Second question"))]
    assert server.votes == [
        {"request_id": ids[0], "metric": "vote", "value": True},
        {"request_id": ids[1], "metric": "vote", "value": False},
    ]
    page.reload()
    page.wait_for_selector(".side-1 .live .vote[aria-pressed=true][aria-label='Bad answer']")
    assert page.locator(".vote[aria-pressed=true]").count() == 2
    monkeypatch.setattr(server, "votes", None)  # another server by now
    side(page, 0).locator(".live .vote").first.click()
    page.wait_for_selector(".notice")
    assert "The vote was not counted." in page.locator(".notice").inner_text()
    assert page.locator(".vote[aria-pressed=true]").count() == 2
    page.click("#clear")
    page.wait_for_function("() => !document.querySelector('.turn')")


@pytest.mark.usefixtures("brisk")
def test_each_side_keeps_its_own_conversation(page: Page, server: Any) -> None:
    server.requests.clear()
    ask(page, "First question")
    answered(page)
    ask(page, "Second question")
    page.wait_for_function("() => document.querySelectorAll('.past .turn').length === 2")
    answered(page)
    second = {body["model"]: body["messages"] for body in server.requests[2:]}
    assert [m["role"] for m in second["fast"]] == ["user", "assistant", "user"]
    assert "You asked: First question" in second["fast"][1]["content"]
    assert "Belvi camera" in second["slow-rag"][1]["content"]
    page.click("#clear")
    page.wait_for_function("() => !document.querySelector('.turn')")


def test_stop_keeps_the_text_and_closes_the_request(page: Page, server: Any) -> None:
    choose(page, 0, "hangs")
    ask(page, "Anything")
    page.wait_for_selector(".side-0 .turn[data-state=writing]")
    page.click("#stop")
    page.wait_for_selector(".side-0 .turn[data-state=stopped]")
    assert "Let me think" in side(page, 0).locator(".answer").inner_text()
    page.wait_for_selector("#send", state="visible")
    assert server.left == ["hangs"]
    server.left.clear()


def test_a_closed_page_closes_its_requests(page: Page, server: Any) -> None:
    choose(page, 0, "hangs")
    ask(page, "Anything")
    page.wait_for_selector(".side-0 .turn[data-state=writing]")
    other = page.context.new_page()
    page.close()
    for _ in range(300):
        if server.left:
            break
        other.wait_for_timeout(100)
    assert server.left == ["hangs"]
    server.left.clear()


def test_a_failing_side_says_why_in_one_line_and_the_other_answers(page: Page) -> None:
    choose(page, 0, "fails")
    ask(page, "Anything")
    page.wait_for_selector(".side-1 .turn[data-state=done]")
    notice = side(page, 0).locator(".notice").inner_text()
    assert "answered 503: the engine <b>died</b>" in notice and "\n" not in notice


@pytest.mark.usefixtures("brisk")
def test_what_a_model_wrote_is_harmless(page: Page) -> None:
    choose(page, 0, "hostile")
    ask(page, "Anything")
    answered(page)
    for link in side(page, 0).locator(".answer a").all():
        assert (link.get_attribute("href") or "").startswith(("http://", "https://"))
    assert page.evaluate("() => window.harmed === undefined")
    assert page.locator(".talk script, .talk img, .talk svg, .talk iframe").count() == 0
    assert "<script>" in side(page, 0).locator(".answer").inner_text()


@pytest.mark.usefixtures("brisk")
def test_sides_are_added_and_removed(page: Page) -> None:
    page.click("#add")
    side(page, 2).wait_for(state="visible")
    page.click("#add")
    side(page, 3).wait_for(state="visible")
    assert not page.locator("#add").is_visible()
    ask(page, "To all four")
    answered(page)
    assert page.locator(".side .live .turn").count() == 4
    side(page, 1).locator(".remove").click()
    side(page, 1).wait_for(state="hidden")
    side(page, 0).locator(".remove").click()
    side(page, 0).wait_for(state="hidden")
    assert not side(page, 2).locator(".remove").is_visible(), "two sides stay"


@pytest.mark.usefixtures("brisk")
def test_a_refresh_keeps_the_conversation_and_another_browser_does_not_see_it(page: Page, browser: Any, address: str) -> None:
    ask(page, "Remember me")
    answered(page)
    page.reload()
    page.wait_for_selector(".side-0 .turn[data-state=done]")
    assert "You asked: Remember me" in side(page, 0).locator(".answer").inner_text()
    stranger = browser.new_context()
    other = open_page(stranger, address)
    assert other.locator(".turn").count() == 0
    stranger.close()


@pytest.mark.usefixtures("brisk")
def test_an_example_asks_itself(page: Page) -> None:
    chip = page.locator(".chip").first
    question = chip.inner_text()
    chip.click()
    answered(page)
    assert side(page, 0).locator(".question").inner_text() == question
    assert not chip.is_visible()


def test_without_an_endpoint_the_page_says_how_to_start_one(
    context: BrowserContext, address: str, server: Any, write: Any
) -> None:
    page = open_page(context, address)
    page.click("#endpoint button")
    url = page.locator("#url input, #url textarea")
    write(url, "http://127.0.0.1:9/v1")
    page.click("#connect")
    page.wait_for_selector(".offline", state="visible")
    assert "No endpoint answers at http://127.0.0.1:9/v1" in page.locator(".offline").inner_text()
    assert "llmbench serve recipes/serve.yaml" in page.locator(".offline").inner_text()
    assert page.locator(".pill[data-on=no]").is_visible()
    write(url, server.base_url)
    page.click("#again")
    page.wait_for_selector(".sides", state="visible")
    assert side(page, 0).locator(".picker input").input_value() == "fast"


def test_the_theme_follows_the_system_until_it_is_chosen(page: Page) -> None:
    def turns(dark: bool) -> None:
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=dark)

    turns(dark=False)
    page.emulate_media(color_scheme="dark")
    turns(dark=True)
    page.click("#theme")
    turns(dark=False)
    page.reload()
    page.wait_for_selector(".pill")
    turns(dark=False)


def test_a_phone_shows_every_page_without_scrolling_sideways(browser: Any, address: str) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = open_page(phone, address)
    ask(page, "How much does the Belvi camera weigh, in a question long enough to need more than one line?")
    answered(page)
    first, second = side(page, 0).bounding_box(), side(page, 1).bounding_box()
    assert first and second and second["y"] >= first["y"] + first["height"], "sides stand one over the other"
    for name in ("Documents", "Runs", "Reports", "Compare"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_selector(f"#page-{name.lower()}", state="visible")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
    phone.close()
