"""A passage of a PDF on the picture of its page, in a real browser: the marker lies on its words."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from fpdf import FPDF
from PIL import Image

from llmbench import recipe, retrieval
from llmbench.recipe import RagRecipe

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow

RED, BLUE = (255, 0, 0), (0, 0, 255)
ABOUT = "The Alba kettle weighs 300 grams. It boils a litre of water in two minutes, and its lid is made of glass. "
CARE = "Clean the filter of the Dormisen camera with a dry cloth, and never with alcohol, which dulls its coating. "


def _manual(path: Path) -> None:
    """Two pages; on each one section is red, the one that is to be found, among blue ones."""
    pdf = FPDF(unit="pt", format=(500, 640))
    pdf.set_margin(50)
    for heading, text, colour in (
        ("Lamps", "The Borin lamp is made of brass. Its bulb lasts for ten years, and is changed by hand. ", BLUE),
        ("Kettles", ABOUT, RED),
        ("", "", BLUE),
        ("Cameras", CARE, RED),
    ):
        if not pdf.pages or not heading:
            pdf.add_page()
        pdf.set_text_color(*BLUE)
        pdf.set_font("Helvetica", style="B", size=14)
        pdf.multi_cell(0, 22, heading)
        pdf.ln(30)
        pdf.set_font("Helvetica", size=11)
        pdf.set_text_color(*colour)
        pdf.multi_cell(0, 16, text)
        pdf.ln(60)
    pdf.output(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline over one PDF and one note, indexed."""
    folder = tmp_path_factory.mktemp("manual")
    (folder / "docs").mkdir()
    _manual(folder / "docs" / "manual.pdf")
    (folder / "docs" / "note.md").write_text("# Opening hours\n\nThe shop opens at nine and closes at six.\n", encoding="utf-8")
    (folder / "manual.yaml").write_text(
        "name: manual\ndocuments: [docs]\nchunking: {max_tokens: 40, overlap: 0}\n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        retrieval.build(recipe.load(folder / "manual.yaml", RagRecipe))
    return folder


@pytest.fixture(scope="module")
def server(serve: Any, folder: Path) -> Iterator[Any]:
    """An endpoint whose last model answers from the pipeline's own passages, and from one that the index here has otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        with retrieval.Retriever.open(recipe.load(folder / "manual.yaml", RagRecipe)) as retriever:
            first, second = (hit.source() for hit in retriever.search("How is the filter of the Dormisen camera cleaned?", 2))
    with serve() as running:
        running.rag = {"slow-rag": "manual"}
        running.sources = (first, second | {"text": "Something else."})
        yield running


@pytest.fixture(scope="module")
def address(server: Any, folder: Path, open_app: Any) -> Iterator[str]:
    with open_app("--url", server.base_url, "--pipeline", str(folder / "manual.yaml"), home=folder / "outputs") as url:
        yield url


@pytest.fixture
def page(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.get_by_role("tab", name="Documents").click()
    page.get_by_text("Search 2 documents").first.wait_for()
    return page


def search(page: Page, text: str) -> None:
    page.fill("#query textarea, #query input", text)
    page.click("#search")


def test_the_marker_lies_on_the_passages_words(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 1600})  # the whole page is seen
    search(page, "How much does the Alba kettle weigh?")
    page.wait_for_selector(".leaf .marks .hit")
    page.wait_for_function("() => document.querySelector('.leaf img').complete")
    page.screenshot(path=tmp_path / "page.png")
    print(f"screenshot: {tmp_path / 'page.png'}")
    seen = np.asarray(Image.open(io.BytesIO(page.locator(".leaf").screenshot())).convert("RGB")).astype(int)
    boxes = page.evaluate(
        """() => { const { left, top } = document.querySelector('.leaf').getBoundingClientRect();
        return [...document.querySelectorAll('.marks .hit')].map((mark) => { const box = mark.getBoundingClientRect();
        return [box.left - left, box.top - top, box.right - left, box.bottom - top].map(Math.round); }); }"""
    )
    under = np.zeros(seen.shape[:2], dtype=bool)
    for left, top, right, bottom in boxes:
        under[top:bottom, left:right] = True
    red = (seen[..., 0] - seen[..., 1] > 100) & (seen[..., 0] - seen[..., 2] > 120)
    blue = seen[..., 2] - seen[..., 0] > 100
    assert red.sum() > 500 and blue.sum() > 500
    assert (red & ~under).sum() == 0
    assert (seen[under][:, 2] < 140).mean() > 0.95, "the marker is seen"
    heading = boxes[0][1] - 5
    assert blue[:heading].any() and not blue[boxes[-1][1] :][under[boxes[-1][1] :]].any()


def test_pages_are_turned_and_the_text_is_a_click_away(page: Page) -> None:
    search(page, "How is the filter of the Dormisen camera cleaned?")
    page.wait_for_selector(".leaf img[alt='Page 2 of manual.pdf']")
    assert "Page 2 of 2" in page.locator(".pager").inner_text()
    assert page.get_by_role("button", name="Next page").is_disabled()
    page.get_by_role("button", name="Previous page").click()
    page.wait_for_selector(".leaf img[alt='Page 1 of manual.pdf']")
    page.get_by_role("button", name="Back to the passage on page 2").click()
    page.wait_for_selector(".leaf img[alt='Page 2 of manual.pdf']")
    page.get_by_role("button", name="Text", exact=True).click()
    page.wait_for_selector("mark.hit")
    assert "with a dry cloth" in page.locator("mark.hit").inner_text()
    page.locator(".hit-list button", has_text="300 grams").first.click()
    page.wait_for_function("() => document.querySelector('mark.hit')?.innerText.includes('300 grams')")
    page.get_by_role("button", name="Page", exact=True).click()
    page.wait_for_selector(".leaf img[alt='Page 1 of manual.pdf']")
    page.locator(".hit-list button", has_text="Opening hours").click()
    page.wait_for_selector(".leaf", state="detached")
    page.wait_for_selector("mark.hit")
    assert page.locator(".switch button").all_inner_texts() == ["Formatted", "Source"], "a note has no pages"
    search(page, "")
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("tab", name="Documents").click()
    page.wait_for_timeout(1500)
    assert page.locator(".hit-list button").count() == 4, "what was found stays"


def test_a_link_to_a_passage_opens_it_in_a_fresh_tab(page: Page, context: BrowserContext, address: str) -> None:
    query = "When does the shop open, in 100% of cases?"
    search(page, query)
    page.locator(".hit-list button", has_text="300 grams").first.click()
    page.wait_for_function("() => location.hash.split('/').length === 4 && !location.hash.endsWith('/1')")
    link = page.url
    assert unquote(link.split("#")[1]).startswith(f"documents/manual/{query}/")
    other = context.new_page()
    other.goto(link)
    other.wait_for_selector(".leaf img[alt='Page 1 of manual.pdf']")
    other.wait_for_function("() => document.title.endsWith(' · Documents · llmbench') && document.title.startsWith('manual, ')")
    assert other.url == link and other.input_value("#query textarea, #query input") == query
    assert "300 grams" in other.locator(".hit-list [aria-current]").inner_text()
    other.get_by_role("tab", name="Compare").click()
    other.wait_for_function("() => location.hash === '#compare'")
    other.go_back()
    other.locator("#page-documents .leaf").wait_for(state="visible")
    assert other.url == link
    other.goto("about:blank")
    other.goto(f"{address}#documents/gone/words/1")
    other.get_by_text("No pipeline gone here.").wait_for()


def test_a_file_that_changed_is_told_and_its_text_shown(page: Page, folder: Path) -> None:
    path = folder / "docs" / "manual.pdf"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept + b"\n")
        search(page, "Which lamp is made of brass?")
        page.wait_for_selector("mark.hit")
        assert "manual.pdf has changed since it was indexed" in page.locator(".page-view .notice").inner_text()
        assert "Borin lamp" in page.locator("mark.hit").inner_text()
    finally:
        path.write_bytes(kept)


@pytest.mark.usefixtures("brisk")
def test_a_passage_under_an_answer_leads_to_its_page(context: BrowserContext, address: str, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".pill[data-on=yes]")
    page.fill("#prompt textarea", "How is the filter cleaned?")
    page.press("#prompt textarea", "Enter")
    first = page.locator(".side-1 .live .passages li").first
    first.wait_for()
    page.wait_for_selector("#send", state="visible")
    assert "manual.pdf · page 2" in first.inner_text()
    page.screenshot(path=tmp_path / "compare.png")
    print(f"screenshot: {tmp_path / 'compare.png'}")
    first.get_by_role("button", name="Open page").click()
    page.wait_for_selector("#page-documents .leaf img[alt='Page 2 of manual.pdf']")
    assert page.locator(".marks .hit").count() >= 2
    page.wait_for_function("() => document.querySelectorAll('.hit-list button').length === 2")
    page.wait_for_timeout(1500)  # the tab's own opening leaves it as it is
    assert page.locator(".leaf img").is_visible()
    assert page.locator("#pipeline input").input_value() == "manual"
    page.screenshot(path=tmp_path / "opened.png")
    page.get_by_role("tab", name="Compare").click()
    page.locator(".side-1 .live .opener").nth(1).click()
    page.get_by_text("This index holds a different version of manual.pdf than the endpoint used.").wait_for()
