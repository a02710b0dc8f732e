"""How often llmbench's intervals cover, its gates err, and what it calls detectable is found, by simulation.

    python benchmarks/statistics_coverage.py [--draws 2000] [--seed 0] [--only pages]

Prints Markdown tables. Every cell is a share of the draws, with a standard error of at most 1.1 points at 2,000 draws.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmbench.statistics import intervals
from llmbench.statistics.clusters import clusters
from llmbench.statistics.paired import difference, differences, estimate, interaction
from llmbench.statistics.values import Difference, Kind

Draws = NDArray[np.float64]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=0)
    tables = {table.__name__: table for table in (pairs, gates, singles, pages, means, sizes, promises)}
    arguments.add_argument("--only", choices=tables)
    options = arguments.parse_args()
    rng = np.random.default_rng(options.seed)
    for table in [tables[options.only]] if options.only else tables.values():
        table(rng, options.draws)
        print(flush=True)


def pairs(rng: np.random.Generator, draws: int) -> None:
    """Independent questions: a alone is right on a share of them, b alone on another."""
    print("| n, only a, only b | interval covers (95 %) | bootstrap, BCa | called different |\n| --- | --- | --- | --- |")
    for n, only_a, only_b in (
        (40, 0.05, 0.05), (40, 0.2, 0.1), (150, 0.01, 0.01), (150, 0.02, 0.01), (150, 0.03, 0.0), (150, 0.3, 0.2),
        (500, 0.02, 0.01),
    ):  # fmt: skip
        found = [compared(*shares(rng, n, only_a, only_b)) for _ in range(draws)]
        covers = np.mean([one.low <= only_a - only_b <= one.high for one in found])
        bca = np.mean([_bca(rng, n, only_a, only_b) for _ in range(draws // 4)])
        print(
            f"| {n}, {only_a}, {only_b} | {covers:.3f} | {bca:.3f} | {np.mean([one.p < 0.05 for one in found]):.3f} |",
            flush=True,
        )


def gates(rng: np.random.Generator, draws: int) -> None:
    """A candidate that is worse by just the margin must pass in 2.5 % at most."""
    print("| n, margin, worse/better | passes (2.5 %) |\n| --- | --- |")
    for n in (30, 60, 150, 500):
        found = [compared(*shares(rng, n, 0.01, 0.03)) for _ in range(draws)]
        print(f"| {n}, .02, .03/.01 | {np.mean([one.low > -0.02 for one in found]):.3f} |", flush=True)


def singles(rng: np.random.Generator, draws: int) -> None:
    """The share of one variant, questions by page: each page has its own chance of a right answer (beta-binomial)."""
    alike = (0.0, 0.1, 0.3, 0.6)
    print(f"| pages x questions, right | {' | '.join(f'correlation {one:g}' for one in alike)} |\n|{' --- |' * 5}")
    for count, size in ((5, 8), (10, 8), (28, 4), (60, 4)):
        groups = {f"q{i:05}": str(i // size) for i in range(count * size)}
        for right in (0.5, 0.8, 0.95, 0.99):
            cells = []
            for rho in alike:
                spread = 1 / rho - 1 if rho else 0.0
                one_page = (right * spread, (1 - right) * spread)
                drawn = [rng.beta(*one_page, count) if rho else np.full(count, right) for _ in range(draws)]
                found = [
                    estimate(ids((rng.random(count * size) < np.repeat(one, size)).astype(float)), "share", groups=groups)
                    for one in drawn
                ]
                covers = np.mean([one is not None and one.low <= right <= one.high for one in found])
                cells.append(f"{covers:.3f}, {100 * np.mean([one.high - one.low for one in found if one]):.1f}")
            print(f"| {count} x {size}, {right} | {' | '.join(cells)} |", flush=True)


def pages(rng: np.random.Generator, draws: int) -> None:
    """Questions of one page are alike (the intraclass correlation of which variant is ahead is 0.3, or 0)."""
    print("| pages x questions, worse/better, correlation | by page: passes (2.5 %), covers (95 %) | each alone |")
    print("| --- | --- | --- |")
    for count, size, worse, better, alike in (
        (5, 24, 0.12, 0.07, 0.3), (10, 8, 0.12, 0.07, 0.3), (15, 8, 0.06, 0.01, 0.3), (20, 8, 0.06, 0.01, 0.3),
        (28, 4, 0.06, 0.01, 0.3), (28, 4, 0.12, 0.07, 0.3), (30, 8, 0.06, 0.01, 0.3), (60, 4, 0.12, 0.07, 0.3),
        (60, 8, 0.06, 0.01, 0.3), (28, 4, 0.12, 0.07, 0.0), (10, 8, 0.12, 0.07, 0.6), (28, 4, 0.06, 0.01, 0.6),
        (60, 4, 0.06, 0.01, 0.6),
    ):  # fmt: skip
        groups = {f"q{i:05}": str(i // size) for i in range(count * size)}
        cells = []
        for of in (groups, None):
            found = [compared(*clustered(rng, count, size, worse, better, alike), groups=of) for _ in range(draws)]
            passes = np.mean([one.low > better - worse for one in found])
            covers = np.mean([one.low <= better - worse <= one.high for one in found])
            cells.append(f"{passes:.3f}, {covers:.3f}")
        print(f"| {count} x {size}, {worse}/{better}, {alike} | {' | '.join(cells)} |", flush=True)


def means(rng: np.random.Generator, draws: int) -> None:
    """Single means: scores from 0 to 1, and amounts."""
    ndcg = np.array([0.0, 0.39, 0.43, 0.5, 0.63, 1.0])
    weights = np.array([0.3, 0.0875, 0.0875, 0.0875, 0.0875, 0.35])
    made: list[tuple[str, Kind, Callable[[int], Draws], float]] = [
        ("scores as of nDCG", "score", lambda n: rng.choice(ndcg, n, p=weights), float(ndcg @ weights)),
        ("scores, 93 % full", "score", lambda n: np.where(rng.random(n) < 0.93, 1.0, rng.random(n)), 0.965),
        ("scores, 95 % none", "score", lambda n: np.where(rng.random(n) < 0.05, rng.random(n), 0.0), 0.025),
        ("seconds, normal", "amount", lambda n: rng.normal(5, 1, n), 5.0),
        ("seconds, exponential", "amount", lambda n: rng.exponential(1, n), 1.0),
        ("seconds, lognormal 0.5", "amount", lambda n: rng.lognormal(0, 0.5, n), float(np.exp(0.125))),
        ("seconds, lognormal 1", "amount", lambda n: rng.lognormal(0, 1, n), float(np.exp(0.5))),
        (
            "seconds, 5 % ten times longer",
            "amount",
            lambda n: rng.normal(1, 0.1, n) * np.where(rng.random(n) < 0.05, 10, 1),
            1.45,
        ),
    ]
    print("| mean of | n = 20 | 50 | 150 | 1000 |\n| --- | --- | --- | --- | --- |")
    for name, kind, draw, mean in made:
        cells = []
        for n in (20, 50, 150, 1000):
            found = [estimate(ids(draw(n)), kind) for _ in range(draws)]
            cells.append(f"{np.mean([one is not None and one.low <= mean <= one.high for one in found]):.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def sizes(rng: np.random.Generator, draws: int) -> None:
    """What is left: single shares, every kind of paired difference, and the interaction, each question alone."""
    kinds: list[tuple[str, Callable[[int], tuple[float, float]], float]] = [
        *((f"share, {right:g}", lambda n, right=right: _single(rng, n, right), right) for right in (0.5, 0.8, 0.95, 0.99)),
        *(
            (f"difference of shares, {a:g}/{b:g}", lambda n, a=a, b=b: _limits(*shares(rng, n, a, b), "share"), a - b)
            for a, b in ((0.02, 0.02), (0.1, 0.1), (0.1, 0.02), (0.25, 0.25))
        ),
        ("difference of scores", lambda n: _limits(*_harder(rng, n, 0.1), "score"), -0.05),
        ("difference of scores, 90 % alike", lambda n: _limits(*_sparse(rng, n), "score"), -0.025),
        ("difference of seconds, lognormal .5", lambda n: _limits(*_slower(rng, n, 0.5), "amount"), _gap(0.5)),
        ("difference of seconds, lognormal 1", lambda n: _limits(*_slower(rng, n, 1.0), "amount"), _gap(1.0)),
        ("interaction of 0", lambda n: _crossed(rng, n), 0.0),
    ]
    print("| interval of | n = 20 | 50 | 150 | 1000 |\n| --- | --- | --- | --- | --- |")
    for name, draw, true in kinds:
        cells = []
        for n in (20, 50, 150, 1000):
            found = [draw(n) for _ in range(draws)]
            cells.append(f"{np.mean([low <= true <= high for low, high in found]):.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _single(rng: np.random.Generator, n: int, right: float) -> tuple[float, float]:
    found = estimate(ids((rng.random(n) < right).astype(float)), "share")
    assert found is not None
    return found.low, found.high


def _limits(a: Draws, b: Draws, kind: Kind) -> tuple[float, float]:
    """As the interval has it: the test extends it to 0 where it rejects nothing, which is no coverage of its own."""
    found = intervals.difference(a - b, clusters([str(i) for i in range(len(a))], None), kind, 0.95)
    return found.low, found.high


def _harder(rng: np.random.Generator, n: int, by: float) -> tuple[Draws, Draws]:
    easy = rng.random(n)
    return (1 - by) * easy, easy


def _sparse(rng: np.random.Generator, n: int) -> tuple[Draws, Draws]:
    b = np.ones(n)
    return np.where(rng.random(n) < 0.05, rng.random(n), b), b


def _slower(rng: np.random.Generator, n: int, spread: float) -> tuple[Draws, Draws]:
    long = rng.lognormal(0, spread, n)
    return 1.1 * long * rng.lognormal(0, 0.2, n), long * rng.lognormal(0, 0.2, n)


def _gap(spread: float) -> float:
    return float(0.1 * np.exp(spread**2 / 2 + 0.02))


def _crossed(rng: np.random.Generator, n: int) -> tuple[float, float]:
    hard = rng.random(n)
    found = interaction([ids((rng.random(n) < hard).astype(float)) for _ in range(4)], "share")
    assert found is not None
    return found.low, found.high


def promises(rng: np.random.Generator, draws: int) -> None:
    """A true difference as large as `detectable` says is to be found in four of five tries, after Holm's correction."""
    print("| questions, variants | detectable, points | found (80 %) |\n| --- | --- | --- |")
    for n in (50, 150, 400):
        for count in (2, 4):
            size = np.mean([_last(rng, n, count, 0.0)[0] for _ in range(50)])
            found = np.mean([_last(rng, n, count, float(size))[1] < 0.05 for _ in range(draws // 4)])
            print(f"| {n}, {count} | {100 * size:.1f} | {found:.3f} |", flush=True)


def ids(values: Draws) -> dict[str, float]:
    return {f"q{i:05}": float(value) for i, value in enumerate(values)}


def shares(rng: np.random.Generator, n: int, only_a: float, only_b: float) -> tuple[Draws, Draws]:
    u = rng.random(n)
    return (u < only_a + 0.5).astype(float), ((u >= only_a) & (u < 0.5 + only_a + only_b)).astype(float)


def clustered(
    rng: np.random.Generator, count: int, size: int, worse: float, better: float, alike: float
) -> tuple[Draws, Draws]:
    """Each question takes its page's outcome with the root of the correlation, so that two of a page share it with `alike`."""
    own, page = rng.random(count * size), np.repeat(rng.random(count), size)
    u = np.where(rng.random(count * size) < np.sqrt(alike), page, own)
    ahead, behind = u < better, (u >= better) & (u < better + worse)
    both = u > 0.5
    return (ahead | both).astype(float), (behind | both).astype(float)


def compared(a: Draws, b: Draws, groups: dict[str, str] | None = None) -> Difference:
    found = difference("m", "a", "b", ids(a), ids(b), "share", groups=groups)
    assert found is not None
    return found


def _bca(rng: np.random.Generator, n: int, only_a: float, only_b: float) -> bool:
    a, b = shares(rng, n, only_a, only_b)
    d = a - b
    if not np.ptp(d):
        return False
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap((d,), np.mean, method="BCa", n_resamples=999, vectorized=True, rng=rng).confidence_interval
    return bool(found.low <= only_a - only_b <= found.high)


def _last(rng: np.random.Generator, n: int, count: int, gain: float) -> tuple[float, float]:
    """The last variant gains on the others; the difference to the first."""
    hard, fresh = rng.random(n), rng.random((count, n)) < 0.3
    rows = (np.where(fresh[j], rng.random(n), hard) < 0.6 + gain * (j == count - 1) for j in range(count))
    values = {str(j): ids(row.astype(float)) for j, row in enumerate(rows)}
    one = next(one for one in differences("m", values, "share") if (one.a, one.b) == (str(count - 1), "0"))
    return 1.0 if one.detectable is None else one.detectable, one.p_holm


if __name__ == "__main__":
    main()
