"""Documents, Runs and Reports, in a real browser, on real files: an index, runs and a comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import assets, compare, recipe, runs
from llmbench.recipe import CompareRecipe, TrainRecipe

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs that the app is opened on."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def address(server: Any, pipeline: Path, open_app: Any, home: Path) -> Iterator[str]:
    """The app on two runs, one comparison, and a pipeline that is not indexed yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(home))
        for name in ("first", "second"):
            _run(home, name)
        with ThreadPoolExecutor() as thread:  # the browser's event loop may be open in this one
            thread.submit(_comparison, home, server.base_url).result()
    with open_app("--url", server.base_url, "--pipeline", str(pipeline), home=home) as url:
        yield url


def _run(home: Path, name: str) -> None:
    path = home / f"{name}.yaml"
    rows = assets.bundle() / "rag" / "train.jsonl"
    path.write_text(json.dumps({"name": name, "data": {"train": [{"path": str(rows)}]}}), encoding="utf-8")
    run = runs.create(recipe.load(path, TrainRecipe))
    run.write_lock({"seed": 42, "note": "<script>window.harmed='lock'</script>"})
    for step in range(1, 21):
        run.log({"step": step, "loss": 2 / step, "learning_rate": 1e-4, "tokens_per_second": 900.0})
    run.log({"step": 20, "eval_loss": 0.25})
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"x" * 2_500_000)
    run.mark("finished", step=20, steps=20, loss=0.1, eval_loss=0.25)


