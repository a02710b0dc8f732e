"""Vote, in a real browser on real files: blind, by keys alone, inert, undone, paced, on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import compare, recipe, votes
from llmbench.recipe import CompareRecipe
from llmbench.votes.store import VoteStore, path
from llmbench.votes.values import Ballot

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow

DONE = "(number) => document.querySelector('.ballot')?.dataset.round === String(number)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def address(server: Any, open_app: Any, home: Path) -> Iterator[str]:
    """The app on one comparison of two variants, one of them hostile."""
    asked = [{"id": f"q{n}", "question": f"What is {n}?", "value": str(n), "split": "train"} for n in range(12)]
    (home / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    document = {
        "name": "two-models", "endpoint": {"base_url": server.base_url}, "questions": {"path": str(home / "asked.jsonl")},
        "variants": ["fast", "hostile"], "metrics": ["contains_value"],
    }  # fmt: skip
    (home / "compare.yaml").write_text(json.dumps(document), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as thread:
        patch.setenv("LLMBENCH_HOME", str(home))
        # The browser's event loop may be open in this thread.
        thread.submit(compare.run, recipe.load(home / "compare.yaml", CompareRecipe)).result()
    with open_app("--url", server.base_url, home=home) as url:
        yield url


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(home))


def seated(context: BrowserContext, address: str, name: str, latency: str = "") -> Page:
    page = context.new_page()
    page.goto(f"{address}#vote")
    page.wait_for_selector("#votables label")
    page.fill("#rater textarea, #rater input", name)
    if latency:
        page.get_by_label(latency).check()
    page.click("#start-voting")
    page.wait_for_function(DONE, arg=1)
    return page


def cast(voter: str) -> list[Ballot]:
    with VoteStore(path("two-models")) as store:
        return store.ballots(voter)


def test_votes_are_cast_and_undone_by_keys_alone(context: BrowserContext, address: str) -> None:
    page = seated(context, address, "keys")
    assert page.evaluate("() => document.activeElement.matches('.ballot h2')")
    page.keyboard.press("r")
    page.keyboard.press("Space")  # the first reason
    page.keyboard.press("n")
    page.keyboard.type("1 2 why")  # a note may hold what would be votes
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    page.wait_for_function(DONE, arg=2)
    assert page.inner_text("#page-vote .said") == "Saved: left is better. 1 cast, 11 left."
    assert page.get_attribute("#page-vote .said", "aria-live") == "polite"
    (one,) = cast("keys")
    assert one.winner == ("model_a" if one.shown_left == "a" else "model_b")
    assert (one.reasons, one.note) == (("correct",), "1 2 why") and one.seconds > 0
    before = page.inner_text(".asked")
    page.keyboard.press("u")
    page.wait_for_function(DONE, arg=3)
    assert page.inner_text("#page-vote .said") == "The last vote is taken back." and page.inner_text(".asked") != before
    assert [one.undone is not None for one in cast("keys")] == [True]
    for number, key in enumerate("2345", 4):
        page.keyboard.press(key)
        page.wait_for_function(DONE, arg=number)
    counted = [one.winner for one in cast("keys") if one.undone is None and one.kind == "vote"]
    assert counted[-1] == "skip" and len(cast("keys")) == 5


def test_nothing_that_the_browser_gets_names_a_variant_and_nothing_in_answers_runs(
    context: BrowserContext, address: str
) -> None:
    page = context.new_page()
    got: list[str] = []

    def keep(response: Any) -> None:
        if "queue/data" in response.url:
            got.append(response.text())

    page.on("requestfinished", lambda request: keep(request.response()))
    page.goto(f"{address}#vote")
    page.wait_for_selector("#votables label")
    page.click("#start-voting")
    page.wait_for_function(DONE, arg=1)
    texts = page.inner_text(".pair")
    for number in range(2, 6):
        page.click("[data-cast=tie]")
        page.wait_for_function(DONE, arg=number)
        texts += page.inner_text(".pair")
    whole = page.content() + "".join(got)
    assert "You asked:" in whole  # what `fast` answers
    assert "<script>window.harmed" not in page.inner_html(".pair") and "<script>window.harmed='script'</script>" in texts
    shown = page.inner_html("#page-vote") + "".join(text for text in got if "ballot" in text)
    for word in ("fast", "model_a", "shown_left", "left_is"):
        assert word not in shown.replace("window.harmed", ""), word
    assert page.evaluate("() => window.harmed === undefined")


def test_a_second_press_on_a_round_that_is_over_says_nothing(context: BrowserContext, address: str) -> None:
    page = seated(context, address, "double")
    page.evaluate("() => { const button = document.querySelector('[data-cast=left]'); button.click(); button.click(); }")
    page.wait_for_function(DONE, arg=2)
    page.wait_for_timeout(500)
    assert len(cast("double")) == 1


def test_voting_goes_on_where_it_stopped_and_ends(context: BrowserContext, address: str) -> None:
    page = seated(context, address, "stops")
    page.keyboard.press("3")
    page.wait_for_function(DONE, arg=2)
    shown = page.inner_text(".pair")
    page.close()
    page = seated(context, address, "stops")
    assert page.inner_text(".pair") == shown and "1 cast" in page.inner_text(".ballot header")
    number = 1
    while page.locator("[data-cast]").count():
        page.keyboard.press("3")
        number += 1
        page.wait_for_function(DONE, arg=number)
    assert "You have voted on everything there is" in page.inner_text(".ballot")
    page.click("#tell-votes")
    page.wait_for_selector(".result-card")
    assert "stops" in page.inner_text(".result-card") and "fast" in page.inner_text(".result-card")
    assert votes.result("two-models").counted >= 12


def test_paced_answers_come_together_after_the_slower_one(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    page.goto(f"{address}#vote")
    page.wait_for_selector("#votables label")
    page.get_by_label("Both after the slower one").check()
    page.fill("#rater textarea, #rater input", "paced")
    page.click("#start-voting")
    page.wait_for_function(DONE, arg=1)
    page.wait_for_function("() => !document.querySelector('.ballot').dataset.held")
    assert page.locator(".half .answer").first.is_visible() and page.locator(".half .answer").nth(1).is_visible()
    page.keyboard.press("1")
    page.wait_for_function(DONE, arg=2)
    assert cast("paced")[0].latency == "paced"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_both_answers_and_every_choice(browser: Any, address: str, scheme: Any) -> None:
    phone = browser.new_context(viewport={"width": 400, "height": 844}, is_mobile=True, has_touch=True, color_scheme=scheme)
    phone.set_default_timeout(60_000)
    page = seated(phone, address, f"phone-{scheme}")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 400
    left, right = (page.locator(".half").nth(i).bounding_box() for i in (0, 1))
    assert left and right and right["y"] >= left["y"] + left["height"] and left["width"] > 340
    boxes = [box for box in (one.bounding_box() for one in page.locator("[data-cast]").all()) if box]
    assert len(boxes) == 5 and all(box["height"] >= 44 and box["width"] >= 100 for box in boxes)
    page.locator("[data-cast=left]").tap()
    page.wait_for_function(DONE, arg=2)
    phone.close()


def test_a_link_opens_the_page_and_a_name_that_cannot_be_shown_is_refused(context: BrowserContext, address: str) -> None:
    page = context.new_page()
    page.goto(f"{address}#vote/two-models")
    page.wait_for_selector("#votables label")
    page.wait_for_function("() => document.title.includes('Vote')")
    page.fill("#rater textarea, #rater input", "a\u200bb")
    page.click("#start-voting")
    page.wait_for_selector("#page-vote .notice")
    assert "a name is up to 64 characters" in page.inner_text("#page-vote .notice")
