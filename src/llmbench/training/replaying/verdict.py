"""Whether a replay came out as the recording: the same bits, the same within a tolerance, or something else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmbench.runs.diff import CurvePair
from llmbench.runs.ingredients import CONTENT, Ingredient
from llmbench.training.replaying.weights import WeightPair

__all__ = ["TOLERANCES", "Tolerance", "Verdict", "judge", "tolerance"]

Word = Literal["same bits", "same within tolerance", "differs"]
_JUDGED = ("loss", "eval_loss")
"""Figures that rounding moves by little. A gradient's norm and shares of right answers may jump, and decide only about bits."""


@dataclass(frozen=True)
class Tolerance:
    """How far rounding may take a repetition: of a loss, relative to it, and of a tensor of weights, relative to its size."""

    dtype: str
    loss: float
    weights: float


TOLERANCES = {
    "float32": Tolerance("float32", 1e-3, 0.01),
    "bfloat16": Tolerance("bfloat16", 0.02, 0.2),
    "float16": Tolerance("float16", 0.02, 0.2),
}
"""Measured on llmbench/tiny, LoRA at a rate of 1e-3: other threads, padded batches and PEFT's own LoRA layers, which add in
another order, took losses 4e-7 and weights 1e-6 away in 120 steps of float32, and padded batches 2e-3 and 2e-2 in 60 steps of
bfloat16. Larger models and longer runs stray farther, so the limits leave a factor of ten in bfloat16 and more in float32.
One other answer among 360 rows took a loss 7e-2 and the weights 3e-2 away."""


def tolerance(*dtypes: str | None) -> Tolerance:
    """That of the coarsest precision among these; of float32 where none is known."""
    known = [TOLERANCES[name] for name in dtypes if name in TOLERANCES]
    return max(known, key=lambda one: one.loss, default=TOLERANCES["float32"])


@dataclass(frozen=True)
class Verdict:
    """What a replay showed."""

    word: Word
    first: int | None
    """The first step at which a logged figure differs in a bit; None where none does."""
    steps: int
    """Logged steps whose losses were compared."""
    curves: tuple[CurvePair, ...]
    weights: WeightPair | None
    """None where the recording kept no weights of a step that was replayed."""
    tolerance: Tolerance
    changed: tuple[Ingredient, ...]
    """The ingredients that are not those recorded."""
    unknown: tuple[Ingredient, ...]
    """Those that one of the two does not record."""

    @property
    def same(self) -> bool:
        """Whether it is the same, in bits or within the tolerance."""
        return self.word != "differs"

    @property
    def other_training(self) -> bool:
        """Whether data, base, seed or the like are not those recorded, so that rounding is no explanation."""
        return _other_training(self.changed)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "verdict": self.word,
            "same": self.same,
            "differ_from_step": self.first,
            "steps_compared": self.steps,
            "curves": [asdict(pair) for pair in self.curves],
            "weights": self.weights.as_json() if self.weights is not None else None,
            "tolerance": asdict(self.tolerance),
            "changed": [one.as_json() for one in self.changed],
            "not_recorded": [one.as_json() for one in self.unknown],
        }


def judge(
    curves: Sequence[CurvePair], weights: WeightPair | None, allowed: Tolerance, ingredients: Iterable[Ingredient]
) -> Verdict:
    """The verdict of what was compared.

    Args:
        curves: of the recording and the replay, at the steps that both logged.
        weights: of both after the same step.
        allowed: what still counts as the same.
        ingredients: of both.
    """
    found = tuple(ingredients)
    first = min((pair.first for pair in curves if pair.first is not None), default=None)
    loss = next((pair for pair in curves if pair.metric == "loss"), None)
    near = all(pair.relative <= allowed.loss for pair in curves if pair.metric in _JUDGED)
    near = near and not _other_training(found)
    near = near and (weights is None or (not weights.unpaired and weights.largest <= allowed.weights))
    equal = first is None and (weights is None or weights.same_bits)
    word: Word = "differs" if loss is None else "same bits" if equal else "same within tolerance" if near else "differs"
    return Verdict(
        word, first, loss.steps if loss is not None else 0, tuple(curves), weights, allowed,
        tuple(one for one in found if one.state == "differs"), tuple(one for one in found if one.state == "not recorded"),
    )  # fmt: skip


def _other_training(ingredients: Iterable[Ingredient]) -> bool:
    return any(one.part in CONTENT and one.state == "differs" for one in ingredients)
