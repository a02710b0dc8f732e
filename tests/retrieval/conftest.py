"""A folder of small documents of every kind, a recipe over it, and the real embedder, loaded once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture
def closed() -> Callable[..., AbstractContextManager[None]]:
    """Takes away rights of a file or a folder for the length of a block, all or all but `left`; from root too, who has them
    whatever the mode says."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    powers, header = (ctypes.c_uint32 * 6)(), Header(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    libc = ctypes.CDLL(None, use_errno=True)

    @contextmanager
    def shut(path: Path, left: int = 0) -> Iterator[None]:
        mode = path.stat().st_mode
        path.chmod(left)
        libc.capget(ctypes.byref(header), powers)
        effective = powers[0]
        powers[0] = effective & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.capset(ctypes.byref(header), powers) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            powers[0] = effective
            libc.capset(ctypes.byref(header), powers)
            path.chmod(mode)

    return shut


@pytest.fixture(autouse=True)
def _one_graph(request: pytest.FixtureRequest) -> None:
    if request.path.parent.name != "embedding" and request.path.name != "test_read_only.py":  # which are about the cache
        request.getfixturevalue("kept_embedder")
