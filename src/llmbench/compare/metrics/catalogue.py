"""Every metric by its name: what judges, which questions it fits, and what it reads of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbench import own_code, provenance
from llmbench.compare import measures
from llmbench.compare.answers import Answer
from llmbench.compare.measures import Measure
from llmbench.compare.metrics import (
    choices,
    costs,
    executed,
    grounding,
    labels,
    languages,
    numbers,
    overlap,
    own,
    spans,
    structured,
    texts,
)
from llmbench.compare.metrics import tools as tools_called
from llmbench.compare.metrics.values import Judge, Metric, Pair, Prepare, Tools, Whole, has
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, MetricSpec
from llmbench.recipe.metric_settings import NamedMetric, ReferenceMetric, RegexMetric
from llmbench.statistics import Kind

__all__ = ["ALWAYS", "chosen", "definition", "every", "measures_of"]


def _any(question: Question, spec: Any) -> bool:
    return True


@dataclass(frozen=True)
class _Kind:
    """What a metric of a name is, whatever its settings."""

    judge: Judge | None = None
    whole: Whole | None = None
    applies: Callable[[Question, Any], bool] = _any
    fault: Callable[[Question, Any], str | None] | None = None
    prepare: Prepare | None = None
    columns: Callable[[Any], Sequence[str | None]] | None = None
    measured: Callable[[Measure, Any], Measure] | None = None
    """What the settings make of its measure."""


def _grounding(of: grounding.Grounding) -> _Kind:
    """A metric that needs the pattern of an abstention."""

    def judge(pairs: Sequence[Pair], spec: NamedMetric, tools: Tools) -> list[float | None]:
        return [of(question, answer, tools.abstention) for question, answer in pairs]

    def applies(question: Question, spec: NamedMetric) -> bool:
        passages = ({"n": 1, "source": question.source or "", "text": ""},)
        return of(question, Answer(question.id, "", "", sources=passages), "x^") is not None

    judge.__doc__ = of.__doc__
    return _Kind(judge, applies=applies)


def _exact(spec: Any) -> _Kind:
    """Without settings, the one that takes an abstention for the right answer where the documents tell none."""
    plain = not spec.model_fields_set - {"called"}
    return _grounding(grounding.exact_match) if plain else _Kind(texts.exact, applies=has)


def _own(measure: Measure, spec: Any) -> Measure:
    """A user's metric: named by its function, known again by its file's hash."""
    kind: Kind = "score" if spec.at_least is None else "share"
    return replace(measure, kind=kind, sha256=provenance.file_hash(own_code.file(spec.function)))


def _length(measure: Measure, spec: Any) -> Measure:
    return replace(measure, unit=spec.unit)


def _judged(pairs: Sequence[Pair], spec: NamedMetric, tools: Tools) -> list[float | None]:
    """A judging model's opinion, from 0 to 1: of pairs the share that is won, ties half, over all other variants; of a rubric
    of 1 to 5 the rating less 1 over 4; of a checklist the share of items that are met."""
    return [tools.judged.get(answer.place) for _, answer in pairs]


_ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
_KINDS: dict[str, _Kind] = {
    **{of.__name__: _grounding(of) for of in grounding.ALL},
    "contains": _Kind(texts.contains, applies=lambda q, spec: spec.texts is not None or has(q, spec)),
    "regex": _Kind(texts.regex, applies=texts.has_pattern, prepare=texts.patterns_tried, columns=lambda spec: [spec.column]),
    "numeric": _Kind(numbers.numeric, applies=has, fault=numbers.fault),
    "choice": _Kind(choices.choice, applies=has, fault=choices.fault),
    "choice_probability": _Kind(choices.choice_probability, applies=has, fault=choices.fault),
    "label": _Kind(labels.label, applies=has, fault=labels.fault),
    "macro_f1": _Kind(whole=labels.macro_f1, applies=has, fault=labels.fault),
    "cohen_kappa": _Kind(whole=labels.cohen_kappa, applies=has, fault=labels.fault),
    "ece": _Kind(whole=labels.ece, applies=has, fault=labels.fault),
    "brier": _Kind(labels.brier, applies=has, fault=labels.fault),
    "json_valid": _Kind(structured.json_valid),
    "json_schema": _Kind(
        structured.json_schema,
        applies=structured.has_schema,
        fault=structured.schema_fault,
        prepare=structured.schema_tried,
        columns=lambda spec: [spec.column],
    ),
    "json_equal": _Kind(structured.json_equal, applies=has, fault=structured.fields_fault),
    "json_fields": _Kind(structured.json_fields, applies=has, fault=structured.fields_fault),
    "rouge": _Kind(overlap.rouge, applies=has, measured=lambda measure, spec: replace(measure, label=_ROUGE[spec.type])),
    "bleu": _Kind(whole=overlap.bleu, applies=has),
    "chrf": _Kind(whole=overlap.chrf, applies=has),
    "edit_similarity": _Kind(overlap.edit_similarity, applies=has),
    "tool_calls": _Kind(tools_called.tool_calls, applies=tools_called.has_calls, fault=tools_called.fault),
    "sql": _Kind(
        executed.sql,
        applies=has,
        fault=executed.sql_fault,
        prepare=executed.sql_tried,
        columns=lambda spec: [spec.column],
    ),
    "code": _Kind(
        executed.code, applies=executed.has_test, fault=executed.code_fault, columns=lambda spec: [spec.test, spec.prefix]
    ),
    "citation_recall": _Kind(
        spans.citation_recall, applies=spans.has_spans, fault=spans.fault, columns=lambda spec: [spec.spans]
    ),
    "citation_precision": _Kind(
        spans.citation_precision, applies=spans.has_spans, fault=spans.fault, columns=lambda spec: [spec.spans]
    ),
    "language": _Kind(languages.language, fault=languages.fault, prepare=languages.tried, columns=lambda spec: [spec.column]),
    "metric": _Kind(own.own, measured=_own),
    "length": _Kind(texts.length, measured=_length),
    "length_within": _Kind(texts.length_within),
    "refusal": _Kind(texts.refusal),
    "repetition": _Kind(texts.repetition),
    "judge": _Kind(_judged),
}
_COSTS = {"latency": costs.latency, "first_token": costs.first_token, "prompt_tokens": costs.prompt_tokens,
          "completion_tokens": costs.completion_tokens}  # fmt: skip


def chosen(recipe: CompareRecipe) -> list[Metric]:
    """The metrics of a recipe, in its order."""
    made = [_metric(spec) for spec in recipe.metrics]
    return [_repeated(one) for one in made] if recipe.repeats > 1 else made


def _repeated(metric: Metric) -> Metric:
    """The mean over repeats of what is 0 or 1 is a score."""
    return replace(metric, measure=replace(metric.measure, kind="score")) if metric.measure.kind == "share" else metric


def _metric(asked: MetricSpec) -> Metric:
    spec = asked.settings
    kind = _exact(spec) if asked.kind == "exact_match" else _KINDS[asked.kind]
    measure = measures.KNOWN[asked.kind] if asked.kind in measures.KNOWN else measures.known(asked.name)
    if kind.measured is not None:
        measure = kind.measured(measure, spec)
    told = _told(kind)
    if settings := spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"called"}):
        told += " Settings: " + ", ".join(f"`{name}: {_short(value)}`" for name, value in settings.items()) + "."
    measure = replace(measures.renamed(measure, asked.name), definition=told)
    reads = [*(kind.columns(spec) if kind.columns else ())]
    if isinstance(spec, ReferenceMetric) and not (isinstance(spec, RegexMetric) and spec.group is None):
        reads.append(spec.expected)
    columns = tuple(one for one in reads if one is not None and one not in ("answer", "value", "question"))
    metric = Metric(measure, spec, kind.applies, kind.judge, kind.whole, prepare=kind.prepare, columns=columns)
    return replace(metric, fault=kind.fault) if kind.fault is not None else metric


def _short(value: Any) -> str:
    text = str(value).replace("`", "'")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _told(kind: _Kind) -> str:
    return " ".join(((kind.judge or kind.whole).__doc__ or "").split())


def _always() -> list[Metric]:
    made = []
    for name, judge in _COSTS.items():
        told = " ".join((judge.__doc__ or "").split())
        made.append(Metric(replace(measures.KNOWN[name], definition=told), NamedMetric(), _any, judge))
    return made


ALWAYS = _always()
"""What every answer takes."""


def measures_of(recipe: CompareRecipe) -> dict[str, Measure]:
    """What is known about each metric of a recipe, those that are always measured last."""
    return {one.name: one.measure for one in every(recipe)}


def every(recipe: CompareRecipe) -> list[Metric]:
    """The chosen metrics, what is always measured, and the cost where there are prices."""
    made = [*chosen(recipe), *ALWAYS]
    if recipe.prices is not None:
        judge = costs.cost(recipe)
        told = " ".join((judge.__doc__ or "").split())
        measure = replace(measures.KNOWN["cost"], definition=told, currency=recipe.prices.currency)
        made.append(Metric(measure, NamedMetric(), _any, judge))
    return made


def definition(name: str) -> str:
    """What a metric of its own name measures, in one paragraph; nothing of one that a user named."""
    if name in _COSTS:
        return " ".join((_COSTS[name].__doc__ or "").split())
    return _told(_KINDS[name]) if name in _KINDS else ""
