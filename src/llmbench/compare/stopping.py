"""When a sequential comparison has asked enough, and what that saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log as ln
from random import Random
from typing import Any

import numpy as np

from llmbench.compare import metrics, statistics
from llmbench.compare.answers import AnswerLog, Cell
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, Margin
from llmbench.statistics.clusters import clusters
from llmbench.statistics.sequential import PairedEvidence, paired_bounds

__all__ = ["Stopping"]


class Stopping:
    """Follows the differences of baseline and candidate, page by page in a random order, until they decide about the margin.

    A page counts when all its questions were asked of both, and the pages count in the order in which they were drawn, not in
    that in which their answers came: short answers come first, and may be right more often. A question that failed is passed
    over.
    """

    def __init__(self, recipe: CompareRecipe, asked: Sequence[Question], log: AnswerLog) -> None:
        """Args:
        recipe: one whose preregistration stops sequentially.
        asked: all questions that may be asked.
        log: where the answers are.
        """
        assert recipe.preregistration is not None
        self._recipe, self._spec, self._log = recipe, recipe.preregistration, log
        together = clusters([question.id for question in asked], statistics.groups(asked, recipe.statistics))
        pages: dict[int, list[Question]] = {}
        for question, page in zip(asked, together.of.tolist(), strict=True):
            pages.setdefault(page, []).append(question)
        self._pages = Random(f"pages-{recipe.statistics.seed}").sample(list(pages.values()), len(pages))
        self._largest = max(map(len, self._pages))
        self._score = metrics.one_by_one(recipe, self._spec.metric, asked)
        self._limit = ln(2 / self._spec.alpha)
        self._evidence = PairedEvidence(-Margin.parse(self._spec.margin).value, self._largest)
        self._totals: list[tuple[float, int]] = []
        self._next = 0
        self._settled: Callable[[Cell], bool] = lambda cell: False
        self.decided: str | None = None
        """`not inferior` or `worse` once it is decided."""

    @property
    def order(self) -> list[Question]:
        """The questions as they are to be asked."""
        return [question for page in self._pages for question in page]

    def enough(self, settled: Callable[[Cell], bool]) -> bool:
        """Takes in the pages that were asked since, and says whether they decide."""
        self._settled = settled
        pair = str(self._spec.baseline), str(self._spec.candidate)
        while self.decided is None and self._next < len(self._pages):
            page = self._pages[self._next]
            if not all(settled((question.id, variant)) for question in page for variant in pair):
                break
            self._next += 1
            self._take(page)
        return self.decided is not None

    def _take(self, page: Sequence[Question]) -> None:
        found = [d for question in page if (d := self._difference(question)) is not None]
        if not found:
            return
        self._totals.append((sum(found), len(found)))
        self._evidence.add(*self._totals[-1])
        if self._evidence.above >= self._limit:
            self.decided = "not inferior"
        elif self._evidence.below >= self._limit:
            self.decided = "worse"

    def _difference(self, question: Question) -> float | None:
        values = []
        for variant in (self._spec.candidate, self._spec.baseline):
            answer = self._log.answer((question.id, str(variant)))
            assert answer is not None
            values.append(self._score(question, answer))
        candidate, baseline = values
        return None if candidate is None or baseline is None else candidate - baseline

    def asked(self) -> list[Question]:
        """The questions that were put to every variant, in the order of asking."""
        return [q for q in self.order if all(self._settled((q.id, variant)) for variant in self._recipe.names)]

    def told(self) -> dict[str, Any]:
        """What was decided after how many questions, the bounds that hold at every moment, and the tokens that were saved."""
        asked = self.asked()
        totals = np.array([total for total, _ in self._totals])
        counts = np.array([count for _, count in self._totals], dtype=np.float64)
        bounds = paired_bounds(totals, counts, self._largest, self._spec.alpha)
        planned = sum(map(len, self._pages))
        cells = [(question.id, variant) for question in asked for variant in self._recipe.names]
        answers = [answer for cell in cells if (answer := self._log.answer(cell)) is not None]
        used = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
        return {
            "rule": "sequential",
            "metric": self._spec.metric,
            "baseline": self._spec.baseline,
            "candidate": self._spec.candidate,
            "margin": self._spec.margin,
            "alpha": self._spec.alpha,
            "decided": self.decided,
            "mean": float(totals.sum() / counts.sum()) if len(totals) else None,
            "low": bounds.low,
            "high": bounds.high,
            "n": int(counts.sum()),
            "pages": len(self._totals),
            "asked": len(asked),
            "planned": planned,
            "tokens": used,
            "tokens_planned": round(used * planned / len(asked)) if asked else 0,
            "saved": 1 - len(asked) / planned,
        }
