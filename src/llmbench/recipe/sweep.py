"""The sweep: a training recipe, the settings that are searched, and how the search goes about it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from llmbench.recipe.fields import Document, ExistingPath, Name, Positive, Section, Seed, all_different

__all__ = ["ConfirmSpec", "DimensionSpec", "SweepRecipe"]

_OWN = ("name", "training.seed")
"""What a sweep sets itself: each training has its own name, and seeds are for the confirmation."""
_LONGEST = 50
"""Characters of a sweep's name: with `-0007-s1` after it, it still names a run."""


class DimensionSpec(Section):
    """One setting's values: a list of choices, or all numbers from `low` to `high`."""

    choices: Annotated[list[Any], Field(min_length=1), AfterValidator(all_different)] | None = None
    low: int | float | None = None
    high: int | float | None = None
    """Included. Where low, high and step are whole numbers, so is the setting."""
    log: bool = False
    """Draw the logarithm evenly: for learning rates and other settings whose order of magnitude matters."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Only low, low + step, low + 2 step and so on."""
    when: dict[str, Any] = {}
    """Search this setting only where settings listed before it have these values, such as `{lora.use_dora: true}`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give choices, or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs a list of choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, and {self.low} is not below {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together: list the values as choices")
        return self

    @property
    def whole(self) -> bool:
        """Whether a range has whole numbers only."""
        return all(isinstance(value, int) for value in (self.low, self.high, 1 if self.step is None else self.step))

    @property
    def values(self) -> list[Any] | None:
        """Every value there is, in order; None for a range without a step."""
        if self.choices is not None:
            return list(self.choices)
        assert self.low is not None and self.high is not None
        if self.step is None and (self.log or not self.whole):
            return None
        step = 1 if self.step is None else self.step
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.low + i * step if self.whole else float(f"{self.low + i * step:.10g}") for i in range(count)]


_Written = dict[str, DimensionSpec | list[Any] | dict[str, Any]]
"""A space as a document has it: a list is its choices, and a section stands for the fields in it."""


def _dimensions(value: Any) -> Any:
    """`lora: {r: [8, 16]}` as `lora.r: {choices: [8, 16]}`."""
    if not isinstance(value, dict):
        return value
    found = _flat(value, lambda inner: bool(inner) and inner.keys() <= DimensionSpec.model_fields.keys())
    return {key: {"choices": one} if isinstance(one, list) else one for key, one in found.items()}


def _overrides(value: Any) -> Any:
    """`training: {max_steps: 8}` as `training.max_steps: 8`: what is set is one field, and the rest of its section stays."""
    return _flat(value, lambda inner: not inner) if isinstance(value, dict) else value


def _flat(values: dict[Any, Any], ends: Any, place: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{place}{key}"
        if isinstance(value, dict) and not ends(value):
            result |= _flat(value, ends, f"{here}.")
        else:
            result[here] = value
    return result


def _objective(value: str) -> str:
    if not re.fullmatch(r"eval_[A-Za-z0-9_/.-]+", value):
        raise ValueError(
            f"{value} is not a figure of a training's evaluations, such as eval_loss or eval_exact_match. The metrics of "
            "`llmbench compare` need a server for each trial and are not available: compare the winner afterwards"
        )
    return value


class ConfirmSpec(Section):
    """The winner and the recipe as it stands are trained with other seeds, and compared on what no trial saw."""

    seeds: Positive = 3
    """Trainings of the winner and of the recipe each, with seeds that follow the recipe's own. An objective without answers,
    such as eval_loss, has one value a training: fewer than 6 seeds cannot show a difference at a confidence of 0.95."""
    rows: Annotated[float, Field(gt=0, lt=1)] | None = None
    """This share of the training rows is put away before the first trial, and the confirmation evaluates on it."""
    questions: ExistingPath | None = None
    """Instead of rows: a question file that the trials are not evaluated on."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.rows is None) == (self.questions is None):
            raise ValueError("give rows (a share of the training rows) or questions (a file): what the trials never see")
        return self


