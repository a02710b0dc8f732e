"""Search: a query to ranked passages, stage by stage, and a conversation to one that has its passages in it."""

from llmbench.retrieval.search.retriever import Grounded, Hit, Retriever, fill

__all__ = ["Grounded", "Hit", "Retriever", "fill"]
