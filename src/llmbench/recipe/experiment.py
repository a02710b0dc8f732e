"""What a comparison varies: variants that are described, or a grid of factors; and what is the same for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from llmbench.recipe.fields import ExistingPath, Section, Seed, existing
from llmbench.recipe.rag import RagRecipe
from llmbench.recipe.serve import MAX_STOPS

__all__ = [
    "PLACEHOLDER", "AskedSampling", "ComparedVariant", "FactorsSpec", "PassagesSpec", "PromptSpec", "Variants", "grid_size",
]  # fmt: skip

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.-]*)\}")
"""In a template: `{column}`; doubled braces stand for themselves."""
_MOST = 1_000
"""Variants that a grid may have."""
_NONE = "none"


class PromptSpec(Section):
    """What is put around a question."""

    system: str | None = None
    """The system message, before one that the question brings itself."""
    template: str | None = None
    """The last message of the user, with `{question}` and columns of the question file in braces: `{context}`. A doubled brace
    stands for itself."""


class AskedSampling(Section):
    """How answers are drawn; what is not given is the endpoint's own, with `engine: auto` temperature 0."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Without it that of the recipe."""
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)] = []


class ComparedVariant(Section):
    """One of the variants; a name alone is a model that the endpoint lists."""

    name: Annotated[str, Field(min_length=1)]
    model: str | None = None
    """The model that the endpoint lists, by default that of the variant's own name. With `engine: auto` a base model's folder
    or hub name, or an export (`llmbench export`) by its folder or name; by default the bundled model."""
    adapter: str | None = None
    """With `engine: auto`: a run's name, or an adapter's folder."""
    pipeline: ExistingPath | None = None
    """With `engine: auto`: the RAG pipeline whose passages stand before each question."""
    prompt: PromptSpec = PromptSpec()
    sampling: AskedSampling = AskedSampling()

    @property
    def plain(self) -> bool:
        """Whether it is but a name."""
        return self == ComparedVariant(name=self.name)