class SweepRecipe(Document):
    """Which settings of a training recipe are searched, how, and by what they are judged."""

    name: Name
    """The sweep's name; its folder is outputs/sweeps/NAME, and its trainings are the runs NAME-0000, NAME-0001 and so on."""
    recipe: ExistingPath
    """The training recipe."""
    overrides: Annotated[dict[str, Any], BeforeValidator(_overrides)] = {}
    """Fields of the training recipe that all trials share, such as `training.max_steps: 100`. A relative path in them starts
    from the working directory, as on the command line of `llmbench train`."""
    space: Annotated[
        dict[str, DimensionSpec], BeforeValidator(_dimensions, json_schema_input_type=_Written), Field(min_length=1)
    ]
    """Field of the training recipe -> a list of choices, or low and high. Settings are drawn in this order. Relative paths
    start from the working directory."""
    trials: Annotated[int, Field(gt=0, le=10_000)] = 20
    """At most this number of trainings. It may be raised later: the same command then continues."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which nothing more is started and what trains is stopped with a checkpoint."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe draws 10 trials at random and then near the better ones; grid takes every combination in order."""
    seed: Seed = 0
    """Of the sampler."""
    pruner: Literal["none", "median", "asha"] = "none"
    """Stops trials that look bad at an evaluation while they train. median: worse than the median of finished trials, from the
    sixth trial on. asha: not in the best third at the evaluations 1, 3, 9, 27 and so on."""
    objective: Annotated[str, AfterValidator(_objective)] = "eval_loss"
    """A figure of the evaluations, as metrics.jsonl names it: eval_loss, or with an `evaluation` eval_exact_match."""
    direction: Literal["minimize", "maximize"] | None = None
    """null minimizes a loss and a perplexity and maximizes anything else."""
    parallel: Positive | None = None
    """Trainings at once; null is one for each of `gpus`, or one."""
    gpus: Annotated[list[str], AfterValidator(all_different)] = []
    """Each training sees one of these, in CUDA_VISIBLE_DEVICES."""
    confirm: ConfirmSpec | None = None
    """Checks the winner on what no trial saw. Without it the winner's figure is too good: it was chosen for it."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if len(self.name) > _LONGEST:
            raise ValueError(f"name: at most {_LONGEST} characters, since the runs of its trials have longer ones")
        for place, keys in (("space", self.space.keys()), ("overrides", self.overrides.keys())):
            if own := next((key for key in keys if key in _OWN and (place, key) != ("overrides", "training.seed")), None):
                raise ValueError(f"{place}: {own} is set by the sweep itself: leave it out")
        if both := next((key for key in self.space if key in self.overrides), None):
            raise ValueError(f"overrides: {both} is searched: leave it out here or in space")
        known: list[str] = []
        for key, dimension in self.space.items():
            if missing := next((other for other in dimension.when if other not in known), None):
                raise ValueError(f"space: `when` of {key} names {missing}, which is not a setting listed before it")
            if self.sampler == "grid" and dimension.values is None:
                raise ValueError(f"space: sampler grid needs a list of choices or a step for {key}")
            known.append(key)
        rows = next((key for key in self.space if key == "data" or key.startswith("data.train")), None)
        if rows is not None and self.confirm is not None and self.confirm.rows is not None:
            raise ValueError(
                f"confirm: space searches {rows}, so that rows put away could be trained on. Use confirm.questions"
            )
        if self.gpus and self.parallel is not None and self.parallel > len(self.gpus):
            raise ValueError(f"parallel: {self.parallel} trainings and {len(self.gpus)} gpus: each training needs its own")
        return self

    @property
    def workers(self) -> int:
        """Trainings at once."""
        return self.parallel or len(self.gpus) or 1

    @property
    def minimizes(self) -> bool:
        """Whether less of the objective is better."""
        if self.direction is not None:
            return self.direction == "minimize"
        return self.objective.endswith(("loss", "perplexity"))
