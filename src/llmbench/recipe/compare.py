"""The comparison: the same questions to several variants, and what is measured about the answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llmbench.recipe.abstention import ABSTENTION
from llmbench.recipe.experiment import ComparedVariant, FactorsSpec, PassagesSpec, Variants, grid_size
from llmbench.recipe.fields import Document, ExistingPath, Name, Pattern, Section, Seed
from llmbench.recipe.judge import JudgeSpec
from llmbench.recipe.metrics import Metrics
from llmbench.recipe.preregistration import PreregistrationSpec
from llmbench.recipe.prices import PricesSpec
from llmbench.recipe.serve import EngineSpec

__all__ = ["ABSTENTION", "CompareRecipe", "EndpointSpec", "QuestionSource", "StatisticsSpec"]

_SERVED = "a running endpoint has its own. Name one of its models in `model`, or set `engine: auto` to start engines here"


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


_USUAL: Any = ["grounded", "contains_value", "citation", "abstention", "exact_match"]


class CompareRecipe(Document):
    """Questions, variants, metrics."""

    name: Name
    """The comparison's name; its folder is outputs/comparisons/NAME."""
    endpoint: EndpointSpec = EndpointSpec()
    questions: QuestionSource
    variants: Variants = []
    """Model ids that the endpoint lists, or mappings with a `name` and what is asked of which model."""
    factors: FactorsSpec = FactorsSpec()
    """A grid in place of `variants`."""
    engine: Literal["endpoint", "auto"] = "endpoint"
    """`auto` asks no running endpoint: it starts an engine for each base model in turn, asks its variants, and stops it."""
    engine_options: EngineSpec = EngineSpec()
    """How `engine: auto` starts them; what is vLLM's alone is left out for exports in ONNX."""
    passages: PassagesSpec | None = None
    """Passages that all variants are given alike."""
    repeats: Annotated[int, Field(gt=0, le=100)] = 1
    """How often each question is put to each variant, each time with another seed."""
    logprobs: bool = False
    """Ask for log-probabilities, so that `--replay` can tell the same bits from the same tokens."""
    metrics: Metrics = Field(default=_USUAL, validate_default=True)
    """Names, or names with settings. The verdict is about the first one that fits the questions. Latency and tokens are always
    measured."""
    allow_code: bool = False
    """Whether the metric `code` may run what models wrote, in a process that can neither write files nor reach a network."""
    prices: PricesSpec | None = None
    """What the variants cost; the report then has it."""
    energy: bool = False
    """Measure the energy that this machine's NVIDIA GPUs use while asking."""
    abstention: Pattern = ABSTENTION
    """Regular expression (case-insensitive) that tells an answer which abstains."""
    max_tokens: Annotated[int, Field(gt=0)] = 64
    concurrency: Annotated[int, Field(gt=0)] = 8
    """Requests in flight at once."""
    statistics: StatisticsSpec = StatisticsSpec()
    preregistration: PreregistrationSpec | None = None
    """What is promised before the first answer; none promises nothing."""
    judge: JudgeSpec | None = None
    """A model, or several, that judges the answers. Its figures are the metric `judge`, which comes first where `metrics` are
    not given, and last where they are given without it."""

    @property
    def compared(self) -> list[ComparedVariant]:
        """The variants in the recipe's order: those that are listed, or those of the grid."""
        return list(self.variants) if self.variants else [variant for variant, _ in self.factors.cells()]

    @model_validator(mode="after")
    def _runs_code_only_if_allowed(self) -> Self:
        if not self.allow_code and any(one.kind == "code" for one in self.metrics):
            raise ValueError("metrics: code runs what models write. Say `allow_code: true` in the recipe if it may")
        return self

    @model_validator(mode="after")
    def _prices_of_its_variants(self) -> Self:
        strange = [name for name in (self.prices.variants if self.prices else ()) if name not in ("*", *self.names)]
        if strange:
            raise ValueError(f"prices.variants: there is no variant {strange[0]} (variants: {', '.join(self.names)})")
        return self

    @property
    def metric_names(self) -> list[str]:
        """What tables call the metrics, in order."""
        return [one.name for one in self.metrics]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [variant.name for variant in self.compared]

    @model_validator(mode="before")
    @classmethod
    def _judged(cls, values: Any) -> Any:
        """A judge's figures are among the metrics."""
        if not isinstance(values, dict) or values.get("judge") is None:
            return values
        listed = values.get("metrics")
        if listed is None:
            return {**values, "metrics": ["judge", *_USUAL]}
        named = isinstance(listed, list) and any(one == "judge" or (isinstance(one, dict) and "judge" in one) for one in listed)
        return values if named or not isinstance(listed, list) else {**values, "metrics": [*listed, "judge"]}

    @model_validator(mode="after")
    def _judge_is_told(self) -> Self:
        judging = [one.name for one in self.metrics if one.kind == "judge"]
        if self.judge is None:
            if judging:
                raise ValueError(f"metrics: {judging[0]} needs a `judge`: judge: {{model: ...}}")
            return self
        if len(judging) > 1:
            raise ValueError("metrics: there is one judge; leave `judge` there once")
        if len(self.names) < 2 and self.judge.kind == "pairwise":
            raise ValueError("judge.kind: pairwise compares two variants. List another, or use kind: rubric")
        if self.engine == "auto" and (nowhere := next((one for one in self.judge.judges if one.base_url is None), None)):
            raise ValueError(f"judge: with `engine: auto` no endpoint is left to ask {nowhere.model} at. Give its `base_url`")
        plan = self.preregistration
        if plan is not None and plan.stop == "sequential" and plan.metric in judging:
            raise ValueError(
                "preregistration.stop: sequential decides while answers come, and a judge is asked after them. Use stop: all"
            )
        return self

    @model_validator(mode="after")
    def _asks_somebody(self) -> Self:
        grid = grid_size(self.factors)
        if grid and self.variants:
            raise ValueError("factors: the grid makes the variants. Leave out `factors` or `variants`")
        if not grid and not self.variants:
            raise ValueError("variants is missing. List model ids that the endpoint lists, or give `factors`")
        return self

    @model_validator(mode="after")
    def _an_endpoint_serves_its_own(self) -> Self:
        if self.engine == "auto":
            for field in ("urls", "api_key"):
                if getattr(self.engine_options, field):
                    raise ValueError(f"engine_options.{field}: with `engine: auto` engines are started here. Leave it out")
            return self
        for i, variant in enumerate(self.variants):
            for field in ("adapter", "pipeline"):
                if getattr(variant, field) is not None:
                    raise ValueError(f"variants[{i}].{field}: {_SERVED}")
        for field in ("adapters", "pipelines"):
            if getattr(self.factors, field):
                raise ValueError(f"factors.{field}: {_SERVED}")
        return self

    @model_validator(mode="after")
    def _passages_have_one_origin(self) -> Self:
        searched = any(variant.pipeline for variant in self.variants) or any(one.pipeline for one in self.factors.pipelines)
        if self.passages is not None and searched:
            raise ValueError(
                "passages: all variants are given the same ones, so that none has a pipeline of its own. Leave out one of them"
            )
        return self
