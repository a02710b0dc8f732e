"""The endpoint dies, goes and comes back; the page notices by itself, and hides nothing. In a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

DONE = """() => {
  const turns = [...document.querySelectorAll('.side .live .turn')];
  return turns.length > 1 && turns.every((turn) => turn.dataset.state === 'done');
}"""


def test_the_page_notices_that_the_engine_died_and_that_the_endpoint_went_and_came_back(
    browser: Any, serve: Any, open_app: Any, tmp_path: Path
) -> None:
    context = browser.new_context()
    context.set_default_timeout(120_000)
    page = context.new_page()
    with serve() as server:
        port = urlsplit(server.base_url).port
        with open_app("--url", server.base_url, home=tmp_path) as address:
            page.goto(address)
            page.wait_for_selector(".pill[data-on=yes]")
            page.fill("#prompt textarea", "Are you there?")
            page.press("#prompt textarea", "Enter")
            page.wait_for_function(DONE)

            server.dead = "vLLM ended (exit code 0)"
            page.wait_for_selector(".pill[data-on=no]")
            assert "vLLM ended (exit code 0)" in page.inner_text(".offline")
            assert page.locator(".side-0 .question").is_visible()
            server.dead = ""
            page.wait_for_selector(".pill[data-on=yes]")
            assert not page.locator(".offline").is_visible()

            server.stop()
            page.wait_for_selector(".pill[data-on=no]")
            page.reload()
            page.wait_for_selector(".offline", state="visible")
            assert "No endpoint answers" in page.inner_text(".offline")
            assert page.locator(".side-0 .question").is_visible(), "the conversation can be read without an endpoint"
            page.fill("#prompt textarea", "Still there?")
            page.press("#prompt textarea", "Enter")
            page.wait_for_selector(".notices .notice")
            assert page.input_value("#prompt textarea") == "Still there?", "what cannot be asked is not lost"

            with serve(port):
                page.wait_for_selector(".pill[data-on=yes]")
                assert not page.locator(".offline").is_visible()
                page.press("#prompt textarea", "Enter")
                page.wait_for_function("() => document.querySelectorAll('.side-0 .turn').length === 2")
    context.close()
