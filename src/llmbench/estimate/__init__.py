"""What a training will need, before it begins: memory, disk, time, settings that fit, and rates that are usual."""

from llmbench.estimate.experience import corrections
from llmbench.estimate.needs import METHODS, Estimate, Work, estimate, spread, unquantized, work

__all__ = [
    "METHODS",
    "Estimate",
    "Work",
    "corrections",
    "estimate",
    "experience",
    "gpus",
    "offers",
    "rates",
    "shapes",
    "spread",
    "unquantized",
    "work",
]
