"""The comparison: the same questions to several variants, and what is measured about the answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llmbench.recipe.fields import Document, ExistingPath, Name, Pattern, Section, Seed, all_different
from llmbench.recipe.preregistration import PreregistrationSpec

__all__ = ["ABSTENTION", "CompareRecipe", "EndpointSpec", "MetricName", "QuestionSource", "StatisticsSpec"]

MetricName = Literal[
    "grounded", "contains_value", "value_retrieved", "citation", "abstention", "exact_match", "squad_em", "squad_f1"
]
ABSTENTION = (
    r"\b(not (stated|told)|not in the (handbook|documents|passages|context)|(does|do) not say|(don.t|do not) know|"
    r"not mentioned|cannot answer)\b"
)
"""Tells an answer that says it has none; comparisons and the gateway's counts share it. Case does not matter."""


class EndpointSpec(Section):
    """Any OpenAI-compatible URL."""

    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, if the endpoint needs one."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds for one answer."""


class QuestionSource(Section):
    """Questions as JSONL: `question`, and of `id`, `answer`, `value`, `source`, `answerable`, `split` what there is.

    `value` may be a list of wordings that are all right, `source` a list of pages. A .json file is read in
    the format of SQuAD 1.1 or 2.0.
    """

    path: ExistingPath
    split: str | None = None
    """Only the rows of this split."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """At most this number of questions, spread evenly over the file so that every part of it is asked about."""


class StatisticsSpec(Section):
    """How sure the figures are said to be, and which questions are independent."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    cluster: Literal["source", "none"] = "source"
    """Questions about one page count together (by `group`, else `source`); `none` takes them as independent."""
    resamples: Annotated[int, Field(ge=100)] | None = None
    """No longer used: nothing is drawn at random any more. Accepted so that older recipes load."""
    seed: Seed = 0
    """Of the order of the questions."""


class CompareRecipe(Document):
    """Questions, variants, metrics."""

    name: Name
    """The comparison's name; its folder is outputs/comparisons/NAME."""
    endpoint: EndpointSpec = EndpointSpec()
    questions: QuestionSource
    variants: Annotated[list[str], Field(min_length=1), AfterValidator(all_different)]
    """Model ids that the endpoint lists."""
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(all_different)] = [
        "grounded", "contains_value", "citation", "abstention", "exact_match",
    ]  # fmt: skip
    """The verdict is about the first one that fits the questions. Latency and tokens are always measured."""
    abstention: Pattern = ABSTENTION
    """Regular expression (case-insensitive) that tells an answer which abstains."""
    max_tokens: Annotated[int, Field(gt=0)] = 64
    concurrency: Annotated[int, Field(gt=0)] = 8
    """Requests in flight at once."""
    statistics: StatisticsSpec = StatisticsSpec()
    preregistration: PreregistrationSpec | None = None
    """What is promised before the first answer; none promises nothing."""
