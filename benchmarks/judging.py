"""How often the interval of a judge checked by labels covers, beside the judge alone and labels alone, and how wide they are.

    python benchmarks/judging.py [--runs 2000] [--seed 0] [--only means]

Prints Markdown tables. A share of 2,000 runs near 95 % has a standard error of 0.5 points. Labels are of n questions drawn at
random among N that are judged; a judge says what people say, or errs with other chances for either verdict, so that its mean
is off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from llmbench.statistics import paired, ppi

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One simulation: n labels, N judged, the true share, and the chances that a judge calls a win a win and a loss a loss."""

    n: int
    judged: int
    truth: float
    sensitivity: float
    specificity: float

    @property
    def agreement(self) -> float:
        """The share of questions on which judge and people say the same."""
        return self.truth * self.sensitivity + (1 - self.truth) * self.specificity

    @property
    def kappa(self) -> float:
        """Cohen's, of all questions."""
        said = self.truth * self.sensitivity + (1 - self.truth) * (1 - self.specificity)
        chance = said * self.truth + (1 - said) * (1 - self.truth)
        return (self.agreement - chance) / (1 - chance)


CELLS = [
    Cell(n, judged, truth, *told)
    for n in (50, 100, 200)
    for judged in (600, 2000)
    for truth, told in (
        (0.6, (0.97, 0.92)),
        (0.6, (0.91, 0.81)),
        (0.6, (0.85, 0.40)),
        (0.9, (0.90, 0.60)),
        (0.5, (0.55, 0.50)),
    )
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=0)
    tables: dict[str, Callable[[np.random.Generator, int], None]] = {one.__name__: one for one in (means, pairs, clustered)}
    arguments.add_argument("--only", choices=tables)
    options = arguments.parse_args()
    for name, table in tables.items():
        if options.only in (None, name):
            table(np.random.default_rng(options.seed), options.runs)
            print(flush=True)


def drawn(rng: np.random.Generator, cell: Cell) -> tuple[dict[str, float], dict[str, float]]:
    """What the judge says of every question, and what people say of n of them."""
    truth = rng.random(cell.judged) < cell.truth
    chance = np.where(truth, cell.sensitivity, 1 - cell.specificity)
    said = rng.random(cell.judged) < chance
    judged = {f"q{i}": float(x) for i, x in enumerate(said)}
    return judged, {f"q{i}": float(truth[i]) for i in rng.choice(cell.judged, cell.n, replace=False)}


def covering(rng: np.random.Generator, runs: int, cell: Cell) -> dict[str, float]:
    """Shares of runs in which each interval holds the true share, and mean widths."""
    held = {"ppi": 0, "judge": 0, "labels": 0}
    width = {"ppi": 0.0, "judge": 0.0, "labels": 0.0}
    for _ in range(runs):
        judged, labels = drawn(rng, cell)
        found, alone = ppi.mean(judged, labels), paired.estimate(judged, "share")
        assert alone is not None
        ends = {
            "ppi": (found.low, found.high),
            "judge": (alone.low, alone.high),
            "labels": (found.people_low, found.people_high),
        }
        for name, (low, high) in ends.items():
            held[name] += low <= cell.truth <= high
            width[name] += (high - low) / runs
    return {f"{name} covers": count / runs for name, count in held.items()} | {f"{k} width": v for k, v in width.items()}


def means(rng: np.random.Generator, runs: int) -> None:
    """One share."""
    print(f"One share, {runs:,} runs a row, nominal 95 %.\n")
    print("| labels, judged | true share | agreement, kappa | covers: PPI++ / labels / judge | width: PPI++ / labels | worth |")
    print("|---|---|---|---|---|---|")
    for cell in CELLS:
        x = covering(rng, runs, cell)
        worth = (x["labels width"] / x["ppi width"]) ** 2
        print(
            f"| {cell.n}, {cell.judged} | {cell.truth} | {cell.agreement:.2f}, {cell.kappa:.2f} | {x['ppi covers']:.3f} / "
            f"{x['labels covers']:.3f} / {x['judge covers']:.3f} | "
            f"{x['ppi width']:.3f} / {x['labels width']:.3f} | {worth:.2f} |",
            flush=True,
        )


def pairs(rng: np.random.Generator, runs: int) -> None:
    """The difference of two variants that people prefer to each other: win 1, tie 0, loss -1."""
    print(f"Wins less losses of one variant against another, {runs:,} runs a row, nominal 95 %.\n")
    print("| labels, judged | agreement | covers: PPI++ / labels | width: PPI++ / labels |")
    print("|---|---|---|---|")
    chances, kinds = np.array([0.45, 0.2, 0.35]), np.array([1.0, 0.0, -1.0])
    for n, total, agreement in ((50, 600, 0.67), (100, 600, 0.8), (100, 2000, 0.8), (200, 2000, 0.9)):
        held, width, truth = np.zeros(2), np.zeros(2), float(chances @ kinds)
        for _ in range(runs):
            people = rng.choice(kinds, total, p=chances)
            # A judge with a taste of its own: where it errs, it likes the first one.
            said = np.where(rng.random(total) < agreement, people, rng.choice(kinds, total, p=[0.7, 0.2, 0.1]))
            judged = {f"q{i}": float(x) for i, x in enumerate(said)}
            labels = {f"q{i}": float(people[i]) for i in rng.choice(total, n, replace=False)}
            found = ppi.combined([(1.0, ppi.correct(judged, labels))], bounds=(-1.0, 1.0))
            for k, (low, high) in enumerate(((found.low, found.high), (found.people_low, found.people_high))):
                held[k] += low <= truth <= high
                width[k] += (high - low) / runs
        print(
            f"| {n}, {total} | {agreement} | {held[0] / runs:.3f} / {held[1] / runs:.3f} | {width[0]:.3f} / {width[1]:.3f} |",
            flush=True,
        )


def clustered(rng: np.random.Generator, runs: int) -> None:
    """Questions of one page are alike, for people and for the judge: the whole pages are labelled."""
    print(f"Pages of five questions, correlation 0.3, {runs:,} runs a row, nominal 95 %.\n")
    print("| pages labelled, in all | covers by pages | covers as if independent |")
    print("|---|---|---|")
    for few, many in ((12, 120), (20, 120), (40, 400)):
        held = np.zeros(2)
        for _ in range(runs):
            judged, labels, groups = paged(rng, few, many)
            for k, of in enumerate((groups, None)):
                found = ppi.mean(judged, labels, groups=of)
                held[k] += found.low <= 0.6 <= found.high
        print(f"| {few}, {many} | {held[0] / runs:.3f} | {held[1] / runs:.3f} |", flush=True)


def paged(
    rng: np.random.Generator, few: int, many: int, size: int = 5
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Judgements, labels and pages: beta-binomial shares of mean 0.6, a judge that is right in 85 %."""
    a = 0.6 * (1 / 0.3 - 1)
    shares = rng.beta(a, a / 0.6 * 0.4, many)
    people = rng.random((many, size)) < shares[:, None]
    said = np.where(rng.random((many, size)) < 0.85, people, ~people)
    name: Callable[[int, int], str] = partial("p{}-{}".format)
    judged = {name(i, j): float(said[i, j]) for i in range(many) for j in range(size)}
    labels = {name(i, j): float(people[i, j]) for i in range(few) for j in range(size)}
    return judged, labels, {id: id.split("-")[0] for id in judged}


if __name__ == "__main__":
    main()
