"""A folder of small documents of every kind, a recipe over it, and the real embedder, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmbench.recipe import ChunkingSpec, EmbedderSpec, RagRecipe, SourceSpec
from llmbench.retrieval.embedding import Embedder

PAGES = {
    "kettle.md": "# Alba kettle\n\nThe Alba kettle is red. It weighs 300 grams and boils water in two minutes.\n",
    "lamp.md": "# Borin lamp\n\nThe Borin lamp is made of brass. Its bulb lasts for ten years.\n",
    "refunds.html": "<title>Refund policy</title><h1>Refund policy</h1><p>Money is paid back within 14 days.</p>",
    "shop/hours.txt": "The shop opens at nine in the morning and closes at six in the evening.\n",
}


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The real all-MiniLM-L6-v2."""
    return Embedder(EmbedderSpec(), dtype="float32")


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """The folder of documents."""
    folder = tmp_path / "pages"
    for name, text in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def recipe(pages: Path) -> RagRecipe:
    """The pipeline over the folder."""
    return RagRecipe(name="pages", documents=[SourceSpec(path=pages)], chunking=ChunkingSpec(max_tokens=64, overlap=8))


@pytest.fixture
def write_pdf(pages: Path) -> Callable[..., Path]:
    """Writes a PDF with a text a page, and a title or a password."""
    from fpdf import FPDF

    def write(name: str, *texts: str, title: str = "", password: str = "") -> Path:
        pdf = FPDF()
        pdf.set_font("Helvetica", size=11)
        if title:
            pdf.set_title(title)
        if password:
            pdf.set_encryption(owner_password="owner", user_password=password)
        for text in texts:
            pdf.add_page()
            pdf.multi_cell(0, 6, text)
        path = pages / name
        pdf.output(str(path))
        return path

    return write
