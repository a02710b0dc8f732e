"""Agreement against published examples and recorded figures of other libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from llmbench.statistics.agreement import alpha, cohen, fleiss
from llmbench.statistics.ratings import Agreement

# Fleiss's table as in the article on his kappa in Wikipedia: ten items, fourteen raters, five kinds; kappa = 0.210.
FLEISS = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1), (7, 7, 0, 0, 0), (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units, gaps; alpha = .743.
KRIPPENDORFF = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]


def counted(table: Sequence[Sequence[int]]) -> dict[str, dict[str, str]]:
    """Labels of anonymous raters from a table of counts."""
    return {
        f"item {i}": {f"r{j}": label for j, label in enumerate("".join(str(k) * n for k, n in enumerate(row)))}
        for i, row in enumerate(table)
    }


def sure(found: Agreement | None) -> Agreement:
    assert found is not None
    return found


def test_fleiss_kappa_is_that_of_the_published_table() -> None:
    found = sure(fleiss(counted(FLEISS)))
    assert found.value == pytest.approx(0.20993070, abs=1e-8)  # also of statsmodels 0.15.0 fleiss_kappa
    assert found.observed == pytest.approx(0.378, abs=5e-4)
    assert (found.items, found.raters) == (10, 14) and found.low < found.value < found.high


def test_alpha_is_krippendorff_s_own() -> None:
    rows = [row.split() for row in KRIPPENDORFF]
    labels = {f"u{i}": {f"o{j}": row[i] for j, row in enumerate(rows) if row[i] != "."} for i in range(12)}
    found = sure(alpha(labels))
    assert found.value == pytest.approx(0.74342105, abs=1e-8)  # also of krippendorff 0.9.0
    assert (found.items, found.raters) == (11, 4)  # one unit has a single label, which cannot disagree


def test_cohen_s_kappa_of_a_table_by_hand() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed .7, by chance .5, kappa .4.
    said = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    labels = {str(i): {"ada": a, "bob": b} for i, (a, b) in enumerate(said)}
    found = sure(cohen(labels, "ada", "bob"))
    assert found.value == pytest.approx(0.4)
    # By the delta method (Fleiss, Cohen and Everitt 1969; statsmodels 0.15.0 cohens_kappa) the standard error is .1270.
    assert (found.high - found.low) / 2 == pytest.approx(0.1270 * 2.01, rel=0.05)
    assert cohen(labels, "ada", "eve") is None


def test_full_agreement_is_one_and_a_single_kind_is_undefined() -> None:
    labels = {str(i): {"a": "xy"[i % 2], "b": "xy"[i % 2]} for i in range(10)}
    assert sure(alpha(labels)).value == sure(fleiss(labels)).value == sure(cohen(labels, "a", "b")).value == 1
    alike = {str(i): {"a": "x", "b": "x"} for i in range(10)}
    assert math.isnan(sure(fleiss(alike)).value) and math.isnan(sure(alpha(alike)).value)


def test_items_of_one_rater_say_nothing() -> None:
    labels = {"1": {"a": "x"}, "2": {"b": "y"}}
    assert alpha(labels) is None and fleiss(labels) is None


def test_chance_gives_zero_and_clusters_widen() -> None:
    rng = np.random.default_rng(0)
    labels = {str(i): {rater: "xyz"[rng.integers(3)] for rater in "abc"} for i in range(400)}
    found = sure(alpha(labels))
    assert found.low < 0 < found.high and abs(found.value) < 0.08
    copies = {f"{i}-{copy}": dict(of) for i, of in labels.items() for copy in range(4)}
    alone = sure(alpha(copies))
    together = sure(alpha(copies, clusters={name: name.split("-")[0] for name in copies}))
    assert together.high - together.low == pytest.approx(2 * (alone.high - alone.low), rel=0.02)
