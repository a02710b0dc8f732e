"""A passage on the picture of its page: the marker covers its words and no others, and only what was indexed is drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from fpdf import FPDF
from numpy.typing import NDArray
from PIL import Image

from llmbench.recipe import RagRecipe, SourceSpec
from llmbench.retrieval import Document
from llmbench.retrieval.reading import children, pages, read, walk
from llmbench.retrieval.reading.formats.layout import Area
from llmbench.retrieval.reading.picture import PIXELS, marked
from llmbench.retrieval.reading.walk import located

BEFORE = "Nobody asked for these words, which stand before. "
PASSAGE = (
    "The passage begins in the middle of a line and goes on over several lines, so that its first line and its last are cut. "
    "It has wide words and narrow ones: illicit lilies, MAMMOTHS. It ends within a line. "
)
AFTER = "What follows is another matter, and goes on for a while as well, until it comes to an end."


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    pages.forget()


@pytest.fixture
def recipe(tmp_path: Path) -> RagRecipe:
    (tmp_path / "docs").mkdir()
    return RagRecipe(name="pages", documents=[SourceSpec(path=tmp_path / "docs")])


def coloured(path: Path, *, size: float = 11) -> Path:
    """A PDF of one page whose passage is red and everything else blue."""
    pdf = FPDF(unit="pt", format=(420, 300))
    pdf.set_margin(40)
    pdf.set_font("Times", size=size)
    pdf.add_page()
    for text, colour in ((BEFORE, (0, 0, 255)), (PASSAGE, (255, 0, 0)), (AFTER, (0, 0, 255))):
        pdf.set_text_color(*colour)
        pdf.write(1.3 * size, text)
    pdf.output(str(path))
    return path


def changed(path: Path, *, turn: int = 0, crop: bool = False) -> Path:
    """The same PDF that looks as before, but is written turned, as scanners and landscape pages are; or with a page whose
    edges lie away from the origin.
    """
    document = pypdfium2.PdfDocument(path.read_bytes())
    page = document[0]
    wide, high = page.get_size()
    to = {0: (1, 0, 0, 1, 0, 0), 90: (0, 1, -1, 0, high, 0), 180: (-1, 0, 0, -1, wide, high), 270: (0, -1, 1, 0, 0, wide)}
    for item in page.get_objects(max_depth=1):
        item.transform(pypdfium2.PdfMatrix(*to[turn]))
    page.gen_content()
    right, top = (high, wide) if turn in (90, 270) else (wide, high)
    page.set_mediabox(-30, -20, right + 40, top + 50) if crop else page.set_mediabox(0, 0, right, top)
    page.set_cropbox(9, 12, right + 500, top - 6) if crop else page.set_cropbox(0, 0, right, top)
    page.set_rotation(turn)
    document.save(str(path))
    return path


def document_of(recipe: RagRecipe) -> Document:
    return read(walk(recipe.documents).files[0])


def span(document: Document) -> tuple[int, int]:
    """The passage in the text, whose lines are divided otherwise."""
    words = PASSAGE.split()
    start = document.text.index(" ".join(words[:3]))
    return start, document.text.index(words[-1], document.text.index("ends")) + len(words[-1])


def pixels(picture: pages.Picture) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(np.int16)


def covered(picture: pages.Picture, passage: int = 0) -> NDArray[np.bool_]:
    """The pixels under a passage's areas."""
    found = np.zeros((picture.height, picture.width), dtype=bool)
    for left, top, right, bottom in picture.areas[passage]:
        x, y = (round(side * picture.width) for side in (left, right)), (round(side * picture.height) for side in (top, bottom))
        found[slice(*y), slice(*x)] = True
    return found


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [False, True])
def test_the_marker_covers_the_passages_letters_and_no_others(recipe: RagRecipe, turn: int, crop: bool) -> None:
    changed(coloured(recipe.documents[0].path / "a.pdf"), turn=turn, crop=crop)
    document = document_of(recipe)
    picture = pages.draw(recipe, document, 1, [span(document)])
    seen, under = pixels(picture), covered(picture)
    red = (seen[..., 0] - seen[..., 2]) > 100
    blue = (seen[..., 2] - seen[..., 0]) > 100
    assert red.sum() > 2000 and blue.sum() > 1000
    assert (red & ~under).sum() <= 0.001 * red.sum()
    assert (blue & under).sum() <= 0.01 * blue.sum()
    assert len(picture.areas[0]) == 4 and picture.width > picture.height


@pytest.mark.parametrize("turn", [0, 90, 270])
def test_a_line_that_runs_another_way_is_cut_along_it(recipe: RagRecipe, turn: int) -> None:
    path = recipe.documents[0].path / "a.pdf"
    pdf = FPDF(unit="pt", format=(420, 300))
    pdf.set_font("Times", size=12)
    pdf.add_page()
    for text, colour in (("Words before, ", (0, 0, 255)), ("the wide MIDDLE, ", (255, 0, 0)), ("after.", (0, 0, 255))):
        pdf.set_text_color(*colour)
        pdf.write(15, text)
    pdf.output(str(path))
    written = pypdfium2.PdfDocument(path.read_bytes())
    written[0].set_rotation(turn)
    written.save(str(path))
    document = document_of(recipe)
    start = document.text.index("the wide")
    picture = pages.draw(recipe, document, 1, [(start, start + len("the wide MIDDLE,"))])
    seen, under = pixels(picture), covered(picture)
    assert not ((seen[..., 0] - seen[..., 2] > 100) & ~under).any()
    assert not ((seen[..., 2] - seen[..., 0] > 100) & under).any()


