"""Cuts a document into passages, each an exact slice of its text.

chunk    what a passage is, and how a document becomes some
pieces   the way of a method through a document: by `sections`, in `passages` of so many tokens, by `sentences`, by `code`
tables   the column heads that a passage within a table goes on with
measure  tokens and characters counted, titles shortened
"""

from __future__ import annotations

from llmbench.retrieval.chunking import tables
from llmbench.retrieval.chunking.chunk import VERSION, Chunk, chunks, embedded_text
from llmbench.retrieval.chunking.measure import TITLE_TOKENS, Tokens
from llmbench.retrieval.chunking.sentences import sentence_ends

__all__ = ["TITLE_TOKENS", "VERSION", "Chunk", "Tokens", "chunks", "embedded_text", "sentence_ends", "tables"]
