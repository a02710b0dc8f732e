"""How often the intervals of metrics of all questions together cover, and how often their tests err.

    python benchmarks/whole_metrics.py --runs 1000

Macro F1, Cohen's kappa, the expected calibration error and BLEU are no means of questions; their intervals are a bootstrap's
over clusters, their tests exchange two variants' answers. Each cell draws answers of a model that is right with a known chance.
What is covered is the figure of so many answers that it does not move any more, and, of the calibration error, the mean of the
estimates, since an estimate is too high for few answers. A test errs where two variants of equal chance are told apart at 5 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmbench.compare import metrics
from llmbench.compare.answers import Answer
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe
from llmbench.sandbox import SandboxProcess
from llmbench.statistics import resampling
from llmbench.statistics.resampling import Addends

Floats = NDArray[np.float64]
WORDS = [
    "the",
    "kettle",
    "weighs",
    "three",
    "hundred",
    "grams",
    "and",
    "stands",
    "on",
    "a",
    "table",
    "of",
    "oak",
    "in",
    "the",
    "old",
    "kitchen",
    "by",
    "the",
    "window",
]


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    metric: str
    questions: int
    classes: int = 3
    right: float = 0.8
    size: int = 1
    """Questions a page; a third of them are right or wrong together."""


CELLS = (
    Cell("macro_f1", 20), Cell("macro_f1", 50), Cell("macro_f1", 150), Cell("macro_f1", 1000, 10),
    Cell("macro_f1", 50, 3, 0.97),
    Cell("macro_f1", 300, 77), Cell("macro_f1", 150, size=5), Cell("cohen_kappa", 50), Cell("cohen_kappa", 150, size=5),
    Cell("bleu", 50), Cell("bleu", 150), Cell("ece", 150), Cell("ece", 1000),
)  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print("| metric | questions | classes | right | page | covers | pair covers 0 | told apart | width | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for cell in CELLS:
        began = time.perf_counter()
        covers, pair, apart, width = _of(cell, runs)
        took = time.perf_counter() - began
        figures = f"{covers:.3f} | {pair:.3f} | {apart:.3f} | {width:.3f} | {took:.0f}"
        print(f"| {cell.metric} | {cell.questions} | {cell.classes} | {cell.right} | {cell.size} | {figures} |", flush=True)


def _of(cell: Cell, runs: int) -> tuple[float, float, float, float]:
    draw = _drawing(cell)
    truth = _truth(cell, draw)
    ids = tuple(f"q{i}" for i in range(cell.questions))
    groups = {id: f"page {i // cell.size}" for i, id in enumerate(ids)} if cell.size > 1 else None
    found, pairs = [], []
    for run in range(runs):
        rng = np.random.default_rng((run, cell.questions))
        one, other = (Addends(ids, *draw(rng, cell.questions)) for _ in range(2))
        found.append(resampling.estimate(one, groups=groups, seed=run))
        pairs.append(resampling.difference("m", "a", "b", one, other, groups=groups, seed=run))
    known, both = [x for x in found if x is not None], [x for x in pairs if x is not None]
    target = float(np.mean([x.mean for x in known])) if cell.metric == "ece" else truth
    covers = float(np.mean([x.low <= target <= x.high for x in known]))
    pair = float(np.mean([x.low <= 0 <= x.high for x in both]))
    apart = float(np.mean([x.p < 0.05 for x in both]))
    return covers, pair, apart, float(np.mean([x.high - x.low for x in known]))


Draw = Callable[[np.random.Generator, int], tuple[Floats, Callable[[Floats], Floats]]]


def _truth(cell: Cell, draw: Draw) -> float:
    """The figure of 20 times 5,000 answers."""
    sums, value = [], None
    for seed in range(20):
        rows, value = draw(np.random.default_rng((seed, 99)), 5_000)
        sums.append(rows.sum(axis=0))
    assert value is not None
    return float(value(np.sum(sums, axis=0)))


def _drawing(cell: Cell) -> Draw:
    """Answers of a model, as what they add: the texts are judged by the metric itself, once for each kind of answer."""
    names = [f"class {i}" for i in range(cell.classes)]
    weights = np.array([0.55, 0.34, 0.11]) if cell.classes == 3 else np.full(cell.classes, 1 / cell.classes)
    confidences = (55, 65, 75, 85, 95)
    if cell.metric == "bleu":
        table, value = _judged(cell, *_texts())
        return lambda rng, n: (table[_kinds(rng, n, cell.size, len(table))], value)
    stated = confidences if cell.metric == "ece" else (None,)
    asked = [(right, told, sure) for right in names for told in names for sure in stated]
    said = [told if sure is None else f"{told}, confidence {sure}%" for _, told, sure in asked]
    table, value = _judged(cell, [right for right, _, _ in asked], said)

    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Callable[[Floats], Floats]]:
        gold = rng.choice(cell.classes, n, p=weights)
        luck = _luck(rng, n, cell.size)
        told = np.where(luck < cell.right, gold, rng.integers(0, cell.classes, n))
        sure = rng.integers(0, len(stated), n)
        return table[(gold * cell.classes + told) * len(stated) + sure], value

    return draw


def _luck(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Uniform numbers, of which a third are those of their page."""
    own, pages = rng.random(n), rng.random(n // size + 1)
    shared = rng.random(n) < (1 / 3 if size > 1 else 0.0)
    return np.where(shared, pages[np.arange(n) // size], own)


def _kinds(rng: np.random.Generator, n: int, size: int, count: int) -> NDArray[np.int_]:
    return (_luck(rng, n, size) * count).astype(int)


def _texts() -> tuple[list[str], list[str]]:
    """500 right sentences, each with one that differs from it in some words."""
    rng = np.random.default_rng(5)
    right = [" ".join(rng.choice(WORDS, rng.integers(6, 18))) for _ in range(500)]
    said = [" ".join(w if rng.random() < 0.75 else str(rng.choice(WORDS)) for w in text.split()) for text in right]
    return right, said


def _judged(cell: Cell, right: Sequence[str], said: Sequence[str]) -> tuple[Floats, Callable[[Floats], Floats]]:
    labels = {"labels": sorted(set(right))} if cell.metric != "bleu" else {}
    asked = {"expected": "right"} | labels
    values = {"name": "x", "questions": {"path": __file__}, "variants": ["v"], "metrics": [{cell.metric: asked}]}
    (metric,) = metrics.chosen(CompareRecipe.model_validate(values))
    pairs = [
        (Question(str(i), "?", columns={"right": one}), Answer(str(i), "v", "", text=text))
        for i, (one, text) in enumerate(zip(right, said, strict=True))
    ]
    assert metric.whole is not None
    with SandboxProcess() as sandbox:
        made = metric.whole(pairs, metric.spec, metrics.Tools("x", sandbox))
    return made.rows, made.value


if __name__ == "__main__":
    main()
