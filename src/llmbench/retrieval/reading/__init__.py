"""Files to documents: which files a pipeline names, and each of them as text with its places.

walk            which files: folders, patterns, links
read            each of them, in order and ahead of time; `rows` where each row is a document
children        the processes that do it, with nothing within their reach; `child` is what runs there
parsing         what a file is, and which of `formats` reads it; `plain` where its bytes need but decoding
clean           text without what is invisible
pages           a passage of a PDF on the picture of its page
standard_input  documents that lie in no file; `password` opens those that are locked
"""

from __future__ import annotations

from llmbench.retrieval.reading.clean import Cleaner
from llmbench.retrieval.reading.read import VERSION, Reading, read, read_all
from llmbench.retrieval.reading.walk import File, walk

__all__ = ["VERSION", "Cleaner", "File", "Reading", "pages", "read", "read_all", "walk"]
