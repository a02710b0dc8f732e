"""The figures of row lengths, worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from llmbench.data import lengths
from llmbench.data.lengths import Bin, Padding


def of(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def test_percentiles_are_lengths_that_rows_have() -> None:
    found = lengths.lengths(np.arange(1, 101, dtype=np.int32))
    assert (found.shortest, found.p50, found.p90, found.p99, found.longest) == (1, 51, 91, 100, 100)
    assert found.mean == 50.5


def test_one_row_has_a_histogram() -> None:
    assert lengths.lengths(of(7)).histogram == (Bin(7, 7, 1),)


def test_bins_hold_every_row_once_and_join_on() -> None:
    values = np.random.default_rng(1).integers(5, 900, 2000).astype(np.int32)
    bins = lengths.lengths(values).histogram
    assert sum(one.rows for one in bins) == 2000
    assert all(a.last + 1 == b.first for a, b in pairwise(bins))
    for one in bins:
        assert one.rows == np.count_nonzero((values >= one.first) & (values <= one.last))


def test_a_tail_of_few_long_rows_shares_the_last_bin() -> None:
    bins = lengths.lengths(of(*range(100, 300), 40_000)).histogram
    assert len(bins) <= 12
    assert bins[-1].last == 40_000
    assert bins[0].last - bins[0].first < 30


def test_what_a_limit_costs_by_either_policy() -> None:
    found = lengths.limit(of(10, 20, 30, 40), 25, "drop")
    assert found.rows_over == 2
    assert found.rows_over_share == 0.5
    assert (found.tokens_lost_by_drop, found.tokens_lost_by_drop_share) == (70, 0.7)
    assert (found.tokens_lost_by_truncate, found.tokens_lost_by_truncate_share) == (20, 0.2)
    assert found.fits_all == 40


def test_the_length_that_fits_nearly_all_leaves_one_in_a_thousand_out() -> None:
    values = np.append(np.full(1999, 50, dtype=np.int32), np.int32(5000))
    assert lengths.limit(values, 1024, "error").fits_999 == 50
    assert lengths.limit(values, 1024, "error").fits_all == 5000
    assert lengths.limit(values[:1500], 1024, "error").fits_999 == 50


def test_a_length_that_just_fits_loses_nothing() -> None:
    assert lengths.limit(of(10, 25), 25, "error").rows_over == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rows": 2, "tokens": None}, Padding("2 rows", round(1 - 100 / 120, 4))),
        ({"rows": 4, "tokens": None}, Padding("4 rows", round(1 - 100 / 160, 4))),
        ({"rows": 4, "tokens": 60}, Padding("60 tokens", round(1 - 100 / 110, 4))),
        ({"rows": 4, "tokens": 80}, Padding("80 tokens", round(1 - 100 / 120, 4))),
        ({"rows": 4, "tokens": 30}, Padding("30 tokens", 0.0)),
    ],
)
def test_padding_of_rows_in_file_order(settings: dict[str, int | None], expected: Padding) -> None:
    assert lengths.padding(of(10, 20, 30, 40), shuffle=False, multiple=1, seed=0, **settings) == expected  # type: ignore[arg-type]


def test_padding_to_a_multiple_counts() -> None:
    found = lengths.padding(of(10, 10), rows=2, tokens=None, shuffle=False, multiple=8, seed=0)
    assert found.share == round(1 - 20 / 32, 4)


def test_rows_of_like_length_together_pad_less() -> None:
    values = np.random.default_rng(3).integers(10, 500, 800)
    mixed = lengths.padding(values, rows=8, tokens=None, shuffle=True, multiple=1, seed=1)
    alike = lengths.padding(values, rows=8, tokens=4000, shuffle=True, multiple=1, seed=1)
    assert alike.share < 0.05 < mixed.share
