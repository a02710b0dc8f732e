"""How often guard-rails that are looked at after each request err, and how soon they notice, by simulation.

    python benchmarks/sequential_coverage.py [--runs 2000] [--requests 2000] [--seed 0]

Two variants answer requests at random, a share of them the new one. After every request a verdict is looked at that needs no
more than `llmbench.statistics.sequential.share_bounds` of each, with half of alpha .05: the new one is worse where the bounds
lie apart by more than the margin given. So is a z test. (A rollout's own verdicts: canary_verdicts.py.)
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from llmbench.statistics.sequential import quantile_bounds, share_bounds

ALPHA = 0.05


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=2000)
    arguments.add_argument("--requests", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = np.random.default_rng(options.seed)
    lows = lower_bounds(options.requests, ALPHA / 2)
    print(
        "| new, control, margin, share of requests | found worse | after (median) | found not worse | after | z test: worse |"
    )
    print("|---|---|---|---|---|---|")
    for new, control, margin, split in (
        (0.02, 0.02, 0.0, 0.5), (0.2, 0.2, 0.0, 0.5), (0.2, 0.2, 0.0, 0.1), (0.5, 0.5, 0.0, 0.5), (0.02, 0.02, 0.05, 0.5),
        (0.07, 0.02, 0.05, 0.5), (0.1, 0.02, 0.02, 0.5), (0.1, 0.02, 0.02, 0.1), (0.2, 0.1, 0.02, 0.5), (0.3, 0.1, 0.02, 0.5),
        (0.5, 0.1, 0.02, 0.1),
    ):  # fmt: skip
        shares(rng, options, lows, new, control, margin, split)
    print()
    print("| 95th percentile of seconds, new over control | found worse | after (median) |\n|---|---|---|")
    for slower in (1.0, 1.5, 2.0, 3.0):
        latencies(rng, min(options.runs, 500), options.requests, slower)


def lower_bounds(most: int, alpha: float) -> NDArray[np.float64]:
    """`share_bounds(k, n, alpha).low` for every k <= n <= most, (n, k), by the same bisection on arrays."""
    table = np.zeros((most + 1, most + 1))
    for n in range(1, most + 1):
        k = np.arange(1, n + 1)
        mixed = special.betaln(0.5 + k, 0.5 + n - k) - special.betaln(0.5, 0.5)
        outside, inside = np.zeros(n), k / n
        for _ in range(40):
            middle = (outside + inside) / 2
            out = mixed - special.xlogy(k, middle) - special.xlog1py(n - k, -middle) >= -np.log(alpha)
            outside, inside = np.where(out, middle, outside), np.where(out, inside, middle)
        table[n, 1 : n + 1] = outside
    for some, of in ((1, 1), (most // 3, most), (most, most)):
        assert abs(table[of, some] - share_bounds(some, of, alpha).low) < 1e-9
    return table


def shares(
    rng: np.random.Generator,
    options: argparse.Namespace,
    lows: NDArray[np.float64],
    new: float,
    control: float,
    margin: float,
    split: float,
) -> None:
    """One row: a share that is bad, such as errors."""
    worse: list[int] = []
    fine: list[int] = []
    z = 0
    for _ in range(options.runs):
        of_new = rng.random(options.requests) < split
        bad = rng.random(options.requests) < np.where(of_new, new, control)
        n1, n0 = np.cumsum(of_new), np.cumsum(~of_new)
        k1, k0 = np.cumsum(bad & of_new), np.cumsum(bad & ~of_new)
        low1, low0 = (np.maximum.accumulate(lows[n, k]) for n, k in ((n1, k1), (n0, k0)))
        high1, high0 = (1 - np.maximum.accumulate(lows[n, n - k]) for n, k in ((n1, k1), (n0, k0)))
        _first(worse, low1 - high0 > margin)
        _first(fine, high1 - low0 <= margin)
        with np.errstate(invalid="ignore", divide="ignore"):
            p1, p0, p = k1 / n1, k0 / n0, (k1 + k0) / (n1 + n0)
            score = (p1 - p0 - margin) / np.sqrt(p * (1 - p) * (1 / n1 + 1 / n0))
        z += bool(np.nanmax(score[20:]) > stats.norm.isf(ALPHA))
    cells = [f"{new}, {control}, {margin}, {split}", *_cells(worse, options.runs), *_cells(fine, options.runs)]
    print(f"| {' | '.join(cells)} | {z / options.runs:.3f} |", flush=True)


def latencies(rng: np.random.Generator, runs: int, requests: int, slower: float) -> None:
    """One row: the 95th percentile of a lognormal, looked at after every 20 requests of each side; the margin is a fifth."""
    worse: list[int] = []
    for _ in range(runs):
        new, control = slower * rng.lognormal(sigma=0.8, size=requests // 2), rng.lognormal(sigma=0.8, size=requests // 2)
        low, high = -np.inf, np.inf
        for n in range(20, requests // 2 + 1, 20):
            low = max(low, quantile_bounds(np.sort(new[:n]), 0.95, ALPHA / 2).low)
            high = min(high, quantile_bounds(np.sort(control[:n]), 0.95, ALPHA / 2).high)
            if low > 1.2 * high:
                worse.append(2 * n)
                break
    print(f"| {slower} | {' | '.join(_cells(worse, runs))} |", flush=True)


def _first(found: list[int], hits: NDArray[np.bool_]) -> None:
    if hits.any():
        found.append(int(np.argmax(hits)) + 1)


def _cells(found: list[int], runs: int) -> list[str]:
    return [f"{len(found) / runs:.3f}", f"{int(np.median(found)):,}" if found else "-"]


if __name__ == "__main__":
    main()
