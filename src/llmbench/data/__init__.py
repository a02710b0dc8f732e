"""Training rows -> token ids with labels, ready for the trainer, in a memory-mapped file.

`load` reads every source of a recipe's `data` section, checks each row, renders it with the model's chat template, and marks
which tokens are learned: the assistant's, and no others. What it made is kept in the cache and found there the next time.
"""

from llmbench.data.load import load, rows
from llmbench.data.values import Report, Rows, Skipped

__all__ = [
    "Report",
    "Rows",
    "Skipped",
    "kept",
    "load",
    "page",
    "preferences",
    "report",
    "rows",
    "secrets",
    "sources",
    "terminal",
    "vocabulary",
]
