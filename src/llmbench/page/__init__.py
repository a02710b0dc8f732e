"""The HTML pages that llmbench writes: one frame, one style, and text that does nothing, whoever wrote it.

A room that has a page brings its body and what only that page needs of style and script.
"""

from llmbench.page.document import document, mark
from llmbench.page.forest import forest
from llmbench.page.parts import facts, header, notes, section, table, text

__all__ = ["document", "facts", "forest", "header", "mark", "notes", "section", "table", "text"]
