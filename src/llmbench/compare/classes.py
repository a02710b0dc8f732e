"""What one figure does not say of a classification: which label was told for which, and how far confidence is earned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbench.compare.metrics import Metric, Tools
from llmbench.compare.metrics.labels import LabelSet
from llmbench.compare.metrics.values import Pair, expected
from llmbench.recipe.metric_settings import CalibrationMetric, LabelMetric

if TYPE_CHECKING:
    from llmbench.statistics.resampling import Addends

__all__ = ["NONE", "classes"]

NONE = "(no label)"
"""What is told by an answer that tells no label, or several."""


def classes(
    chosen: Sequence[Metric], pairs: Sequence[Pair], whole: Mapping[str, Mapping[str, Addends]], tools: Tools
) -> dict[str, Any]:
    """For the summary: `confusion` and `reliability`, each by a metric's name and variant; empty without such a metric.

    A confusion is `labels`, and by variant `counts`, a list of [right, told, answers] of the pairs that came, most first. A
    reliability is by variant a list of [mean confidence, share that is right, answers], a bin each.

    Args:
        chosen: the comparison's metrics; the first of each sort of labels is taken.
        pairs: every question with an answer.
        whole: what variants add to metrics of all questions together.
        tools: as for judging.
    """
    given = [(question, answer) for question, answer in pairs if answer.error is None]
    confused: dict[str, Any] = {}
    seen: set[tuple[Any, ...]] = set()
    for metric in chosen:
        spec = metric.spec
        if not isinstance(spec, LabelMetric) or isinstance(spec, CalibrationMetric):
            continue
        settings = (spec.expected, tuple(spec.labels or ()), spec.whole)
        if settings not in seen:
            seen.add(settings)
            confused[metric.name] = _confusion(given, spec, tools)
    sure = {
        metric.name: {variant: _reliability(of, metric.spec.bins) for variant, of in whole.get(metric.name, {}).items()}
        for metric in chosen
        if isinstance(metric.spec, CalibrationMetric) and metric.measure.whole
    }
    return {name: of for name, of in (("confusion", confused), ("reliability", sure)) if of}


def _confusion(given: Sequence[Pair], spec: LabelMetric, tools: Tools) -> dict[str, Any]:
    labels = LabelSet.of(given, spec, tools)
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for question, answer in given:
        right = [number for one in expected(question, spec.expected) if (number := labels.number(str(one))) is not None]
        if not right:
            continue
        told = labels.told(answer.text)
        gold = labels.names[told if told in right else right[0]] if told is not None else labels.names[right[0]]
        counts.setdefault(answer.variant, Counter())[gold, NONE if told is None else labels.names[told]] += 1
    of = {v: [[gold, told, many] for (gold, told), many in found.most_common()] for v, found in counts.items()}
    return {"labels": list(labels.names), "variants": of}


def _reliability(of: Addends, bins: int) -> list[list[float]]:
    counted, stated, right = of.rows.sum(axis=0).reshape(3, bins)
    return [[float(s / n), float(r / n), int(n)] for n, s, r in zip(counted, stated, right, strict=True) if n]
