"""Models that judge answers: whom they are, what they are asked, and how several are joined."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import ExistingPath, Positive, Section

__all__ = ["JudgeModel", "JudgeSpec"]

_Words = Annotated[str, Field(min_length=1, max_length=4_000)]


class JudgeModel(Section):
    """A model behind an OpenAI-compatible URL."""

    model: Annotated[str, Field(min_length=1)]
    """A variant of the comparison's endpoint, or any model that `base_url` lists."""
    base_url: str | None = None
    """Where it answers; by default the comparison's endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, if it needs one."""

    @property
    def called(self) -> str:
        """How tables and judgements.jsonl name it."""
        return self.model if self.base_url is None else f"{self.model} @ {self.base_url.rstrip('/')}"


class JudgeSpec(JudgeModel):
    """What is asked of a judge about every question, once its answers are there."""

    kind: Literal["pairwise", "rubric", "checklist"] = "pairwise"
    """pairwise: which of two answers is better, every two variants in both orders. rubric: one answer, 1 to 5. checklist: one
    answer, yes or no to each item."""
    criteria: _Words | None = None
    """What makes an answer good, in a sentence or several."""
    anchors: Annotated[list[_Words], Field(min_length=5, max_length=5)] | None = None
    """rubric: what an answer of 1, 2, 3, 4 and 5 is like."""
    checklist: Annotated[list[_Words], Field(max_length=26)] = []
    """checklist: what must be true of an answer, an item each."""
    instructions: ExistingPath | None = None
    """A text file in place of the built-in words about the task. The form of the reply and the markers around what others wrote
    are always added to it."""
    reference: bool = True
    """Show the judge the right answer, where the question file has one."""
    reasons: bool = True
    """Let the judge say why, as JSON. Without, it says one letter, and where the endpoint gives log-probabilities, those of all
    letters count."""
    structured: bool = True
    """Ask for replies in JSON by `response_format`, which some servers do not know."""
    max_tokens: Positive = 300
    """Most tokens of a reply with reasons."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds for one judgement."""
    concurrency: Positive = 8
    """Judgements in flight at once."""
    panel: list[JudgeModel] = []
    """Further judges."""
    combine: Literal["majority", "dawid-skene"] = "majority"
    """How judges are joined: each has one vote, or as much as it agrees with the others (pairwise; needs three judges)."""

    @property
    def judges(self) -> list[JudgeModel]:
        """All of them."""
        return [self, *self.panel]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "checklist" and not self.checklist:
            raise ValueError("kind: checklist needs a `checklist`: what must be true of an answer, an item each")
        if self.kind != "checklist" and self.checklist:
            raise ValueError(f"checklist is of kind: checklist, and this judge's kind is {self.kind}")
        if self.kind != "rubric" and self.anchors is not None:
            raise ValueError(f"anchors are of kind: rubric, and this judge's kind is {self.kind}")
        if self.kind == "checklist" and not self.reasons:
            raise ValueError("reasons: a checklist is answered in JSON, item by item. Leave `reasons` out")
        names = [one.called for one in self.judges]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"panel: {twice} is listed twice")
        if self.combine == "dawid-skene" and (self.kind != "pairwise" or len(names) < 3):
            raise ValueError("combine: dawid-skene weighs the verdicts of three or more judges on pairs. Use combine: majority")
        return self
