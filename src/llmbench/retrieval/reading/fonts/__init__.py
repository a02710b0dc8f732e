"""A font of empty boxes, for PDF files that name a Chinese, Japanese or Korean font without having it in them.

Where no such font is installed either, as on most servers, PDFium takes characters without a glyph for empty and leaves out the
text. `boxes.ttf` (676 bytes, made by tests/retrieval/reading/test_fonts.py) gives each of them a box of one width.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

__all__ = ["BOXES", "ready"]

BOXES = Path(__file__).with_name("boxes.ttf")
INSTALLED = ("/usr/share/fonts", "/usr/share/X11/fonts/Type1", "/usr/share/X11/fonts/TTF", "/usr/local/share/fonts")
"""Where PDFium looks by itself; it does no more once it is given folders."""

_kept: list[object] = []


def ready() -> None:
    """Has PDFium know the font besides those that are installed. Once in a process, with no document open.

    Only the process that reads files may call it: PDFium begins anew.
    """
    import pypdfium2.raw as pdfium

    if _kept or sys.platform != "linux":
        return
    folders = [folder.encode() for folder in (*INSTALLED, str(BOXES.parent))]
    paths = (ctypes.c_char_p * (len(folders) + 1))(*folders, None)
    config = pdfium.FPDF_LIBRARY_CONFIG(
        version=2, m_pUserFontPaths=ctypes.cast(paths, ctypes.POINTER(ctypes.POINTER(ctypes.c_char)))
    )
    _kept.extend((paths, config))  # PDFium reads them later
    pdfium.FPDF_DestroyLibrary()
    pdfium.FPDF_InitLibraryWithConfig(config)