def _long_form(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _differ(variants: list[ComparedVariant]) -> list[ComparedVariant]:
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is listed twice")
    return variants


Variants = Annotated[
    list[Annotated[ComparedVariant, BeforeValidator(_long_form, json_schema_input_type=ComparedVariant | str)]],
    AfterValidator(_differ),
]
"""Names, and variants that are described."""


class ModelLevel(Section):
    """One level of the factor `models`."""

    name: str
    model: str


class AdapterLevel(Section):
    """One level of the factor `adapters`; `none` is the model without one."""

    name: str
    adapter: str | None = None


class PipelineLevel(Section):
    """One level of the factor `pipelines`; `none` is no passages."""

    name: str
    pipeline: ExistingPath | None = None


class PromptLevel(PromptSpec):
    """One level of the factor `prompts`; `none` is the question alone."""

    name: str


class SamplingLevel(AskedSampling):
    """One level of the factor `sampling`; `default` is the endpoint's own."""

    name: str


def _named(field: str) -> Any:
    """A level in its short form: a reference, named by its end, or a word for nothing."""

    def long(value: Any, info: ValidationInfo) -> Any:
        if value is None or value == _NONE:
            return {"name": _NONE}
        if not isinstance(value, str | Path):
            return value
        if field == "pipeline":
            existing(value, info)
        return {
            "name": Path(str(value).removeprefix("bundled://")).stem if field == "pipeline" else Path(value).name,
            field: value,
        }

    return long


def _worded(word: str) -> Any:
    """A level of settings, of which one word alone stands for no setting."""

    def long(value: Any) -> Any:
        return {"name": word} if value is None or value == word else value

    return long


def _levels(levels: list[Any]) -> list[Any]:
    names = [level.name for level in levels]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two levels are named {twice}: give one of them another `name`")
    return levels


_Levels = AfterValidator(_levels)


class FactorsSpec(Section):
    """A grid: every level of each factor with every level of the others."""

    models: Annotated[
        list[Annotated[ModelLevel, BeforeValidator(_named("model"), json_schema_input_type=ModelLevel | str)]], _Levels
    ] = []
    """Models that the endpoint lists; with `engine: auto` base models and exports."""
    adapters: Annotated[
        list[Annotated[AdapterLevel, BeforeValidator(_named("adapter"), json_schema_input_type=AdapterLevel | str | None)]],
        _Levels,
    ] = []
    """With `engine: auto`: runs, folders of adapters, and `none`."""
    prompts: Annotated[
        list[Annotated[PromptLevel, BeforeValidator(_worded(_NONE), json_schema_input_type=PromptLevel | str | None)]], _Levels
    ] = []
    """Each with a `name`, and a `system` message or a `template`; `none` is the question alone."""
    pipelines: Annotated[
        list[Annotated[PipelineLevel, BeforeValidator(_named("pipeline"), json_schema_input_type=PipelineLevel | str | None)]],
        _Levels,
    ] = []
    """With `engine: auto`: RAG pipelines, and `none`."""
    sampling: Annotated[
        list[Annotated[SamplingLevel, BeforeValidator(_worded("default"), json_schema_input_type=SamplingLevel | str | None)]],
        _Levels,
    ] = []
    """Each with a `name`, and `temperature`, `top_p`, `seed`, `max_tokens` or `stop`."""
    only: list[dict[str, str]] = []
    """A fraction of the grid: a variant is asked when one of these names its levels, such as `{models: tiny, prompts: brief}`;
    a factor that is left out may have any level. Empty is the whole grid."""

    @model_validator(mode="after")
    def _only_names_levels(self) -> Self:
        for i, wanted in enumerate(self.only):
            for factor, name in wanted.items():
                if factor not in _FACTORS:
                    raise ValueError(f"only[{i}]: {factor} is no factor. Factors: {', '.join(_FACTORS)}")
                known = [level.name for level in getattr(self, factor)]
                if name not in known:
                    which = ", ".join(known) or "none"
                    raise ValueError(f"only[{i}].{factor}: there is no level {name} (available: {which})")
        if grid_size(self) > _MOST:
            raise ValueError(
                f"the grid has {grid_size(self):,} variants, and at most {_MOST:,} are asked. List a part of it in `only`"
            )
        return self

    def cells(self) -> list[tuple[ComparedVariant, dict[str, str]]]:
        """The variants of the grid, named by their levels, such as `tiny+sft-lora+brief`, each with field -> level."""
        return _cells(self)


_FACTORS = {"models": "model", "adapters": "adapter", "prompts": "prompt", "pipelines": "pipeline", "sampling": "sampling"}
"""A factor of the grid -> the field of a variant that it sets."""
_NOTHING = ("none", "default")


def grid_size(spec: FactorsSpec) -> int:
    """How many cells the whole grid has; none where no factor has a level."""
    sizes = [len(getattr(spec, factor)) for factor in _FACTORS]
    whole = 1
    for size in sizes:
        whole *= max(size, 1)
    return whole if any(sizes) else 0


def _cells(spec: FactorsSpec) -> list[tuple[ComparedVariant, dict[str, str]]]:
    """The cells of the grid that are asked, each with its levels."""
    factors = [factor for factor in _FACTORS if getattr(spec, factor)]
    found: list[tuple[dict[str, Any], dict[str, str]]] = []
    for chosen in product(*(getattr(spec, factor) for factor in factors)):
        of = {factor: level.name for factor, level in zip(factors, chosen, strict=True)}
        if not spec.only or any(wanted.items() <= of.items() for wanted in spec.only):
            found.append((dict(zip(factors, chosen, strict=True)), of))
    varying = [factor for factor in factors if len({of[factor] for _, of in found}) > 1]
    names = [_name([of[factor] for factor in varying]) for _, of in found]
    if len(set(names)) < len(names):  # `none` of one factor was dropped where another has a level of the same name
        names = ["+".join(of[factor] for factor in varying) for _, of in found]
    return [
        (_variant(name, chosen), {_FACTORS[factor]: level for factor, level in of.items()})
        for name, (chosen, of) in zip(names, found, strict=True)
    ]


def _name(parts: Sequence[str]) -> str:
    return "+".join(part for part in parts if part not in _NOTHING) or "plain"


def _variant(name: str, chosen: Mapping[str, Any]) -> ComparedVariant:
    """A cell as a variant that could have been described. Its paths were found from the document's folder already."""
    update: dict[str, Any] = {}
    for factor, level in chosen.items():
        match factor:
            case "prompts":
                update["prompt"] = PromptSpec(system=level.system, template=level.template)
            case "sampling":
                update["sampling"] = AskedSampling(**level.model_dump(exclude={"name"}))
            case _:
                update[_FACTORS[factor]] = getattr(level, _FACTORS[factor])
    return ComparedVariant(name=name).model_copy(update=update)


class PassagesSpec(Section):
    """Passages that every variant is given alike, so that retrieval cannot be what tells them apart."""

    column: str | None = None
    """The column of the question file that holds them: a text, a list of texts, or a list of {text, source, title}."""
    pipeline: ExistingPath | None = None
    """A RAG pipeline that is searched once for each question; what it finds is kept beside the answers."""
    template: str = str(RagRecipe.model_fields["prompt"].default)
    """The last message of the user, for passages of a column; a pipeline has its own."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.column is None) == (self.pipeline is None):
            raise ValueError("give either column or pipeline")
        if "{passages}" not in self.template or "{question}" not in self.template:
            raise ValueError("template: it needs {passages} and {question}")
        return self
