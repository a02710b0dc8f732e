"""The OpenAI-compatible API over variants: which requests pass, which model answers, what it is grounded in."""

from llmbench.gateway.app import build
from llmbench.gateway.catalogue import Catalogue, Served
from llmbench.gateway.engine_only import engine_started, listen_address
from llmbench.gateway.grounding import Grounded, Grounder, Grounding
from llmbench.gateway.guard import Access
from llmbench.gateway.server import Gateway, running, started

__all__ = [
    "Access", "Catalogue", "Gateway", "Grounded", "Grounder", "Grounding", "Served", "admin", "background", "build", "cards",
    "engine_started", "keys", "listen_address", "observing", "quota", "running", "started", "traffic",
]  # fmt: skip
