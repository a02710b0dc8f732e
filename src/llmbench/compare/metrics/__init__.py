"""What is measured about answers: a recipe's metrics, and the scores that they give.

values       what a metric is                 catalogue    every metric by its name
scores       judging all answers              grounding    against what documents tell
texts        an answer's text alone           costs        seconds and tokens
"""

from llmbench.compare.metrics.catalogue import ALWAYS, chosen, definition, measures_of
from llmbench.compare.metrics.grounding import of_source
from llmbench.compare.metrics.scores import addends, check, one_by_one, scores
from llmbench.compare.metrics.values import Metric, Tools

__all__ = [
    "ALWAYS",
    "Metric",
    "Tools",
    "addends",
    "check",
    "chosen",
    "definition",
    "measures_of",
    "of_source",
    "one_by_one",
    "scores",
]
