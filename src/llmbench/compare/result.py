"""What a comparison found, as a value: estimates, paired differences, and the rows that they come from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmbench.compare.answers import Answer
from llmbench.compare.grid import Grid
from llmbench.compare.measures import Measure, known
from llmbench.compare.told import Experiment
from llmbench.questions import Question
from llmbench.statistics import Difference, Estimate

__all__ = ["Comparison", "Row"]


@dataclass(frozen=True)
class Row:
    """One answer to one question with its scores; a score is None where the metric does not apply."""

    question: Question
    answer: Answer
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """One finished comparison, as its folder tells it.

    `headline` is the metric that the verdict is about. `estimates` is metric -> variant -> estimate, without the metrics
    that fit none of the questions. `quantiles` is `latency` and `first_token` -> variant -> `p50` and `p95` in seconds.
    `kinds` is the headline metric again, on `answerable` and on `unanswerable` questions alone (empty if all are alike).
    `missing` counts answers that failed.
    """

    folder: Path
    created: float
    endpoint: str
    source: str
    split: str | None
    variants: tuple[str, ...]
    questions: tuple[Question, ...]
    headline: str
    verdict: str
    estimates: dict[str, dict[str, Estimate]]
    kinds: dict[str, dict[str, Estimate]]
    differences: tuple[Difference, ...]
    quantiles: dict[str, dict[str, dict[str, float]]]
    grid: Grid | None
    interaction: Estimate | None
    missing: int
    confidence: float
    concurrency: int
    max_tokens: int
    listing: dict[str, dict[str, Any]]
    versions: dict[str, str]
    rows: tuple[Row, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    """Variants that answered no question, each with the error of its first one; nothing is estimated for them."""
    notes: tuple[str, ...] = ()
    """Sentences about the figures that a reader has to know."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """What is known about each metric; empty in summaries from before there were settings."""
    classes: dict[str, Any] = field(default_factory=dict)
    """Of metrics of labels: what was told for what, and confidence against accuracy (`classes.classes`)."""
    energy: dict[str, Any] = field(default_factory=dict)
    """What this machine's GPUs used while asking, in Wh, where that was measured."""
    preregistration: dict[str, Any] | None = None
    """What was promised before the first answer, when, and its hash."""
    deviations: tuple[str, ...] = ()
    """What came otherwise than it was promised, a sentence each."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Questions that were not asked, by id, and why."""
    stopping: dict[str, Any] | None = None
    """Of a sequential comparison: what was decided after how many questions, and the tokens that it saved."""
    experiment: Experiment = field(default_factory=Experiment)
    """How the variants differ, the effects of their factors, and what repeats show."""
    judges: dict[str, Any] | None = None
    """Of a comparison with a judge: who judged and how, and what labels of people say of it."""
    opinions: dict[str, list[dict[str, Any]]] = field(default_factory=dict, compare=False)
    """Question -> what judges said of its answers; judgements.jsonl has it."""

    @property
    def name(self) -> str:
        """The comparison's name."""
        return self.folder.name

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.folder / "report.html"

    @property
    def summary(self) -> Path:
        """The figures for programs."""
        return self.folder / "summary.json"

    @property
    def answers(self) -> Path:
        """Every answer with its scores, one JSON object a line."""
        return self.folder / "answers.jsonl"

    def pairs(self, metric: str) -> list[Difference]:
        """The differences of one metric."""
        return [one for one in self.differences if one.metric == metric]

    def measure(self, metric: str) -> Measure:
        """What is known about a metric beside its figures."""
        return self.measures.get(metric) or known(metric)

    def judging(self) -> list[str]:
        """The metrics of 0 to 1 that say how good the answers are, in order; the others are amounts."""
        return [name for name in self.estimates if not self.measure(name).is_amount]

    def to_json(self) -> dict[str, Any]:
        """All but the rows, which answers.jsonl holds."""
        values = {key: value for key, value in vars(self).items() if key not in ("folder", "rows", "questions", "opinions")}
        values |= {
            "name": self.name,
            "differences": [asdict(one) for one in self.differences],
            "estimates": _plain(self.estimates),
            "measures": {name: asdict(one) for name, one in self.measures.items()},
            "kinds": _plain(self.kinds),
            "grid": asdict(self.grid) if self.grid else None,
            "interaction": asdict(self.interaction) if self.interaction else None,
            "experiment": self.experiment.to_json(),
            "questions": [question.to_json() for question in self.questions],
            "files": {"report": str(self.report), "answers": str(self.answers), "summary": str(self.summary)},
        }
        return values

    @staticmethod
    def from_json(folder: Path, values: dict[str, Any], rows: tuple[Row, ...]) -> Comparison:
        """The inverse of `to_json`."""
        values = {key: value for key, value in values.items() if key not in ("name", "files")}
        return Comparison(
            **values
            | {
                "variants": tuple(values["variants"]),
                "questions": tuple(Question.from_json(question) for question in values["questions"]),
                "differences": tuple(Difference(**one) for one in values["differences"]),
                "estimates": _estimates(values["estimates"]),
                "kinds": _estimates(values["kinds"]),
                "grid": Grid(**values["grid"]) if values["grid"] else None,
                "interaction": Estimate(**values["interaction"]) if values["interaction"] else None,
                "notes": tuple(values.get("notes", ())),
                "measures": {name: Measure(**one) for name, one in values.get("measures", {}).items()},
                "experiment": Experiment.from_json(values["experiment"]) if "experiment" in values else Experiment(),
                "deviations": tuple(values.get("deviations", ())),
            },
            folder=folder,
            rows=rows,
        )


def _plain(of: dict[str, dict[str, Estimate]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {name: {variant: asdict(one) for variant, one in each.items()} for name, each in of.items()}


def _estimates(of: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Estimate]]:
    return {name: {variant: Estimate(**one) for variant, one in each.items()} for name, each in of.items()}
