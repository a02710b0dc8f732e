"""Search: a query to ranked passages, stage by stage, and a conversation to one that has its passages in it."""

from llmbench.retrieval.search.hits import Grounded, Hit, Step, doubt
from llmbench.retrieval.search.prompt import fill
from llmbench.retrieval.search.retriever import Retriever
from llmbench.retrieval.search.stages import Timings

__all__ = ["Grounded", "Hit", "Retriever", "Step", "Timings", "doubt", "fill"]
