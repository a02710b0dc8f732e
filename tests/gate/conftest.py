"""Comparisons made up row by row, and the comparison's own endpoint and recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from tests.compare.conftest import GRID, FakeEndpoint, document, server

from llmbench.compare.measures import known
from llmbench.gate.judging import judge
from llmbench.gate.values import GatedMetric, MetricVerdict, Several
from llmbench.recipe import Margin

__all__ = ["GRID", "FakeEndpoint", "document", "one", "server"]


def one(
    candidate: Sequence[float],
    baseline: Sequence[float],
    margin: str = "0.02",
    metric: str = "grounded",
    *,
    groups: Mapping[str, str] | None = None,
    superior: bool = False,
    alpha: float = 0.05,
    several: Several = "fixed-sequence",
) -> MetricVerdict:
    """The verdict about one metric."""
    of = tuple({f"q{i:04}": float(x) for i, x in enumerate(values)} for values in (candidate, baseline))
    wanted = [GatedMetric(known(metric), Margin.parse(margin))]
    return judge(wanted, {metric: (of[0], of[1])}, groups or {}, alpha=alpha, several=several, superior=superior)[0]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs in the test's own folder."""
    monkeypatch.chdir(str(tmp_path))
