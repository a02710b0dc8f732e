"""How good a retriever is: judged questions, what a ranking is worth, and how sure that is."""

from llmbench.retrieval.evaluation.collection import Collection, corpus, read
from llmbench.retrieval.evaluation.evaluate import Evaluated, evaluate, report
from llmbench.retrieval.evaluation.metrics import HEADLINE, MEASURES, estimated, mean, measure
from llmbench.retrieval.evaluation.report import Report
from llmbench.retrieval.evaluation.trec import RUN_MARK, read_qrels, read_run, write_run

__all__ = [
    "HEADLINE",
    "MEASURES",
    "RUN_MARK",
    "Collection",
    "Evaluated",
    "Report",
    "corpus",
    "estimated",
    "evaluate",
    "mean",
    "measure",
    "read",
    "read_qrels",
    "read_run",
    "report",
    "write_run",
]
