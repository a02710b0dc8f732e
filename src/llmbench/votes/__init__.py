"""People's votes on the answers of a comparison, blind and side by side; what they say; and rows to train on.

outputs/votes/NAME/
└── votes.sqlite    every vote with its question, both answers, sides, voter and time
"""

from llmbench.votes import tables, values
from llmbench.votes.booth import Booth, Plan, anonymous
from llmbench.votes.result import VoteResult, result
from llmbench.votes.store import ballots, names

__all__ = [
    "Booth", "Plan", "VoteResult", "anonymous", "ballots", "export",
    "imports", "names", "result", "store", "tables", "tally", "values",
]  # fmt: skip
