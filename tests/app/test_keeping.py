"""Nothing that was asked is lost: a restart, a reload in the middle, a second tab, a full storage. In a real browser."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow

DONE = """() => {
  const turns = [...document.querySelectorAll('.side .live .turn')];
  return turns.length > 1 && turns.every((turn) => turn.dataset.state === 'done');
}"""


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pill[data-on=yes]")
    return page


def ask(page: Page, question: str, *, wait: bool = True) -> None:
    for _ in range(20):  # on a busy machine Gradio sets a field that has just opened to its old value for a moment more
        page.fill("#prompt textarea", question)
        page.wait_for_timeout(250)
        if page.input_value("#prompt textarea") == question:
            break
    page.press("#prompt textarea", "Enter")
    page.wait_for_function("(q) => document.querySelector('.live .question')?.innerText === q", arg=question)
    if wait:
        page.wait_for_function(DONE)
        page.wait_for_selector("#send", state="visible")


def questions(page: Page) -> list[str]:
    return page.locator(".side-0 .question").all_inner_texts()


@pytest.mark.usefixtures("brisk")
def test_a_conversation_outlives_the_app_and_the_page_says_that_it_was_away(
    browser: Any, server: Any, open_app: Any, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    context = browser.new_context()
    context.set_default_timeout(120_000)
    with open_app("--url", server.base_url, "--port", port, home=tmp_path) as address:
        page = opened(context, address)
        ask(page, "Remember me")
        kept = list((tmp_path / "conversations").iterdir())
        assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600]
        assert stat.S_IMODE(kept[0].parent.stat().st_mode) == 0o700
    with open_app("--url", server.base_url, "--port", port, home=tmp_path) as address:
        page.wait_for_selector(".notices .notice", timeout=60_000)  # Gradio loads the page again by itself
        assert "was restarted" in page.inner_text(".notices")
        assert questions(page) == ["Remember me"]
        assert "You asked: Remember me" in page.inner_text(".side-0 .answer")
        page.reload()
        page.wait_for_selector(".side-0 .turn[data-state=done]")
        assert page.locator(".notices .notice").count() == 0, "it is said once"
    context.close()


def test_a_reload_keeps_the_question_and_the_answer_so_far(browser: Any, address: str) -> None:
    context = browser.new_context()  # Gradio logs the stream that a reload cuts off as an error
    context.set_default_timeout(120_000)
    page = opened(context, address)
    ask(page, "Will I be there?", wait=False)
    page.wait_for_function("() => document.querySelector('.side-1 .answer').innerText.length > 20")
    before = page.inner_text(".side-1 .answer").strip()
    page.reload()
    page.wait_for_selector(".side-1 .turn[data-state=stopped]")
    assert questions(page) == ["Will I be there?"]
    answer = page.inner_text(".side-1 .answer")
    assert answer.startswith(before) and "Stopped." in answer
    page.locator(".side-1").get_by_role("button", name="Ask again").click()
    page.wait_for_selector(".side-1 .turn[data-state=done]")
    assert page.locator(".side-1 .turn").count() == 1
    context.close()


@pytest.mark.usefixtures("brisk")
def test_two_tabs_have_a_conversation_each(context: BrowserContext, address: str) -> None:
    first = opened(context, address)
    second = opened(context, address)
    ask(first, "question in tab one")
    ask(second, "question in tab two")
    for page, question in ((first, "question in tab one"), (second, "question in tab two")):
        page.reload()
        page.wait_for_selector(".side-0 .turn[data-state=done]")
        assert questions(page) == [question]
    second.close()
    third = opened(context, address)
    third.wait_for_selector(".side-0 .turn[data-state=done]")
    assert questions(third) == ["question in tab two"], "a new tab goes on with what no tab has open"


@pytest.mark.usefixtures("brisk")
def test_a_full_storage_loses_no_turn(context: BrowserContext, address: str) -> None:
    page = opened(context, address)
    page.evaluate(
        "() => { try { for (let n = 20; n >= 0; n--) for (;;) localStorage[Math.random()] = 'x'.repeat(2 ** n); } catch {} }"
    )
    for question in ("one", "two", "three"):
        ask(page, question)
    page.reload()
    page.wait_for_selector(".side-0 .turn[data-state=done]")
    assert questions(page) == ["one", "two", "three"]


@pytest.mark.usefixtures("brisk")
def test_a_new_conversation_removes_the_old_one_from_the_disk(context: BrowserContext, address: str) -> None:
    page = opened(context, address)
    ask(page, "Forget me")
    page.click("#clear")
    page.wait_for_function("() => !document.querySelector('.turn')")
    page.reload()
    page.wait_for_selector(".pill[data-on=yes]")
    assert page.locator(".turn").count() == 0
    assert json.loads(page.evaluate("() => localStorage.llmbench"))["conversations"]
