"""Documents to answers: read, cut, embed, keep, search, ground, evaluate.

report = retrieval.build(recipe)
with Retriever.open(recipe) as retriever:
    hits = retriever.search("How long is the warranty?")
"""

from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.index import IndexReport, Writer, build
from llmbench.retrieval.search import Grounded, Hit, Retriever, Timings, doubt
from llmbench.retrieval.search.answer import Citations, ask, check_citations
from llmbench.retrieval.store import Filter

__all__ = [
    "Chunk",
    "Citations",
    "Document",
    "Filter",
    "Grounded",
    "Hit",
    "IndexReport",
    "Retriever",
    "Timings",
    "Writer",
    "ask",
    "build",
    "check_citations",
    "doubt",
]
