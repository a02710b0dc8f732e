"""Questions x variants -> answers -> metrics -> paired statistics -> verdict and report.

outputs/comparisons/NAME/
├── recipe.yaml     the recipe as resolved, every default written out
├── answers.jsonl   every answer with its scores
├── judgements.jsonl    what judges said of them, where the recipe has a judge; labels.jsonl what people said
├── summary.json    the figures, for programs
└── report.html     the figures, for people
"""

from llmbench.compare.ask import Progress, Tally
from llmbench.compare.asking import AskingWatch
from llmbench.compare.replay import ComparisonReplay, replay
from llmbench.compare.result import Comparison, Row
from llmbench.compare.run import every, load, remove, run
from llmbench.questions import Question
from llmbench.statistics import Difference, Estimate

__all__ = [
    "AskingWatch",
    "Comparison",
    "ComparisonReplay",
    "Difference",
    "Estimate",
    "Progress",
    "Question",
    "Row",
    "Tally",
    "calibrate",
    "every",
    "judging",
    "load",
    "measures",
    "metrics",
    "plan",
    "preregistration",
    "questions",
    "remove",
    "replay",
    "run",
    "statistics",
    "table",
    "verdict",
]
