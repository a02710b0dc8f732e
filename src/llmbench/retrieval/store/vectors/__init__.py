"""The vectors of a generation: kept in checked records, and searched exactly or by an approximate index.

records  one record a passage, in a file that only grows: the source of truth
exact    every vector compared
nearest  an approximate index (faiss), with what it was measured at
tuning   when one is due, and how it is built so that it finds what is asked of it
"""

from __future__ import annotations

from llmbench.retrieval.store.vectors import tuning
from llmbench.retrieval.store.vectors.exact import mask
from llmbench.retrieval.store.vectors.nearest import BrokenIndex, Nearest, Plan, library
from llmbench.retrieval.store.vectors.records import Vectors

__all__ = ["BrokenIndex", "Nearest", "Plan", "Vectors", "library", "mask", "tuning"]