def test_what_is_painted_is_what_is_told(recipe: RagRecipe) -> None:
    coloured(recipe.documents[0].path / "a.pdf")
    document = document_of(recipe)
    plain = pages.draw(recipe, document, 1, [span(document)])
    painted = pages.draw(recipe, document, 1, [span(document)], painted=True)
    before, after, under = pixels(plain), pixels(painted), covered(plain)
    assert painted.areas == plain.areas
    assert (before[~under] == after[~under]).all()
    assert (after[under][:, 2] < 120).all(), "no white is left under the marker"
    assert abs(before[under][:, 0] - after[under][:, 0]).max() == 0, "red letters stay red"


def test_boxes_are_those_of_the_passages_lines(recipe: RagRecipe) -> None:
    coloured(recipe.documents[0].path / "a.pdf")
    document = document_of(recipe)
    found = pages.boxes(document, *span(document))
    assert len(found) == 4
    assert found[0].keys() == {"page", "left", "top", "right", "bottom"}
    assert all(box["page"] == 1 and 35 < box["left"] < box["right"] < 385 and box["top"] < box["bottom"] for box in found)
    assert pages.boxes(document, 0, 0) == []


def test_a_passage_over_two_pages_is_marked_on_both(recipe: RagRecipe) -> None:
    pdf = FPDF(unit="pt")
    pdf.set_font("Helvetica", size=10)
    for text in ("First page.", "Second page.", "Third page."):
        pdf.add_page()
        pdf.text(50, 100, text)
    pdf.output(str(recipe.documents[0].path / "a.pdf"))
    document = document_of(recipe)
    whole = (document.text.index("First"), document.text.index("Third"))
    assert pages.pages_of(document, *whole) == [1, 2]
    areas = [pages.draw(recipe, document, number, [whole, (0, 5)]).areas for number in (1, 2, 3)]
    assert [[len(passage) for passage in found] for found in areas] == [[1, 1], [1, 0], [0, 0]]


def test_a_huge_page_is_drawn_within_limits(recipe: RagRecipe) -> None:
    pdf = FPDF(unit="pt", format=(1_000_000, 20))
    pdf.set_font("Helvetica", size=10)
    pdf.add_page()
    pdf.text(5, 15, "A long strip.")
    pdf.output(str(recipe.documents[0].path / "a.pdf"))
    picture = pages.draw(recipe, document_of(recipe), 1, [])
    assert picture.width * picture.height <= PIXELS and max(picture.width, picture.height) <= 8001
    assert pixels(picture).shape == (picture.height, picture.width, 3)


def endless(path: Path, *, times: int = 100_000) -> Path:
    """A page that is painted over a hundred thousand times: a few kilobytes, and minutes to draw."""
    pdf = FPDF(unit="pt", format=(1000, 1000))
    pdf.set_font("Helvetica", size=10)
    pdf.add_page()
    pdf.text(20, 20, "Words.")
    pdf._out("0 0 1000 1000 re f\n" * times)
    pdf.output(str(path))
    return path


def test_a_page_without_end_costs_its_reader_only(recipe: RagRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(recipe.documents[0].path / "a.pdf")
    document = document_of(recipe)
    monkeypatch.setattr(pages, "SECONDS", 1)
    with pytest.raises(pages.NotShown, match=r"a\.pdf: page 1 cannot be shown: not read within "):
        pages.draw(recipe, document, 1, [])


def test_memory_is_bounded(recipe: RagRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(recipe.documents[0].path / "a.pdf", times=1)
    document = document_of(recipe)
    monkeypatch.setattr(children, "MEMORY", 60 * 2**20)
    with pytest.raises(pages.NotShown, match=r"a\.pdf: page 1 cannot be shown: ") as caught:
        pages.draw(recipe, document, 1, [])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_changed_or_elsewhere_is_not_drawn(recipe: RagRecipe, tmp_path: Path) -> None:
    path = coloured(recipe.documents[0].path / "a.pdf")
    document = document_of(recipe)
    coloured(path, size=12)
    with pytest.raises(pages.NotShown, match=r"a\.pdf has changed since it was indexed.*Run: llmbench index"):
        pages.draw(recipe, document, 1, [])
    with pytest.raises(pages.NotShown, match="page 7 cannot be shown: it has no page 7"):
        pages.draw(recipe, document_of(recipe), 7, [])
    path.rename(tmp_path / "a.pdf")
    with pytest.raises(pages.NotShown, match=r"a\.pdf no longer exists.*Run: llmbench index"):
        pages.draw(recipe, document, 1, [])
    for source in ("../a.pdf", str(tmp_path / "a.pdf"), "a\0.pdf", ".", ""):
        assert located(recipe.documents, source) is None
    path.symlink_to(tmp_path / "a.pdf")
    assert located(recipe.documents, "a.pdf") is None, "a link that leads out of the folder"


def test_the_last_pictures_are_kept(recipe: RagRecipe) -> None:
    path = coloured(recipe.documents[0].path / "a.pdf")
    document = document_of(recipe)
    picture = pages.draw(recipe, document, 1, [])
    path.unlink()
    assert pages.draw(recipe, document, 1, []) is picture


def test_the_marker_goes_over_lines_and_leaves_paragraphs_apart() -> None:
    lines = [Area(10, 10, 60, 20), Area(64, 11, 200, 20), Area(10, 23, 200, 33), Area(10, 60, 90, 70)]
    first, second, third = marked(lines)
    assert first.right > 200 and first.left < 10
    assert first.bottom == second.top
    assert second.bottom < third.top - 20
    apart = marked([Area(10, 10, 60, 20), Area(300, 10, 400, 20)])
    assert len(apart) == 2, "columns are not joined"
