"""Classification: accuracy of single answers, and what is known of all together only: macro F1, kappa, calibration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llmbench import scoring
from llmbench.compare.metrics.texts import SECONDS, too_long
from llmbench.compare.metrics.values import Pair, Tools, Totals, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import CalibrationMetric, LabelMetric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LabelSet", "brier", "cohen_kappa", "confidences", "ece", "fault", "label", "macro_f1"]


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task, as they are written, and how they are found in an answer."""

    names: tuple[str, ...]
    whole: bool = False

    @staticmethod
    def of(pairs: Sequence[Pair], spec: LabelMetric, tools: Tools) -> LabelSet:
        """Those of the settings; else all that are expected of some question, in order."""
        if spec.labels is not None:
            return LabelSet(tuple(spec.labels), spec.whole)
        asked = tools.asked or [question for question, _ in pairs]
        right = {str(one) for question in asked for one in expected(question, spec.expected)}
        return LabelSet(tuple(sorted(right)), spec.whole)

    @cached_property
    def _by_text(self) -> Mapping[str, int]:
        return {_plain(name): number for number, name in enumerate(self.names)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest = sorted(filter(None, self._by_text), key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")

    def number(self, text: str) -> int | None:
        """The number of the class that is written so, whatever case, spaces, hyphens and underscores; None for none of them."""
        return self._by_text.get(_plain(text))

    def told(self, text: str) -> int | None:
        """The class that an answer tells: it is the label, or holds one label and no other; None where it tells none."""
        plain = _plain(text)
        if plain in self._by_text:
            return self._by_text[plain]
        if self.whole or not self._by_text:
            return None
        held = set(self._pattern.findall(plain))
        return self._by_text[held.pop()] if len(held) == 1 else None


def label(pairs: Sequence[Pair], spec: LabelMetric, tools: Tools) -> list[float | None]:
    """The answer tells a right label: it is the label, or holds it and no other one, whatever case, spaces, hyphens and
    underscores. An answer that tells none, or several, is wrong. The mean is the accuracy."""
    labels = LabelSet.of(pairs, spec, tools)
    return [_right(question, labels.told(answer.text), labels, spec) for question, answer in pairs]


def macro_f1(pairs: Sequence[Pair], spec: LabelMetric, tools: Tools) -> Totals:
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN), every class as heavy as any other, over the classes that are
    right or told at least once. Labels are found as for `label`; an answer that tells none is wrong for its class and told of
    none. Of several right labels, the told one counts, else the first."""
    import numpy as np

    labels = LabelSet.of(pairs, spec, tools)
    gold, told = _numbers(pairs, labels, spec)
    count = len(labels.names)
    rows = np.zeros((len(pairs), 3, count))
    index = np.arange(len(pairs))
    rows[index, 0, gold] = gold == told
    rows[index, 1, gold] = 1
    rows[index[told >= 0], 2, told[told >= 0]] = 1

    def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        hits, right, said = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, count), -2, 0)
        seen = right + said > 0
        f1 = np.where(seen, 2 * hits / np.where(seen, right + said, 1), 0.0)
        return np.asarray(f1.sum(axis=-1) / np.maximum(1, seen.sum(axis=-1)), dtype=np.float64)

    return Totals(rows.reshape(len(pairs), -1), value)


def cohen_kappa(pairs: Sequence[Pair], spec: LabelMetric, tools: Tools) -> Totals:
    """Cohen's kappa (1960) of told and right labels: (po - pe) / (1 - pe), with pe the agreement that chance would give; 0
    where chance agrees everywhere. Answers that tell no label are a class of their own."""
    import numpy as np

    labels = LabelSet.of(pairs, spec, tools)
    gold, told = _numbers(pairs, labels, spec)
    count = len(labels.names)
    rows = np.zeros((len(pairs), 2 + 2 * count))
    index = np.arange(len(pairs))
    rows[:, 0], rows[:, 1] = 1, gold == told
    rows[index, 2 + gold] = 1
    rows[index[told >= 0], 2 + count + told[told >= 0]] = 1

    def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        n = sums[..., 0]
        agreed, chance = sums[..., 1] / n, (sums[..., 2 : 2 + count] * sums[..., 2 + count :]).sum(axis=-1) / n**2
        certain = chance > 1 - 1e-12
        return np.where(certain, 0.0, (agreed - chance) / np.where(certain, 1.0, 1 - chance))

    return Totals(rows, value)


def ece(pairs: Sequence[Pair], spec: CalibrationMetric, tools: Tools) -> Totals:
    """The expected calibration error (Naeini 2015): answers are put into `bins` of equal width by the confidence that they
    state; the mean distance between confidence and accuracy in a bin, weighted by answers. Less is better. With few answers
    in a bin it is too high even for a calibrated model. Answers that state no confidence are left out."""
    import numpy as np

    sure, right = _stated(pairs, spec, tools)
    known = ~np.isnan(sure)
    bins = np.minimum((np.where(known, sure, 0) * spec.bins).astype(int), spec.bins - 1)
    rows = np.zeros((len(pairs), 3, spec.bins))
    index = np.arange(len(pairs))
    rows[index, 0, bins], rows[index, 1, bins], rows[index, 2, bins] = 1, sure, right
    rows[~known] = 0

    def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        counted, stated, hit = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, spec.bins), -2, 0)
        return np.asarray(np.abs(stated - hit).sum(axis=-1) / np.maximum(1, counted.sum(axis=-1)), dtype=np.float64)

    return Totals(rows.reshape(len(pairs), -1), value)


def brier(pairs: Sequence[Pair], spec: CalibrationMetric, tools: Tools) -> list[float | None]:
    """The square of the distance between the confidence that an answer states and whether it is right (Brier 1950): 0 is
    perfect, 0.25 is what a coin gives that always states one half. Less is better. Answers that state none are not measured."""
    labels = LabelSet.of(pairs, spec, tools)
    scores: list[float | None] = []
    for (question, answer), sure in zip(pairs, confidences(pairs, spec, tools), strict=True):
        right = _right(question, labels.told(answer.text), labels, spec)
        scores.append(None if sure is None or right is None else (sure - right) ** 2)
    return scores


def confidences(pairs: Sequence[Pair], spec: CalibrationMetric, tools: Tools) -> list[float | None]:
    """The confidence that each answer states, 0 to 1; None where it states none."""
    requests = [{"pattern": spec.confidence, "flags": "i", "group": 1, "text": answer.text} for _, answer in pairs]
    found = list(tools.sandbox.each("search", requests, SECONDS))
    too_long(tools, spec.called or "confidence", sum(one.limit is not None for one in found))
    return [None if one.value is None else _share(one.value) for one in found]


def fault(question: Question, spec: LabelMetric) -> str | None:
    """What is wrong with a right answer that is no label."""
    if spec.labels is None:
        return None
    labels = LabelSet(tuple(spec.labels))
    strange = next((one for one in expected(question, spec.expected) if labels.number(str(one)) is None), None)
    return None if strange is None else f"the right answer {str(strange)[:40]!r} is none of the labels"


def _stated(pairs: Sequence[Pair], spec: CalibrationMetric, tools: Tools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    labels = LabelSet.of(pairs, spec, tools)
    sure = [np.nan if one is None else one for one in confidences(pairs, spec, tools)]
    right = [_right(question, labels.told(answer.text), labels, spec) or 0.0 for question, answer in pairs]
    return np.array(sure, dtype=np.float64), np.array(right, dtype=np.float64)


def _numbers(pairs: Sequence[Pair], labels: LabelSet, spec: LabelMetric) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """The right and the told class of each answer, -1 where it tells none."""
    import numpy as np

    gold, told = [], []
    for question, answer in pairs:
        said = labels.told(answer.text)
        right = [number for one in expected(question, spec.expected) if (number := labels.number(str(one))) is not None]
        gold.append(said if said in right else right[0])
        told.append(-1 if said is None else said)
    return np.array(gold, dtype=int), np.array(told, dtype=int)


def _right(question: Question, told: int | None, labels: LabelSet, spec: LabelMetric) -> float | None:
    right = [labels.number(str(one)) for one in expected(question, spec.expected)]
    return float(told is not None and told in right) if right else None


def _share(text: str) -> float | None:
    """`0.8`, `80` or `80%` as 0.8; None of what is beyond 100."""
    number = float(text.rstrip("% "))
    share = number / 100 if "%" in text or number > 1 else number
    return share if share <= 1 else None


def _plain(text: str) -> str:
    return " ".join(scoring.plain(text).replace("_", " ").replace("-", " ").strip(" .!?,;:\"'`*").split())
