"""The whole way: the app in a real browser, on the real gateway, on a real vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page

WATCH = """() => {
  const look = () => window.grown.forEach((lengths, i) => {
    const live = document.querySelector(`.side-${i} .live`);
    if (live?.querySelector('.question')?.innerText !== window.asked) return;  // the answer before
    const text = live.querySelector('.answer')?.innerText.trim() ?? '';
    if (text && lengths.at(-1) !== text.length) lengths.push(text.length);
  });
  new MutationObserver(look).observe(document.querySelector('.sides'), {subtree: true, childList: true, characterData: true});
}"""


DONE = """(question) => [...document.querySelectorAll('.side .live .turn')].filter(
  (turn) => turn.dataset.state === 'done' && turn.querySelector('.question').innerText === question
).length === 2"""
QUESTIONS = ["How much does the Alba kettle weigh?", "What does the Alba kettle cost, and what is its colour?"] * 4


def ask(page: Page, question: str) -> list[list[int]]:
    """Sends a question and waits for both answers; returns the lengths that each had on the page."""
    page.evaluate("(question) => { window.grown = [[], []]; window.asked = question; }", question)
    page.fill("#prompt textarea", question)
    page.click("#send")
    page.wait_for_function(DONE, arg=question)
    page.wait_for_selector("#send", state="visible")
    lengths: list[list[int]] = page.evaluate("() => window.grown")
    return lengths


def choose(page: Page, position: int, model: str) -> list[str]:
    """Picks a variant for a side; returns what was on offer."""
    page.locator(f".side-{position} .picker input").click()
    offered = page.get_by_role("option")
    names = [text.split()[-1] for text in offered.all_inner_texts()]  # the chosen one has a tick before its name
    # Gradio takes the mouse going down; a click would first wait for the list to stop moving.
    page.get_by_role("option", name=model, exact=True).dispatch_event("mousedown")
    offered.first.wait_for(state="detached")
    return names


def test_both_sides_stream_and_the_grounded_one_shows_its_passages(
    endpoint: Any, open_app: Any, context: BrowserContext, write: Any, tmp_path: Path
) -> None:
    with open_app("--url", endpoint.base_url, "--pipeline", str(endpoint.pipeline), home=tmp_path / "home") as address:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector(".pill[data-on=yes]")
        assert choose(page, 0, "adapter") == list(endpoint.variants)
        choose(page, 1, "adapter-rag")
        page.click("#endpoint button")
        write(page.locator(".settings input[type=number]"), "400")
        page.click("#endpoint button")
        page.evaluate(WATCH)
        seen = [False, False]
        for question in QUESTIONS:  # a short answer on a fast machine may come within one update of the page: ask again
            lengths = ask(page, question)
            seen = [before or len(side) >= 2 for before, side in zip(seen, lengths, strict=True)]
            assert all(side and side == sorted(side) for side in lengths), f"text only grows: {lengths}"
            if all(seen):
                break
        assert seen == [True, True], "each side was seen to stream"
        passages = page.locator(".side-1 .live .passages li")
        assert passages.count() == 2
        assert "Alba kettle" in passages.first.inner_text() and "kettle.md" in passages.first.inner_text()
        assert page.locator(".side-0 .passages").count() == 0
        for i in (0, 1):
            named = page.locator(f".side-{i} .live .figures dt").all_inner_texts()
            assert named == ["Latency", "First token", "Tokens", "Tokens/s"]
        picture = tmp_path / "compare.png"
        page.screenshot(path=picture)
        page.close()  # before the app, of which it would ask on
        print(f"screenshot: {picture}")
        assert picture.stat().st_size > 20_000
