"""What a training will need, before it begins: memory, disk, time, settings that fit, and rates that are usual."""

from llmbench.estimate.needs import METHODS, Estimate, Work, corrections, estimate, spread, unquantized, work

__all__ = [
    "METHODS",
    "Estimate",
    "Work",
    "corrections",
    "estimate",
    "offers",
    "rates",
    "shapes",
    "spread",
    "unquantized",
    "work",
]
