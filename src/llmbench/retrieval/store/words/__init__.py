"""The words of a generation's passages: in an FTS5 table, and of a large collection in files of postings besides.

forms           a word in every form in which it is written
terms           the table, and a question in its terms
postings        which passages hold each word: one file a part of the collection
postings_build  such files made and merged
bm25            their scores, which are FTS5's
"""

from __future__ import annotations

from llmbench.retrieval.store.words import postings, postings_build, terms
from llmbench.retrieval.store.words.bm25 import Lexical, Stems
from llmbench.retrieval.store.words.postings import BrokenPostings, Segment
from llmbench.retrieval.store.words.terms import STOP_WORDS

__all__ = ["STOP_WORDS", "BrokenPostings", "Lexical", "Segment", "Stems", "postings", "postings_build", "terms"]
