"""The OpenAI-compatible API over variants: which requests pass, which model answers, what it is grounded in."""

from llmbench.gateway.app import Served, build
from llmbench.gateway.grounding import Grounded, Grounder, Grounding
from llmbench.gateway.server import Gateway, running, started

__all__ = [
    "Gateway", "Grounded", "Grounder", "Grounding", "Served", "background", "build", "keys", "quota", "running", "started",
]  # fmt: skip
