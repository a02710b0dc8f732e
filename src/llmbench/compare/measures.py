"""What is known about a metric beside its figures: its name for people, what one question gives, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmbench.statistics import Kind

__all__ = ["KNOWN", "Measure", "known", "renamed"]

Unit = Literal["", "s", "tokens", "words", "characters", "money", "Wh"]


@dataclass(frozen=True)
class Measure:
    """One metric of a comparison, as its summary holds it.

    `kind` is what one question gives: a share (0 or 1), a score (0 to 1) or an amount in `unit`. `more` joins two variants
    where the first has the higher value, `does` a variant and its share of questions. A `whole` metric is no mean of questions:
    it is known of all of them together. `sha256` is that of the user's file, of a metric that a user wrote. `currency` stands
    behind money.
    """

    name: str
    label: str
    kind: Kind = "share"
    more: str = ""
    does: str = ""
    unit: Unit = ""
    less_is_better: bool = False
    whole: bool = False
    definition: str = ""
    sha256: str | None = None
    currency: str = ""

    @property
    def is_amount(self) -> bool:
        """Whether it has a unit of its own, rather than being a share of 1."""
        return self.kind == "amount"

    @property
    def words_for_more(self) -> str:
        """`gives the correct value more often than`; of a metric without words of its own, `has more LABEL than`."""
        return self.more or f"has a higher {self.label} than"


def _share(name: str, label: str, more: str, does: str = "") -> Measure:
    return Measure(name, label, "share", more, does)


def _score(name: str, label: str, more: str = "", *, whole: bool = False, less_is_better: bool = False) -> Measure:
    return Measure(name, label, "score", more, whole=whole, less_is_better=less_is_better)


_ALL = (
    _share("grounded", "Correct and cited", "is correct more often than", "is correct in"),
    _share("contains_value", "Value", "gives the correct value more often than", "gives the correct value in"),
    _share("value_retrieved", "Value retrieved", "is given the correct value more often than", "is given the correct value in"),
    _share("citation", "Citation", "cites the correct page more often than", "cites the correct page in"),
    _share("abstention", "Abstention", "correctly answers or abstains more often than", "correctly answers or abstains in"),
    _share("exact_match", "Exact match", "gives the expected sentence more often than", "gives the expected sentence in"),
    _share("squad_em", "SQuAD exact match", "gives exactly the value more often than", "gives exactly the value in"),
    _score("squad_f1", "SQuAD F1", "shares more words with the value than"),
    _share("contains", "Contains", "gives the wanted text more often than", "gives the wanted text in"),
    _share("regex", "Pattern", "matches the pattern more often than", "matches the pattern in"),
    _share("numeric", "Number", "gives the right number more often than", "gives the right number in"),
    _share("choice", "Choice", "chooses right more often than", "chooses right in"),
    _score("choice_probability", "Probability of the right choice", "is surer of the right choice than"),
    _share("label", "Accuracy", "gives the right label more often than", "gives the right label in"),
    _score("macro_f1", "Macro F1", whole=True),
    _score("cohen_kappa", "Cohen's kappa", whole=True),
    _score("ece", "Calibration error", whole=True, less_is_better=True),
    _score("brier", "Brier score", less_is_better=True),
    _share("json_valid", "JSON", "answers in JSON more often than", "answers in JSON in"),
    _share("json_schema", "JSON schema", "fits the schema more often than", "fits the schema in"),
    _share("json_equal", "JSON equal", "gives the right JSON more often than", "gives the right JSON in"),
    _score("json_fields", "JSON fields", "gives more fields right than"),
    _score("rouge", "ROUGE"),
    _score("bleu", "BLEU", whole=True),
    _score("chrf", "chrF", whole=True),
    _score("edit_similarity", "Edit similarity", "is closer to the right text than"),
    _share("tool_calls", "Tool calls", "calls the right tools more often than", "calls the right tools in"),
    _share("sql", "SQL", "queries right more often than", "queries right in"),
    _share("code", "Code", "writes code that passes more often than", "writes code that passes in"),
    _score("citation_recall", "Citation recall", "cites more of the evidence than"),
    _score("citation_precision", "Citation precision", "cites less that is no evidence than"),
    Measure("length", "Length", "amount", "writes more than", unit="words", less_is_better=True),
    _share("length_within", "Length kept", "keeps the length more often than", "keeps the length in"),
    replace(_share("refusal", "Refusal", "refuses more often than", "refuses in"), less_is_better=True),
    _share("language", "Language", "answers in the right language more often than", "answers in the right language in"),
    _score("repetition", "Repetition", "repeats itself more than", less_is_better=True),
    _score("judge", "Judge", "is preferred to"),
    Measure("latency", "Latency", "amount", "takes longer than", unit="s", less_is_better=True),
    Measure("first_token", "First token", "amount", "starts to answer later than", unit="s", less_is_better=True),
    Measure("prompt_tokens", "Prompt tokens", "amount", "reads more tokens than", unit="tokens", less_is_better=True),
    Measure("completion_tokens", "Answer tokens", "amount", "writes more tokens than", unit="tokens", less_is_better=True),
    Measure("cost", "Cost of 1,000 answers", "amount", "costs more than", unit="money", less_is_better=True),
    Measure("energy", "Energy", "amount", "uses more energy than", unit="Wh", less_is_better=True),
)
KNOWN: Mapping[str, Measure] = {one.name: one for one in _ALL}
"""Every kind of metric, under its own name."""


def known(name: str) -> Measure:
    """The measure of this name; of a name that is nobody's, a score."""
    return KNOWN.get(name) or Measure(name, _label(name), "score")


def renamed(measure: Measure, name: str) -> Measure:
    """The same under a name of the user's, which is its label too."""
    return measure if name == measure.name else replace(measure, name=name, label=_label(name))


def _label(name: str) -> str:
    return (name[:1].upper() + name[1:]).replace("_", " ")
