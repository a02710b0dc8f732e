"""What training and serving need, before they begin: memory, time, settings that fit, and models that fit a machine."""

from llmbench.estimate.experience import corrections
from llmbench.estimate.needs import METHODS, Estimate, Work, estimate, spread, unquantized, work

__all__ = [
    "METHODS",
    "Estimate",
    "Work",
    "advice",
    "catalogue",
    "corrections",
    "estimate",
    "experience",
    "gpus",
    "measure",
    "offers",
    "rates",
    "serving",
    "shapes",
    "spread",
    "unquantized",
    "work",
]
