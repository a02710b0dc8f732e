"""What a training is asked while it runs, beside its held-out loss: questions with known answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmbench.recipe.fields import ExistingPath, Pattern, Positive, Section, all_different

__all__ = ["AnswerMetric", "EvaluationSpec"]

AnswerMetric = Literal["exact_match", "contains", "regex"]


class EvaluationSpec(Section):
    """Questions that the model answers, greedily, at every evaluation of a training."""

    questions: ExistingPath | None = None
    """The question file that `llmbench compare` reads: JSONL with `question`, `answer` and, if known, `value`, or `prompt` and
    `completion`; or SQuAD. Without it: the held-out rows, each asked for its last answer."""
    metrics: Annotated[list[AnswerMetric], Field(min_length=1), AfterValidator(all_different)] = ["exact_match"]
    """exact_match: the expected answer, apart from case, spaces and final punctuation. contains: the row's `value`, or its
    answer, stands in it as words of their own. regex: see `regex`."""
    regex: Pattern | None = None
    """With a group, the answer is right when the group's last find is the expected answer's; without one, when it is found."""
    max_new_tokens: Positive = 64
    limit: Positive | None = 64
    """At most this number of questions, spread evenly over the file; null asks all."""
    samples_shown: Annotated[int, Field(ge=0)] = 8
    """How many answers of each evaluation are kept in the run's samples.jsonl."""

    @model_validator(mode="after")
    def _regex_goes_with_its_metric(self) -> Self:
        if ("regex" in self.metrics) != (self.regex is not None):
            raise ValueError("metrics: [regex] and a `regex` go together: give both or neither")
        return self
