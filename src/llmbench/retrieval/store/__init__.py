"""The durable index: what was read, cut and embedded, kept so that a kill at any moment loses and halves nothing.

outputs/indexes/NAME/
├── index.json            which generation is searched
├── .lock                 held by the one writer
└── 1/                    a generation
    ├── index.sqlite      documents, passages, their words, fields, the contract with the embedder: the source of truth
    ├── vectors.bin       one checked record a passage: the source of truth for vectors
    ├── nearest.faiss     an approximate index of a large collection, derived from vectors.bin
    └── postings-*.bin    which passages of a large collection hold each word, derived from index.sqlite
"""

from llmbench.retrieval.store import layout
from llmbench.retrieval.store.contract import Contract
from llmbench.retrieval.store.database import Index
from llmbench.retrieval.store.filters import Filter
from llmbench.retrieval.store.rows import FileState, Standing
from llmbench.retrieval.store.writable import WritableIndex

__all__ = ["Contract", "FileState", "Filter", "Index", "Standing", "WritableIndex", "layout", "verify"]
