"""A gate: is a candidate not worse than the baseline by a margin, or better? With an exit code that CI obeys.

Non-inferiority by the house's one-sided limits, paired by question and robust to pages; a baseline is a variant of the recipe,
or a file with each question's values and the hashes of all that they depend on.
"""

from llmbench.gate import baseline, outputs, sentences
from llmbench.gate.baseline import Baseline
from llmbench.gate.job import GateRequest, candidate_of, check, finished, judge, save
from llmbench.gate.values import Gate

__all__ = [
    "Baseline",
    "Gate",
    "GateRequest",
    "baseline",
    "candidate_of",
    "check",
    "finished",
    "judge",
    "outputs",
    "save",
    "sentences",
]
