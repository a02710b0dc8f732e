"""The metrics of a comparison, as its recipe names them: a name, or one name with its settings."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_serializer

from llmbench.recipe import metric_settings as of
from llmbench.recipe.fields import Section

__all__ = ["MetricSpec", "Metrics"]


class MetricSpec(Section):
    """One metric with its settings; exactly one of the fields is given."""

    grounded: of.NamedMetric | None = None
    contains_value: of.NamedMetric | None = None
    value_retrieved: of.NamedMetric | None = None
    citation: of.NamedMetric | None = None
    abstention: of.NamedMetric | None = None
    exact_match: of.ExactMetric | None = None
    squad_em: of.NamedMetric | None = None
    squad_f1: of.NamedMetric | None = None
    contains: of.ContainsMetric | None = None
    regex: of.RegexMetric | None = None
    numeric: of.NumericMetric | None = None
    choice: of.ChoiceMetric | None = None
    choice_probability: of.ChoiceMetric | None = None
    label: of.LabelMetric | None = None
    macro_f1: of.LabelMetric | None = None
    cohen_kappa: of.LabelMetric | None = None
    ece: of.CalibrationMetric | None = None
    brier: of.CalibrationMetric | None = None
    json_valid: of.NamedMetric | None = None
    json_schema: of.SchemaMetric | None = None
    json_equal: of.FieldsMetric | None = None
    json_fields: of.FieldsMetric | None = None
    rouge: of.RougeMetric | None = None
    bleu: of.ReferenceMetric | None = None
    chrf: of.ReferenceMetric | None = None
    edit_similarity: of.ReferenceMetric | None = None
    tool_calls: of.ToolsMetric | None = None
    sql: of.SqlMetric | None = None
    code: of.CodeMetric | None = None
    citation_recall: of.CitedSpansMetric | None = None
    citation_precision: of.CitedSpansMetric | None = None
    length: of.LengthMetric | None = None
    length_within: of.LengthMetric | None = None
    refusal: of.RefusalMetric | None = None
    language: of.LanguageMetric | None = None
    repetition: of.RepetitionMetric | None = None
    metric: of.OwnMetric | None = None
    judge: of.NamedMetric | None = None

    @property
    def kind(self) -> str:
        """Which metric it is."""
        return next(name for name in MetricSpec.model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> of.NamedMetric:
        """Its settings."""
        found: of.NamedMetric = getattr(self, self.kind)
        return found

    @property
    def name(self) -> str:
        """What tables call it."""
        settings = self.settings
        own = settings.function.rpartition(":")[2] if isinstance(settings, of.OwnMetric) else self.kind
        return settings.called or own

    @model_serializer
    def _dumped(self) -> str | dict[str, Any]:
        """A name alone where nothing is set."""
        if not self.settings.model_fields_set:
            return self.kind
        return {self.kind: self.settings.model_dump(mode="json", by_alias=True, exclude_none=True)}


_ALWAYS = ("latency", "first_token", "prompt_tokens", "completion_tokens", "cost", "energy")
_SHORT = {"regex": "pattern", "metric": "function", "json_schema": "path", "language": "language"}
"""The setting that a metric's value stands for where it is no section: `regex: '^\\d+$'`."""


def _spec(value: Any) -> Any:
    """A name becomes a section without settings."""
    if isinstance(value, MetricSpec):
        return value
    known = list(MetricSpec.model_fields)
    if isinstance(value, str):
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
            raise ValueError(f"{value!r:.60} is no metric. {f'Did you mean {near[0]}?' if near else f'Known: {_list(known)}.'}")
        return {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("a metric is a name, or one name with its settings: regex: {pattern: ...}")
    ((kind, settings),) = value.items()
    if settings is None:
        return {kind: {}}
    return {kind: {_SHORT[kind]: settings}} if kind in _SHORT and isinstance(settings, str) else value


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _named_apart(metrics: list[MetricSpec]) -> list[MetricSpec]:
    names = [one.name for one in metrics]
    for number, name in enumerate(names):
        if name in _ALWAYS:
            raise ValueError(f"{name} is what is always measured. Give {metrics[number].kind} another name with `as:`")
        if name in names[:number]:
            kind = metrics[number].kind
            raise ValueError(f"{name} is listed twice. Give one of them another name: `{kind}: {{as: {name}_2, ...}}`")
    return metrics


Metrics = Annotated[list[Annotated[MetricSpec, BeforeValidator(_spec)]], Field(min_length=1), AfterValidator(_named_apart)]
"""The metrics of a comparison, each of another name."""
