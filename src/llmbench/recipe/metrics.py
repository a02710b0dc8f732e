"""The metrics of a comparison, as its recipe names them: a name, or one name with its settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_serializer

from llmbench.recipe import metric_settings as of
from llmbench.recipe.fields import Section

__all__ = ["MetricSpec", "Metrics"]


def _short(name: str) -> Callable[[Any], Any]:
    """A text in place of a section stands for the setting that says most: `regex: '^\\d+$'`."""
    return lambda value: {name: value} if isinstance(value, str) else value


_Regex = Annotated[
    of.RegexMetric | None, BeforeValidator(_short("pattern"), json_schema_input_type=of.RegexMetric | str | None)
]
_Schema = Annotated[
    of.SchemaMetric | None, BeforeValidator(_short("path"), json_schema_input_type=of.SchemaMetric | str | None)
]
_Language = Annotated[
    of.LanguageMetric | None, BeforeValidator(_short("language"), json_schema_input_type=of.LanguageMetric | str | None)
]
_Own = Annotated[of.OwnMetric | None, BeforeValidator(_short("function"), json_schema_input_type=of.OwnMetric | str | None)]


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
    regex: _Regex = None
    numeric: of.NumericMetric | None = None
    choice: of.ChoiceMetric | None = None
    choice_probability: of.ChoiceMetric | None = None
    label: of.LabelMetric | None = None
    macro_f1: of.LabelMetric | None = None
    cohen_kappa: of.LabelMetric | None = None
    ece: of.CalibrationMetric | None = None
    brier: of.CalibrationMetric | None = None
    json_valid: of.NamedMetric | None = None
    json_schema: _Schema = None
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
    language: _Language = None
    repetition: of.RepetitionMetric | None = None
    metric: _Own = None
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


_Name = Annotated[str, Field(json_schema_extra={"enum": list(MetricSpec.model_fields)})]


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
    return {kind: {}} if settings is None else value


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


Metrics = Annotated[
    list[Annotated[MetricSpec, BeforeValidator(_spec, json_schema_input_type=_Name | MetricSpec)]],
    Field(min_length=1),
    AfterValidator(_named_apart),
]
"""The metrics of a comparison, each of another name."""
