"""How long rows are, what `max_length` does to them, and how much of a batch is padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Bin", "Lengths", "Limit", "Padding", "lengths", "limit", "padding"]

_BINS = 12
_WINDOW = 4096


@dataclass(frozen=True)
class Bin:
    """Rows of `first` to `last` tokens, both included."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class Lengths:
    """Tokens a row, before `max_length` is looked at."""

    shortest: int
    mean: float
    p50: int
    p90: int
    p95: int
    p99: int
    longest: int
    histogram: tuple[Bin, ...]
    """The last bin holds all that is longer; the others are equally wide."""


@dataclass(frozen=True)
class Limit:
    """What `max_length` does, by either policy."""

    max_length: int
    over_length: str
    rows_over: int
    rows_over_share: float
    tokens_lost_by_drop: int
    tokens_lost_by_drop_share: float
    tokens_lost_by_truncate: int
    tokens_lost_by_truncate_share: float
    fits_999: int
    """The smallest `max_length` that keeps 99.9 % of the rows whole."""
    fits_all: int


@dataclass(frozen=True)
class Padding:
    """Padding in the batches of the recipe, were they drawn once."""

    batch: str
    """`8 rows`, or `2,048 tokens`."""
    share: float
    """Of all tokens in padded batches."""
    avoided: bool = False
    """Rows stand end to end instead, and none is computed."""


def lengths(values: np.ndarray) -> Lengths:
    """The distribution of row lengths (at least one)."""
    p50, p90, p95, p99 = (int(x) for x in np.quantile(values, [0.5, 0.9, 0.95, 0.99], method="higher"))
    return Lengths(
        int(values.min()), round(float(values.mean()), 1), p50, p90, p95, p99, int(values.max()), tuple(_histogram(values))
    )


def _histogram(values: np.ndarray) -> list[Bin]:
    """Bins of a round width; a tail of a few very long rows shares the last one."""
    top = max(int(np.quantile(values, 0.995, method="higher")), 1)
    width = _round_up(top / _BINS)
    first = int(values.min()) // width
    count = min(int(values.max()) // width - first + 1, _BINS)
    found = np.bincount(np.minimum(values // width - first, count - 1), minlength=count)
    edges = [(first + i) * width for i in range(count)]
    lasts = [*(edge - 1 for edge in edges[1:]), max(int(values.max()), edges[-1] + width - 1)]
    return [Bin(edge, last, int(rows)) for edge, last, rows in zip(edges, lasts, found, strict=True)]


def _round_up(width: float) -> int:
    """The next of 1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100, ..."""
    nice = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80]
    scale = 1
    while True:
        for step in nice if scale == 1 else [10, 16, 20, 25, 32, 40, 50, 64, 80]:
            if step * scale >= width:
                return step * scale
        scale *= 10


def limit(values: np.ndarray, max_length: int, over_length: str) -> Limit:
    """What becomes of rows of these lengths."""
    total, over = int(values.sum()), values[values > max_length]
    dropped, cut = int(over.sum()), int((over - max_length).sum())
    return Limit(
        max_length,
        over_length,
        len(over),
        round(len(over) / len(values), 6),
        dropped,
        round(dropped / total, 6),
        cut,
        round(cut / total, 6),
        int(np.quantile(values, 0.999, method="higher")),
        int(values.max()),
    )


def padding(
    values: np.ndarray, *, rows: int, tokens: int | None, shuffle: bool, multiple: int, seed: int, avoided: bool = False
) -> Padding:
    """The share of padding in batches of so many rows, or of so many tokens with rows of like length together."""
    padded = -(-values // multiple) * multiple
    order = np.random.default_rng(seed).permutation(len(values)) if shuffle else np.arange(len(values))
    if tokens is None:
        drawn = padded[order]
        starts = np.arange(0, len(drawn), rows)
        sizes = np.diff(np.append(starts, len(drawn)))
        computed = int((np.maximum.reduceat(drawn, starts) * sizes).sum())
        return Padding(f"{rows:,} rows", round(1 - int(values.sum()) / computed, 4), avoided)
    if shuffle:
        windows = (order[i : i + _WINDOW] for i in range(0, len(order), _WINDOW))
        order = np.concatenate([window[np.argsort(padded[window], kind="stable")] for window in windows])
    computed = _filled(padded[order].tolist(), tokens)
    return Padding(f"{tokens:,} tokens", round(1 - int(values.sum()) / computed, 4), avoided)


def _filled(padded: list[int], tokens: int) -> int:
    """Tokens computed on when each batch takes rows while (rows x longest) stays within the budget."""
    computed = rows = longest = 0
    for length in padded:
        if rows and (rows + 1) * max(longest, length) <= tokens:
            rows, longest = rows + 1, max(longest, length)
            continue
        computed += rows * longest
        rows, longest = 1, length
    return computed + rows * longest
