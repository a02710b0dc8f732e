"""Configurations of other trainers -> recipes, with an account of every setting: kept, default written out, dropped, refused.

Nothing of a foreign file is executed: YAML and JSON are read as plain values, command lines by the shell's quoting rules
alone, and of Python only literal keyword arguments.
"""

from llmbench.importing.convert import PEERS, Imported, convert
from llmbench.importing.draft import Fate, Translation
from llmbench.importing.harness import HARNESSES, ImportedQuestions, questions

__all__ = ["HARNESSES", "PEERS", "Fate", "Imported", "ImportedQuestions", "Translation", "convert", "questions"]