def _comparison(home: Path, url: str) -> None:
    asked = [
        {"id": f"q{n}", "question": f"What is {n}?", "value": str(n), "answer": f"It is {n}.", "answerable": True}
        for n in range(6)
    ]
    (home / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    document = {
        "name": "two-models",
        "endpoint": {"base_url": url},
        "questions": {"path": str(home / "asked.jsonl")},
        "variants": ["fast", "hostile"],
        "metrics": ["exact_match", "contains_value"],
        "statistics": {"resamples": 200},
    }
    (home / "compare.yaml").write_text(json.dumps(document), encoding="utf-8")
    compare.run(recipe.load(home / "compare.yaml", CompareRecipe))


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pill[data-on=yes]")
    return page


def show(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(f"#page-{name.lower()}", state="visible")


def test_documents_are_indexed_searched_and_shown_in_their_page(page: Page) -> None:
    show(page, "Documents")
    page.wait_for_selector("#index", state="visible")
    assert "index pages is not built" in page.locator(".list .hits").first.inner_text()
    page.click("#index")
    page.get_by_text("Search 3 documents").wait_for(timeout=200_000)
    page.fill("#query textarea, #query input", "How much does the Alba kettle weigh?")
    page.click("#search")
    page.wait_for_selector(".hit-list")
    first = page.locator(".hit-list button").first
    assert "Alba kettle" in first.inner_text() and "kettle.md" in first.inner_text()
    scores = [float(text.removeprefix("fused ")) for text in page.locator(".hit-list .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert page.locator("mark.hit").inner_text() == "The Alba kettle is red. It weighs 300 grams and costs 40 euros."
    page.locator(".hit-list button", has_text="Borin lamp").click()
    page.wait_for_selector(".page h2:has-text('Borin lamp')")
    assert "made of brass" in page.locator("mark.hit").inner_text()
    assert "Borin lamp" in page.locator(".hit-list [aria-current]").inner_text()


def test_runs_lie_over_each_other_with_recipe_lock_and_adapter(page: Page) -> None:
    show(page, "Runs")
    page.wait_for_selector(".chart")
    assert page.locator(".chart").count() == 3
    assert page.locator(".chart > svg").first.locator("polyline").count() == 2, "the loss, and the loss on held-out rows"
    page.locator("#runs label", has_text="first").click()
    page.wait_for_function("() => document.querySelectorAll('.run-view section.card').length === 2")
    assert page.locator(".chart > svg").first.locator("polyline").count() == 4
    card = page.locator("section.card", has_text="second")
    assert "finished" in card.inner_text() and "2.5 MB" in card.inner_text()
    assert "Diagnosis: " in card.inner_text()
    card.locator("summary", has_text="Recipe").click()
    assert "learning_rate: 0.0002" in card.inner_text()
    card.locator("summary", has_text="Lock").click()
    assert "<script>" in card.inner_text()
    assert page.evaluate("() => window.harmed === undefined")
    page.locator(".chart svg").first.hover()
    assert page.locator(".chart .readout").first.inner_text().startswith("step ")


def test_runs_are_searched_by_what_is_pasted_and_by_what_is_taken_away(page: Page) -> None:
    show(page, "Runs")
    page.wait_for_selector(".chart")
    box = page.locator("#run-search textarea, #run-search input")
    count = "(words) => document.querySelector('.count').innerText.includes(words)"
    for words, found in (("fir", "1 of 2 runs"), ("", "2 of 2 runs"), ("none such", "No matching runs.")):
        box.press("Control+A")
        page.keyboard.insert_text(words) if words else box.press("Delete")
        page.wait_for_function(count, arg=found)


def test_the_first_run_of_a_workspace_is_shown_when_it_begins(
    context: BrowserContext, server: Any, open_app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    with open_app("--url", server.base_url, home=tmp_path) as empty:
        page = context.new_page()
        page.goto(f"{empty}#runs")
        page.get_by_text("No runs yet").wait_for()
        _run(tmp_path, "begun")
        page.wait_for_selector("section.card:has-text('begun')")
        page.wait_for_selector("#runs label:has-text('begun')")
        page.close()


def test_a_link_to_a_run_or_a_report_opens_it_in_a_fresh_tab(context: BrowserContext, address: str) -> None:
    for name, found in (("runs/first,second", "section.card:has-text('first')"), ("reports/two-models", ".verdict")):
        page = context.new_page()
        page.goto(f"{address}#{name}")
        page.wait_for_selector(f"#page-{name.split('/')[0]} {found}")
        page.wait_for_function("(name) => document.title.includes(name)", arg=name.split("/")[1].split(",")[0])
        assert page.url.replace("%2C", ",").endswith(f"#{name}")
        page.close()


def test_a_link_is_not_undone_by_the_events_that_it_sets_off(context: BrowserContext, address: str) -> None:
    page = context.new_page()

    def late(route: Any) -> None:
        """What still carries that nothing is ticked is answered last."""
        if "[]" in (route.request.post_data or "") and "Any state" in (route.request.post_data or ""):
            time.sleep(2)
        route.continue_()

    page.route("**/queue/join*", late)
    page.goto(f"{address}#runs/first,second")
    page.wait_for_selector("#page-runs section.card:has-text('first')")
    page.wait_for_timeout(4_000)
    assert page.locator("#page-runs section.card").count() == 2
    assert page.url.replace("%2C", ",").endswith("#runs/first,second") and page.title().startswith("first,second")
    page.locator("#runs label", has_text="first").click()
    page.wait_for_function("() => document.querySelectorAll('#page-runs section.card').length === 1")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_runs_and_reports_whole(browser: Any, address: str, scheme: Any) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme=scheme)
    phone.set_default_timeout(60_000)
    page = phone.new_page()
    page.goto(f"{address}#runs")
    page.wait_for_selector(".chart")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    show(page, "Reports")
    page.locator("#page-reports iframe").wait_for()
    path = page.locator(".verdict > .aside").bounding_box()
    assert path is not None and path["width"] > 250, "the folder has a line of its own"
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    inside = page.frame_locator("#page-reports iframe").locator("html")
    inside.wait_for()
    assert inside.evaluate("(html) => html.scrollWidth <= html.clientWidth"), "tables scroll in their own box"
    phone.close()


def test_a_report_is_shown_sealed_and_can_be_saved(page: Page, home: Path, tmp_path: Path) -> None:
    show(page, "Reports")
    frame = page.locator("#page-reports iframe")
    frame.wait_for()
    assert frame.get_attribute("sandbox") == "allow-scripts"
    assert "two-models" in page.locator(".verdict").inner_text()
    inside = page.frame_locator("#page-reports iframe")
    inside.locator("body").wait_for()
    assert "hostile" in inside.locator("body").inner_text()
    assert page.evaluate("() => window.harmed === undefined")
    assert page.frames[-1].evaluate("() => window.harmed === undefined")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.frames[-1].evaluate(background)
    page.click("#theme")
    page.frames[-1].wait_for_function(f"() => ({background})() !== '{light}'")
    with page.expect_download() as started:
        page.click(".download")
    started.value.save_as(tmp_path / "report.html")
    assert started.value.suggested_filename == "two-models.html"
    assert (tmp_path / "report.html").read_bytes() == (home / "comparisons" / "two-models" / "report.html").read_bytes()
