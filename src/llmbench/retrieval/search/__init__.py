"""Search: a query to ranked passages, stage by stage, and a conversation to one that has its passages in it.

retriever   one open index: `search`, `ground`
view        one generation, ready to be searched
candidates  what may be a hit, by meaning and by words, both made one ranking (`fusion`)
stages      candidates to hits: what repeats left out, looked at again (`rerank`), room for what is new (`diversity`)
language    what meaning counts for in a language that the embedder was not made for
expand      more than was asked: by a model, by the first hits
grounding   a conversation with passages in it, as many as there is room for (`packing`)
answer      a model's answer to it, and whether what it cites is there
"""

from llmbench.retrieval.search import language
from llmbench.retrieval.search.hits import Grounded, Hit, doubt
from llmbench.retrieval.search.retriever import Retriever, asked
from llmbench.retrieval.search.stages import Timings

__all__ = ["Grounded", "Hit", "Retriever", "Timings", "asked", "doubt", "language"]
