"""How often llmbench's gates and tests err, and how often gates pass what is fine, by simulation.

    python benchmarks/gate_errors.py [--draws 2000] [--seed 0] [--only boundary]

Prints Markdown tables. Every cell is a share of the draws; at 2,000 draws the standard error of .025 is .0035, of .05 .005.
What intervals cover: statistics_coverage.py. A rollout's verdicts: canary_verdicts.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics import intervals, paired, power
from llmbench.statistics.clusters import Clusters, clusters
from llmbench.statistics.sequential import _BETS
from llmbench.statistics.values import Kind

Draws = NDArray[np.float64]
ALPHA = 0.05


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=0)
    tables = {one.__name__: one for one in (boundary, amounts, tests, several, repeats, powers, looks)}
    arguments.add_argument("--only", choices=tables)
    options = arguments.parse_args()
    for table in [tables[options.only]] if options.only else tables.values():
        table(np.random.default_rng(options.seed), options.draws)
        print(flush=True)


def boundary(rng: np.random.Generator, draws: int) -> None:
    """A candidate that is worse by just the margin, by a share's one-sided limit."""
    sizes = (1, 2, 4, 8)
    print("| n, right, margin | " + " | ".join(f"pages of {one}" for one in sizes) + " |\n|" + " --- |" * (len(sizes) + 1))
    for n in (40, 150, 500, 2000):
        for right in (0.5, 0.8, 0.95, 0.99):
            for margin in (0.02, 0.05):
                gain = right * (1 - right) / 2
                cells = []
                for size in sizes:
                    groups = paged(n, size)
                    passed = sum(
                        intervals.against(changes(rng, n, size, gain, gain + margin), groups, "share", -margin)[0] < ALPHA / 2
                        for _ in range(draws)
                    )
                    cells.append(f"{passed / draws:.3f}")
                print(f"| {n}, {right:g}, {margin:g} | {' | '.join(cells)} |", flush=True)


