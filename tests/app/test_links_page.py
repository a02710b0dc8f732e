"""What a browser refuses or is given: storage, a spoiled conversation, a key, a link, the keyboard alone. In a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow

REFUSED = """for (const name of ['localStorage', 'sessionStorage']) {
  Object.defineProperty(window, name, { get() { throw new DOMException('denied', 'SecurityError'); } });
}
const refuse = () => Promise.reject(new DOMException('denied', 'SecurityError'));
Object.defineProperty(navigator, 'locks', { value: { request: refuse, query: refuse } });"""
"""What Chromium does where a person blocks all site data."""


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pill[data-on=yes]")
    return page


def ask(page: Page, question: str) -> None:
    for _ in range(20):  # on a busy machine Gradio sets a field that has just opened to its old value for a moment more
        page.fill("#prompt textarea", question)
        page.wait_for_timeout(250)
        if page.input_value("#prompt textarea") == question:
            break
    page.press("#prompt textarea", "Enter")
    page.wait_for_function(
        """(question) => [...document.querySelectorAll('.side .live .turn[data-state=done]')].filter(
          (turn) => turn.querySelector('.question').innerText === question).length === 2""",
        arg=question,
    )
    page.wait_for_selector("#send", state="visible")


@pytest.mark.usefixtures("brisk")
def test_a_browser_that_refuses_all_storage_can_ask(context: BrowserContext, address: str) -> None:
    context.add_init_script(REFUSED)
    page = opened(context, address)
    assert "This browser blocks storage" in page.inner_text(".notices .notice")
    ask(page, "Is anybody there?")
    page.click("#theme")
    page.wait_for_function("() => document.body.classList.contains('dark')")


@pytest.mark.usefixtures("brisk")
def test_a_spoiled_conversation_is_kept_and_named(context: BrowserContext, address: str, app_home: Path) -> None:
    page = opened(context, address)
    ask(page, "Keep me")
    mine = page.evaluate("() => JSON.parse(sessionStorage.llmbench).id")
    path = app_home / "conversations" / f"{mine}.json"
    path.write_text('{"url": "", "talks": "of another version"}', encoding="utf-8")
    page.reload()
    notice = page.inner_text(".notices .notice")
    assert f"kept: {app_home / 'conversations' / mine}.unreadable-1" in notice
    ask(page, "A new one")
    assert "another version" in path.with_suffix(".unreadable-1").read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["sides"][0]["turns"][0]["question"] == "A new one"


@pytest.mark.usefixtures("brisk")
def test_a_conversation_that_is_loaded_begins_at_its_last_turn(context: BrowserContext, address: str) -> None:
    page = opened(context, address)
    for n in range(3):
        ask(page, f"Question {n}")
    page.set_viewport_size({"width": 1280, "height": 560})
    page.reload()
    page.wait_for_selector(".side-1 .turn[data-state=done]")
    page.wait_for_function(
        """() => { const talk = document.querySelector('.side-1 .talk').getBoundingClientRect();
        const last = document.querySelector('.side-1 .live .question').getBoundingClientRect();
        return last.top >= talk.top && last.bottom <= talk.bottom; }"""
    )


@pytest.mark.usefixtures("brisk")
def test_a_key_that_is_asked_for_can_be_given_where_the_page_says(
    context: BrowserContext, address: str, server: Any, write: Callable[..., None]
) -> None:
    page = opened(context, address)
    server.key = "sesame"
    try:
        page.wait_for_selector(".pill[data-on=no]")
        assert "401: Who are you? Check the API key in the settings below." in page.inner_text(".offline")
        box = page.locator(".settings input[type=password]")
        box.wait_for(state="visible")
        for key, state in (("wrong", "no"), ("sesame", "yes")):
            write(box, key)
            page.click("#connect")
            page.wait_for_selector(f".pill[data-on={state}]")
        ask(page, "With a key?")
    finally:
        server.key = ""


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("documents/gone/words/1", "No pipeline gone here."),
        ("runs/gone", "No runs yet"),
        ("reports/gone", "No comparisons yet"),
    ],
)
def test_a_link_to_what_is_gone_says_so(context: BrowserContext, address: str, link: str, words: str) -> None:
    page = opened(context, f"{address}#{link}")
    page.get_by_text(words).first.wait_for(state="visible")


def test_the_keyboard_alone_asks_chooses_and_opens_a_passage(context: BrowserContext, address: str, server: Any) -> None:
    page = opened(context, address)
    page.focus(".side-0 .picker input")
    page.keyboard.press("Control+A")
    page.keyboard.type("slow-r")
    page.wait_for_function("() => [...document.querySelectorAll('[role=option]')].length === 1")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.side-0 .picker input').value === 'slow-rag'")
    page.focus("#prompt textarea")
    page.keyboard.type("What does it weigh?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".side-0 .turn[data-state=writing]")
    page.keyboard.press("Escape")
    page.wait_for_selector(".side-0 .turn[data-state=stopped]")
    page.keyboard.type("And now?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".side-0 .live .turn[data-state=done] .cite")
    page.focus(".side-0 .live .passages > input")
    page.keyboard.press("Space")
    page.locator(".side-0 .live .passages li").first.wait_for(state="hidden")
    page.focus(".side-0 .live .cite")
    page.keyboard.press("Enter")
    page.locator(".side-0 .live .passages li").first.wait_for(state="visible")
