"""The settings of each metric of a comparison. What a metric measures, its own docstring says (`llmbench.compare.metrics`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import ExistingPath, Fraction, OwnFunction, Pattern, Positive, Section

__all__ = [
    "CalibrationMetric", "ChoiceMetric", "CitedSpansMetric", "CodeMetric", "ContainsMetric", "ExactMetric", "FieldsMetric",
    "LabelMetric", "LanguageMetric", "LengthMetric", "NamedMetric", "NumericMetric", "OwnMetric", "ReferenceMetric",
    "RefusalMetric", "RegexMetric", "RepetitionMetric", "RougeMetric", "SchemaMetric", "SqlMetric", "ToolsMetric",
]  # fmt: skip

Column = Annotated[str, Field(min_length=1)]
"""`answer`, `value` (every wording of it), or the name of a column of the question file: one value, or a list of right ones."""


class NamedMetric(Section):
    """What every metric takes."""

    called: Annotated[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None, Field(alias="as")] = None
    """The metric's name in tables, in place of its kind: needed where one kind is measured twice."""


class ReferenceMetric(NamedMetric):
    """A metric that compares with right answers."""

    expected: Column | None = None
    """Where they stand; by default the question's `value`, else its `answer`."""


class ExactMetric(ReferenceMetric):
    """Of `exact_match`."""

    strict: bool = False
    """Every character counts, apart from spaces around the whole; otherwise case, spacing and final punctuation do not."""


class ContainsMetric(ReferenceMetric):
    """Of `contains`."""

    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """What is looked for in every answer, in place of `expected`."""
    every: bool = False
    """All of them must be in the answer, not just one."""
    ignore_case: bool = True
    absent: bool = False
    """Right is an answer that holds none of them (with `every`: not all of them)."""


class RegexMetric(ReferenceMetric):
    """Of `regex`."""

    pattern: Pattern | None = None
    column: Column | None = None
    """The column with each question's own pattern."""
    flags: Annotated[str, Field(pattern="^[aimsx]*$")] = ""
    """Of Python's: i (case), m (lines), s (dot matches line ends), x (verbose), a (ASCII)."""
    group: Annotated[int, Field(ge=0)] | None = None
    """Right is an answer in which this group of the last find is one of the `expected`."""
    absent: bool = False
    """Right is an answer in which the pattern is not found."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pattern is None) == (self.column is None):
            raise ValueError("give one of pattern and column")
        return self


class NumericMetric(ReferenceMetric):
    """Of `numeric`."""

    tolerance: Annotated[float, Field(ge=0)] = 0.0
    relative: bool = False
    """The tolerance is a share of the right number, not an amount."""
    unit: bool = False
    """The unit behind the number must be the right one too; those of length, mass, time, volume and data are converted."""
    pick: Literal["last", "first", "only"] = "last"
    """Which number of an answer counts, where neither `####` nor `\\boxed{}` marks one."""


class SchemaMetric(NamedMetric):
    """Of `json_schema`. One of the three says which schema."""

    definition: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    path: ExistingPath | None = None
    column: Column | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.definition is not None, self.path is not None, self.column is not None]
        if sum(given) != 1:
            raise ValueError("give one of schema, path and column")
        return self


class FieldsMetric(ReferenceMetric):
    """Of `json_equal` and `json_fields`."""

    fields: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """Dotted names of what is compared (`address.city`, `items.0.price`); by default every key of the expected object."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Numbers that differ by no more are equal."""
    ignore_case: bool = False
    ignore_order: bool = False
    """Lists are equal when they hold the same, in whatever order."""


class ChoiceMetric(ReferenceMetric):
    """Of `choice` and `choice_probability`."""

    options: Column = "options"
    """The column with the list of options, or a mapping of letters to them. Without such a column, only letters count."""


class LabelMetric(ReferenceMetric):
    """Of `label`, `macro_f1` and `cohen_kappa`."""

    labels: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)] | None = None
    """Every class; by default those that are expected of some question."""
    whole: bool = False
    """The answer must be the label and nothing else; otherwise a label in a longer answer counts, if it is the only one."""


class CalibrationMetric(LabelMetric):
    """Of `ece` and `brier`."""

    confidence: Pattern = r"confidence\W{0,5}(\d{1,3}(?:\.\d+)?\s*%?)"
    """Finds the confidence that an answer states, in its first group: 0 to 1, or percent. Case does not matter."""
    bins: Annotated[int, Field(ge=2, le=100)] = 10


class RougeMetric(ReferenceMetric):
    """Of `rouge`."""

    type: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"


class LengthMetric(NamedMetric):
    """Of `length` and `length_within`."""

    unit: Literal["words", "characters", "tokens"] = "words"
    least: Annotated[int, Field(ge=0)] = 0
    most: Positive | None = None


class RefusalMetric(NamedMetric):
    """Of `refusal`."""

    pattern: Pattern | None = None
    """Tells an answer that refuses (case does not matter); by default, common English wordings."""


class LanguageMetric(NamedMetric):
    """Of `language`."""

    language: Annotated[str, Field(pattern="^[a-z]{2}$")] | None = None
    """The ISO 639-1 code that every answer should have."""
    column: Column | None = None
    """The column that says which; by default the language of the question counts."""


class RepetitionMetric(NamedMetric):
    """Of `repetition`."""

    n: Annotated[int, Field(ge=1, le=20)] = 4
    """Words in a row."""


class CodeMetric(NamedMetric):
    """Of `code`. The recipe must say `allow_code: true`."""

    test: Column = "test"
    """The column with the test: Python, or a list of statements."""
    entry_point: Column = "entry_point"
    """The column with the name of the function that a test's `check` is given, where there is such a column."""
    prefix: Column | None = None
    """What the answer completes: `question`, or a column. Without it, the answer stands alone."""
    seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Processor time; three times as much by the clock."""
    memory_mib: Annotated[int, Field(ge=64)] = 512


class SqlMetric(ReferenceMetric):
    """Of `sql`. One of `database` and `column` says on what queries run."""

    database: ExistingPath | None = None
    """A database of SQLite; it is only read."""
    column: Column | None = None
    """The column with the statements that make the database, or, where `folder` is given, with the name of one."""
    folder: ExistingPath | None = None
    """The folder of the databases that `column` names: NAME, NAME.sqlite, NAME.db or NAME/NAME.sqlite."""
    seconds: Annotated[float, Field(gt=0, le=600)] = 5.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.database is None) == (self.column is None):
            raise ValueError("give one of database and column")
        if self.folder is not None and self.column is None:
            raise ValueError("folder goes with column")
        return self


class ToolsMetric(ReferenceMetric):
    """Of `tool_calls`."""

    expected: Column | None = "tool_calls"
    """The column with the right calls: a list of {name, arguments}, or of what the OpenAI API calls tool calls."""
    ordered: bool = False
    arguments: Literal["equal", "subset", "names"] = "equal"
    """equal: the same; subset: those that are expected, and any others; names: their names alone."""


class CitedSpansMetric(NamedMetric):
    """Of `citation_recall` and `citation_precision`."""

    spans: Column = "spans"
    """The column with the evidence: a list of {source, start, end} in characters; without start and end, the whole page."""


class OwnMetric(NamedMetric):
    """Of `metric`: a function of the user's."""

    function: OwnFunction
    """`path/to/file.py:name`, called with the answer's text and a mapping of what is known about its question."""
    at_least: Fraction | None = None
    """A score is right from here on: shares in place of means."""