def amounts(rng: np.random.Generator, draws: int) -> None:
    """Scores and amounts at the boundary, each question alone; a margin of seconds is a tenth of the baseline's mean."""
    kinds: list[tuple[str, Kind, Callable[[int], tuple[Draws, float]]]] = [
        ("scores, 90 % alike, margin .05", "score", lambda n: (scores(rng, n, 0.05), -0.05)),
        ("scores of nDCG, margin .02", "score", lambda n: (graded(rng, n, 0.02), -0.02)),
        ("seconds, lognormal .5, margin 10 %", "amount", lambda n: (slower(rng, n, 0.5, 0.1), 0.0)),
        ("seconds, lognormal 1, margin 10 %", "amount", lambda n: (slower(rng, n, 1.0, 0.1), 0.0)),
        ("tokens, normal, margin 10 %", "amount", lambda n: (1.1 * rng.normal(100, 20, n) - rng.normal(110, 20, n), 0.0)),
    ]
    print("| passes (2.5 %) | n = 20 | 50 | 150 | 1000 |\n| --- | --- | --- | --- | --- |")
    for name, kind, draw in kinds:
        cells = []
        for n in (20, 50, 150, 1000):
            groups, passed = paged(n, 1), 0
            for _ in range(draws):
                d, null = draw(n)
                passed += intervals.against(d, groups, kind, null)[0] < ALPHA / 2
            cells.append(f"{passed / draws:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def tests(rng: np.random.Generator, draws: int) -> None:
    """Two variants that are alike: how often the p of each test that is printed is below .05."""
    rows: list[tuple[str, Kind, Callable[[int, int], tuple[Draws, Draws]]]] = [
        ("shares, half differ", "share", lambda n, size: pair(changes(rng, n, size, 0.25, 0.25))),
        ("shares, 4 % differ", "share", lambda n, size: pair(changes(rng, n, size, 0.02, 0.02))),
        ("scores", "score", lambda n, size: alike(rng, n, size, lambda m: rng.random(m))),
        ("seconds, lognormal .5", "amount", lambda n, size: alike(rng, n, size, lambda m: rng.lognormal(0, 0.5, m))),
        ("seconds, exponential", "amount", lambda n, size: alike(rng, n, size, lambda m: rng.exponential(1, m))),
    ]
    print("| p < .05 (at most 5 %) | n = 20 | 50 | 150 | 1000 | 20 pages of 8 | 60 pages of 4 |\n|" + " --- |" * 7)
    for name, kind, draw in rows:
        cells = []
        for n, size in ((20, 1), (50, 1), (150, 1), (1000, 1), (160, 8), (240, 4)):
            pages = {f"q{i:05}": str(i // size) for i in range(n)} if size > 1 else None
            wrong = 0
            for _ in range(draws):
                a, b = draw(n, size)
                one = paired.difference("m", "a", "b", ids(a), ids(b), kind, groups=pages)
                wrong += one is not None and one.p < ALPHA
            cells.append(f"{wrong / draws:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    cells = []
    for n in (20, 50, 150, 1000):
        wrong = 0
        for _ in range(draws):
            hard = rng.random(n)
            cell = [ids((rng.random(n) < hard).astype(float)) for _ in range(4)]
            found = paired.interaction(cell, "share")
            wrong += found is not None and not found.low <= 0 <= found.high
        cells.append(f"{wrong / draws:.3f}")
    print(f"| interaction of a 2x2 that is none | {' | '.join(cells)} | - | - |", flush=True)


def several(rng: np.random.Generator, draws: int) -> None:
    """Families: any of three metrics passes a gate at its boundary, or any of four equal variants is called different."""
    print("| n | any of 3 metrics passes: fixed sequence | Holm | any of 6 pairs differs (Holm) |\n| --- | --- | --- | --- |")
    for n in (150, 500, 1000):
        groups, passed = paged(n, 1), np.zeros(2)
        for _ in range(draws):
            found = [intervals.against(changes(rng, n, 1, 0.05, 0.1), groups, "share", -0.05)[0] for _ in range(3)]
            passed += [found[0] < ALPHA / 2, min(paired.holm(found)) < ALPHA / 2]
        wrong = 0
        for _ in range(draws):
            hard = rng.random(n)
            values = {str(j): ids((rng.random(n) < hard).astype(float)) for j in range(4)}
            wrong += any(one.p_holm < ALPHA for one in paired.differences("m", values, "share"))
        cells = [f"{count / draws:.3f}" for count in (*passed, wrong)]
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


def repeats(rng: np.random.Generator, draws: int) -> None:
    """A variant against itself, answers drawn anew: the verdicts of two such gates, margin .05."""
    print("| n, differ | not worse | worse | better (--superior) | one not worse, the other worse |\n|" + " --- |" * 5)
    for n, differ in ((40, 0.05), (40, 0.2), (150, 0.05), (150, 0.2), (500, 0.05), (500, 0.2), (2000, 0.2)):
        groups, counts = paged(n, 1), np.zeros(4)
        for _ in range(draws):
            verdicts = []
            for _ in range(2):
                d = changes(rng, n, 1, differ / 2, differ / 2)
                below, above = intervals.against(d, groups, "share", -0.05)
                verdicts.append("fine" if below < ALPHA / 2 else "worse" if above < ALPHA / 2 else "open")
            better = intervals.against(d, groups, "share", 0.0)[0] < ALPHA / 2
            counts += [verdicts[0] == "fine", verdicts[0] == "worse", better, set(verdicts) == {"fine", "worse"}]
        print(f"| {n}, {differ:g} | {' | '.join(f'{one / draws:.3f}' for one in counts)} |", flush=True)


def powers(rng: np.random.Generator, draws: int) -> None:
    """How often a candidate that is truly as good passes, and how many questions are said to be needed for four of five."""
    margins = (0.01, 0.02, 0.05)
    print("| n, differ | " + " | ".join(f"margin {one:g}: passes, predicted" for one in margins) + " |\n|" + " --- |" * 4)
    for n in (40, 150, 500, 2000):
        for differ in (0.02, 0.05, 0.2):
            groups, cells = paged(n, 1), []
            for margin in margins:
                passed = np.mean(
                    [
                        intervals.against(changes(rng, n, 1, differ / 2, differ / 2), groups, "share", -margin)[0] < ALPHA / 2
                        for _ in range(draws)
                    ]
                )
                said = power.passes(n, margin, ALPHA, power.Assumed(differ / 2, differ / 2))
                cells.append(f"{passed:.3f}, {said:.3f}")
            print(f"| {n}, {differ:g} | {' | '.join(cells)} |", flush=True)
    print("\n| differ, margin | questions needed | passes (80 %) | in pages of 4: needed | passes |\n|" + " --- |" * 5)
    for differ, margin in ((0.02, 0.02), (0.05, 0.02), (0.05, 0.05), (0.2, 0.05), (0.2, 0.1)):
        cells = []
        for size in (1, 4):
            of = power.Assumed(differ / 2, differ / 2, deff=1 + (size - 1) * 0.3, size=size)
            needed = power.fewest(partial(_passes, margin, of)) or 0
            n = -(-needed // size) * size
            groups = paged(n, size)
            passed = np.mean(
                [
                    intervals.against(changes(rng, n, size, differ / 2, differ / 2), groups, "share", -margin)[0] < ALPHA / 2
                    for _ in range(draws)
                ]
            )
            cells += [f"{needed:,}", f"{passed:.3f}"]
        print(f"| {differ:g}, {margin:g} | {' | '.join(cells)} |", flush=True)


def looks(rng: np.random.Generator, draws: int) -> None:
    """Asking one page after another until the evidence decides, at most n questions: as `statistics.sequential` has it."""
    print(
        "| gain/loss, margin, n, pages of | not worse | worse | decided after (median) | questions saved | a fixed n passes |"
        "\n|" + " --- |" * 6
    )
    for gain, loss, margin, n, size in (
        (0.01, 0.03, 0.02, 2000, 1), (0.05, 0.1, 0.05, 2000, 1), (0.05, 0.1, 0.05, 2000, 4), (0.2, 0.25, 0.05, 2000, 8),
        (0.01, 0.01, 0.05, 500, 1), (0.05, 0.05, 0.05, 1000, 1), (0.05, 0.05, 0.05, 1000, 4), (0.02, 0.02, 0.02, 2000, 1),
        (0.08, 0.03, 0.02, 1000, 1), (0.02, 0.12, 0.02, 1000, 1),
    ):  # fmt: skip
        up, down = _evidence(rng, draws, n, size, gain, loss, -margin)
        limit = log(2 / ALPHA)
        first = [np.where((one >= limit).any(axis=1), (one >= limit).argmax(axis=1), n) for one in (up, down)]
        fine, worse = (first[0] < first[1]), (first[1] < first[0])
        at = np.minimum(np.minimum(*first) + 1, n // size) * size
        groups = paged(n, size)
        fixed = np.mean(
            [
                intervals.against(changes(rng, n, size, gain, loss), groups, "share", -margin)[0] < ALPHA / 2
                for _ in range(draws // 4)
            ]
        )
        print(
            f"| {gain:g}/{loss:g}, {margin:g}, {n}, {size} | {fine.mean():.3f} | {worse.mean():.3f} | "
            f"{int(np.median(at)):,} | {100 * (1 - at.mean() / n):.0f} % | {fixed:.3f} |",
            flush=True,
        )


def _passes(margin: float, of: power.Assumed, n: int) -> float:
    return power.passes(n, margin, ALPHA, of)


def _evidence(
    rng: np.random.Generator, draws: int, n: int, size: int, gain: float, loss: float, mean: float
) -> tuple[Draws, Draws]:
    """`PairedEvidence` of many sequences at once, page by page: (draws, pages) each."""
    found: tuple[list[Draws], list[Draws]] = ([], [])
    for _ in range(draws):
        sums = changes(rng, n, size, gain, loss).reshape(-1, size).sum(axis=1)
        away = (sums - mean * size) / size
        for side, sign in enumerate((1, -1)):
            bets = _BETS[:, None] / (1 + sign * mean)
            logs = np.cumsum(np.log1p(bets * (sign * away)), axis=1)
            found[side].append(special.logsumexp(logs, axis=0) - log(len(_BETS)))
    return np.array(found[0]), np.array(found[1])


def changes(rng: np.random.Generator, n: int, size: int, gain: float, loss: float, alike: float = 0.3) -> Draws:
    """Differences of -1, 0 and 1. Two questions of a page share theirs with a chance of `alike`."""
    u = rng.random(n)
    if size > 1:
        page = np.repeat(rng.random(-(-n // size)), size)[:n]
        u = np.where(rng.random(n) < np.sqrt(alike), page, u)
    return np.where(u < gain, 1.0, np.where(u < gain + loss, -1.0, 0.0))


def pair(d: Draws) -> tuple[Draws, Draws]:
    """Shares with these differences."""
    return (d >= 0).astype(float), (d <= 0).astype(float)


def alike(rng: np.random.Generator, n: int, size: int, draw: Callable[[int], Draws]) -> tuple[Draws, Draws]:
    """Two variants of one distribution that share what makes a question hard; of a page, which of them is ahead is alike."""
    a, b = draw(n), draw(n)
    if size > 1:
        swap = np.repeat(rng.random(-(-n // size)) < 0.5, size)[:n] & (rng.random(n) < np.sqrt(0.3))
        a, b = np.where(swap, np.maximum(a, b), a), np.where(swap, np.minimum(a, b), b)
        other = np.repeat(rng.random(-(-n // size)) < 0.5, size)[:n]
        a, b = np.where(other, b, a), np.where(other, a, b)
    return a, b


def scores(rng: np.random.Generator, n: int, margin: float) -> Draws:
    """Differences of scores of which nine tenths are 0, with a mean of -margin."""
    d = np.where(rng.random(n) < 0.1, rng.random(n) - 0.5, 0.0)
    return np.where(rng.random(n) < margin / 0.5, d - rng.random(n) * (1 - np.abs(d)), d) + _rest(margin)


def _rest(margin: float) -> float:
    """What the draw above misses of -margin: E|d| = .025 takes as much of what is lost."""
    return margin / 0.5 * 0.5 * (1 - 0.025) - margin


def graded(rng: np.random.Generator, n: int, margin: float) -> Draws:
    """Differences of nDCG: the candidate loses a rank in some questions."""
    values = np.array([0.0, 0.39, 0.43, 0.5, 0.63, 1.0])
    a = rng.choice(values, n, p=[0.3, 0.0875, 0.0875, 0.0875, 0.0875, 0.35])
    moved = rng.random(n)
    d: Draws = np.where(moved < 0.1, values[rng.integers(0, 6, n)] - a, 0.0) - margin - 0.1 * (values.mean() - 0.52062)
    return d


def slower(rng: np.random.Generator, n: int, spread: float, part: float) -> Draws:
    """(1 + part) * baseline - candidate, whose means are as 1 to 1 + part; what makes a question long is shared."""
    long = rng.lognormal(0, spread, n)
    return (1 + part) * long * rng.lognormal(0, 0.2, n) - (1 + part) * long * rng.lognormal(0, 0.2, n)


def paged(n: int, size: int) -> Clusters:
    names = [f"q{i:05}" for i in range(n)]
    return clusters(names, {name: str(i // size) for i, name in enumerate(names)} if size > 1 else None)


def ids(values: Draws) -> dict[str, float]:
    return {f"q{i:05}": float(value) for i, value in enumerate(values)}


if __name__ == "__main__":
    main()
