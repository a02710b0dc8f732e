"""The data report: what a training will read, counted and looked at before it costs hours.

A value that `examination` makes from prepared rows, that is written as JSON and read back. What it means for the user stands
in its notes, the gravest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from llmbench.data.lengths import Lengths, Limit, Padding
from llmbench.data.rendering import Row

__all__ = [
    "SCHEMA", "DataReport", "Duplicates", "Group", "Hashes", "Level", "Note", "Part", "RoleTokens", "Secret", "Section",
    "Skips", "SourceShare", "percent", "ranked", "read_json", "to_json",
]  # fmt: skip

SCHEMA = "llmbench.check/1"
"""Changes when a field is renamed or removed; new fields may come without."""

Level = Literal["refused", "error", "warning", "note"]
_LEVELS: tuple[Level, ...] = ("refused", "error", "warning", "note")


@dataclass(frozen=True)
class Note:
    """Something to know before training.

    `refused`: training would not start. `error`: it would, and the result is harmed. `warning`: look at it. `note`: know it.
    """

    level: Level
    where: str
    """The field of the recipe, or the place in the data."""
    text: str
    next: str = ""
    """What to do."""


@dataclass(frozen=True)
class Section:
    """Lines of another part of llmbench, such as the estimate of memory and time."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Skips:
    """Rows that are not used, for one reason."""

    reason: str
    rows: int
    places: tuple[str, ...]


@dataclass(frozen=True)
class SourceShare:
    """What one source gives."""

    name: str
    path: str
    rows: int
    rows_share: float
    tokens: int
    tokens_share: float


@dataclass(frozen=True)
class RoleTokens:
    """Tokens that one role wrote."""

    role: str
    tokens: int
    trained_tokens: int


@dataclass(frozen=True)
class Part:
    """The training rows, or the held-out ones."""

    rows_in: int
    rows: int
    skipped: tuple[Skips, ...]
    sources: tuple[SourceShare, ...]
    tokens: int
    trained_tokens: int
    lengths: Lengths
    limit: Limit
    padding: Padding
    roles: tuple[RoleTokens, ...]
    turns: int
    """Stretches of learned tokens: the assistant's turns."""
    turns_ended: int
    """Turns whose last learned token ends the turn, so that the model learns to stop."""
    cut_turns: int
    """Rows that `truncate` cut within what is learned."""
    untrained_rows: int
    """Rows without a learned token."""
    untrained_places: tuple[str, ...]
    double_bos: int
    unknown: int
    """Tokens that stand for text which the tokenizer cannot write."""
    control: int
    """Rows whose words spell out control tokens, which are learned as plain text."""
    split: int
    """Rows that training makes several of."""
    unprompted: int
    """Answers learned without what the generation prompt ends with, such as an opened `<think>`."""
    merged: int
    """Answers that begin inside a token of the prompt, which is then not learned."""
    remarks: tuple[str, ...]
    """What else came up while the rows were prepared."""
    turn_ends: tuple[str, ...] = ()
    """The tokens that end the learned turns."""
    unstoppable: tuple[str, ...] = ()
    """Those of them at which the model does not stop by itself."""
    stops: tuple[str, ...] = ()
    """The tokens at which it does."""
    unused: tuple[str, ...] = ()
    """Tokens that the recipe adds to the tokenizer and that no row has."""


@dataclass(frozen=True)
class Hashes:
    """sha256 of what turns conversations into tokens."""

    tokenizer: str
    chat_template: str | None


@dataclass(frozen=True)
class Group:
    """Rows that are duplicates of each other."""

    kind: Literal["exact", "near"]
    similarity: float
    train_rows: int
    eval_rows: int
    places: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Duplicates:
    """Rows that say the same."""

    threshold: float
    exact_rows: int
    """Training rows that could go without a loss: of each group of equal ones all but the first."""
    near_rows: int
    """Likewise of rows that are nearly the same."""
    contaminated_exact: int
    """Training rows that are also held out."""
    contaminated_near: int
    """Training rows that are nearly the same as a held-out row."""
    contaminated_prompts: int
    """Training rows whose prompt is a held-out row's prompt."""
    contaminated_places: tuple[str, ...]
    groups_found: int
    groups: tuple[Group, ...]
    """The first of them: those across train and eval, then the largest."""


@dataclass(frozen=True)
class Secret:
    """Finds of one kind."""

    kind: str
    key: bool
    """Whether it opens something (a key, a token); else it tells of a person."""
    found: int
    rows: int
    examples: tuple[tuple[str, str], ...]
    """Place, and what may be shown of it."""


@dataclass(frozen=True)
class DataReport:
    """Everything that `llmbench check` says."""

    recipe: str
    name: str
    method: str
    model: str
    hashes: Hashes
    train: Part
    eval: Part | None
    duplicates: Duplicates
    secrets: tuple[Secret, ...]
    rendering: tuple[Row, ...]
    notes: tuple[Note, ...] = ()
    sections: tuple[Section, ...] = ()
    schema: str = field(default=SCHEMA)

    @property
    def worst(self) -> Level | None:
        """The gravest level among the notes."""
        return self.notes[0].level if self.notes else None

    def adding(self, notes: Sequence[Note], sections: Sequence[Section] = ()) -> DataReport:
        """The report with what other parts of llmbench have to say."""
        return replace(self, notes=ranked([*self.notes, *notes]), sections=(*self.sections, *sections))


def percent(value: float) -> str:
    """A share, such as `0.17 %`, `21 %` or `99.6 %`; 100 % is all of it and nothing less."""
    if value < 0.0995:
        return f"{100 * value:.2g} %"
    return f"{100 * value:.0f} %" if value in (1, round(value, 2)) or value < 0.985 else f"{min(100 * value, 99.9):.1f} %"


def ranked(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The gravest first, otherwise in their order."""
    return tuple(sorted(notes, key=lambda note: _LEVELS.index(note.level)))


def to_json(report: DataReport) -> str:
    """One JSON document."""
    from pydantic import TypeAdapter

    return TypeAdapter(DataReport).dump_json(report, indent=2).decode() + "\n"


def read_json(text: str) -> DataReport:
    """A report that `to_json` wrote.

    Raises:
        ValueError: it is none, or of another version.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(DataReport).validate_json(text)
