"""The learning rate, from the shape of the loss: too high, too low, zero, or still warming up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any

from llmbench.diagnosis import robust
from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "divergence": "The loss became infinite or NaN, or rose and did not come back.",
    "learning rate too high": "The loss went above where it began, and the updates are what moved it.",
    "learning rate too low": "The loss falls in a straight line, and not far: the updates are too small for the steps "
    "there are.",
    "learning rate zero": "No step had a learning rate above zero.",
    "warm-up too long": "The run ended while the rate was still rising.",
}
_BLOCKS = 8
_FEWEST = 3 * _BLOCKS
"""Known losses that eight blocks need, three each."""
_SIGMAS = 6.0
"""Standard errors by which a block must stand above another. Blocks are compared 28 times a curve, and losses have heavy tails:
with 6 none of 1,000 healthy curves alarmed, with 4 three did (docs/benchmarks.md)."""
_OVERSHOT, _LEAP = 1.3, 4.0
"""Times the loss at the start, and times the first gradients' norm, that two early steps must pass."""
_ABOVE = 0.05
"""Share of the loss at the start by which it must rise to count as risen."""
_STRAIGHT = 0.6
"""Fall of the loss for a unit of the rate, late over early, from which the curve counts as a straight line: an exponential that
has come to half of its way has .58, a power law that saturates .1 to .5."""
_TRAVEL = 5e-3
"""LoRA at the usual 2e-4 goes so far in 25 steps. Trainings of the bundled model that learned went 0.05 and more; at 8e-4
and 4e-3 their loss fell by .4 and 5 %."""
_SHORT_FALL = 0.4
"""Share of the loss at the start: who has fallen farther learns fast enough, straight line or not."""


def found(of: Traces) -> Iterator[Finding]:
    """Findings about the rate."""
    rate = float(of.training["learning_rate"])
    if "diverged" in of.status:
        yield _not_finite(of, rate)
        return
    if of.logged and not any(point.rate > 0 for point in of.points):
        steps = len(of.logged)
        last = of.logged[-1]["step"]
        if 1 < last == of.step and (steps > 2 or steps == last):  # else steps between those logged may have had one
            yield Finding(
                "learning rate zero", "error",
                f"The rate was 0 in all {steps} logged steps: training.warmup_steps={of.training['warmup_steps']:g} "
                "takes the whole "
                f"run of {of.step} steps.",
                "Train for longer, or without a warm-up.", ("training.warmup_steps=0",), figures={"steps": of.step},
            )  # fmt: skip
        return
    yield from _warming(of, rate)
    if of.likelihood:
        yield from _shape(of, rate)


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.likelihood and 8 <= len(of.points) < _FEWEST:
        yield (
            f"whether the rate is too high or too low: {len(of.points)} losses are known, and {_FEWEST} are needed "
            "(train for longer, or with training.logging_steps=1)"
        )
    if not of.likelihood:
        yield f"the rate by the loss's shape: the loss of {of.recipe['method']} has no fixed shape"


def _not_finite(of: Traces, rate: float) -> Finding:
    what: dict[str, Any] = of.status["diverged"]
    step, rows = int(what.get("step") or of.step), tuple(map(str, what.get("rows") or ()))
    about = (
        f"the weight {what['weight']}"
        if "weight" in what
        else f"loss {_listed(what.get('losses'))}, gradient norm " + str(what.get("grad_norm"))
    )
    last = f" The last loss that was a number is {of.losses[-1]:.4g}." if of.losses else ""
    return Finding(
        "divergence", "error", f"Step {step} was not finite ({about}), and the training ended there.{last}",
        "Look at the rows of this step, or lower the rate to a third and start again.",
        (f"training.learning_rate={rate / 3:.2g}",),
        steps=(step,), rows=rows, figures={"learning_rate": rate, **what},
    )  # fmt: skip


def _listed(losses: Any) -> str:
    return ", ".join(str(one).strip("'") for one in losses or ())


def _warming(of: Traces, rate: float) -> Iterator[Finding]:
    """The highest rate that a step had, against the recipe's."""
    if not of.finished or not of.points:
        return
    highest = max(point.rate for point in of.points)
    warm = float(of.training["warmup_steps"])
    if warm >= 1 and math.ceil(warm) >= of.step > 1 and highest < 0.7 * rate:
        yield Finding(
            "warm-up too long", "warning",
            f"The rate reached {highest:.2g} of {rate:.2g}: the warm-up takes {warm:g} steps and the run took {of.step}.",
            "Make the warm-up a share of the steps.", ("training.warmup_steps=0.03",),
            figures={"highest": highest, "warmup_steps": warm, "steps": of.step},
        )  # fmt: skip


def _shape(of: Traces, rate: float) -> Iterator[Finding]:
    """Blocks of the curve against each other: risen above the start, risen again, or a straight line."""
    losses = of.losses
    over = _overshot(of, rate)
    if over is not None:
        yield over
        return
    if len(losses) < _FEWEST:
        if len(losses) >= 8 and min(losses[len(losses) // 2 :]) > 1.5 * of.start:
            yield _high(of, rate, of.start, min(losses[len(losses) // 2 :]), of.points[len(losses) // 2].step)
        return
    levels = robust.blocks(losses, _BLOCKS)
    each = len(losses) // _BLOCKS
    error = _SIGMAS * math.sqrt(2) * robust.level_error(robust.noise(losses), each)
    top = max(levels[1:])
    where = of.points[min(levels.index(top, 1) * each, len(losses) - 1)].step
    if top - of.start > max(error, _ABOVE * abs(of.start)):
        yield _high(of, rate, of.start, top, where)
        return
    low = min(levels)
    at = of.points[levels.index(low) * each + each // 2].step
    if levels[-1] - low > max(error, _ABOVE * abs(of.start)):
        yield Finding(
            "divergence", "error",
            f"The loss fell to {low:.4g} around step {at} and rose again: {levels[-1]:.4g} in the last {each} known steps "
            f"(scatter of a step {robust.noise(losses):.2g}).",
            f"Lower the rate to a third, or clip gradients harder; the checkpoint before step {at} is the better one.",
            (f"training.learning_rate={rate / 3:.2g}",), steps=(at,),
            figures={"lowest": low, "last": levels[-1], "learning_rate": rate},
        )  # fmt: skip
        return
    yield from _low(of, rate)


def _overshot(of: Traces, rate: float) -> Finding | None:
    """Early steps far above the start, with gradients far above the first: what the updates broke, the rest has to mend."""
    early = of.points[: max(8, len(of.points) // 3)]
    norms = [point.norm for point in early[:3] if point.norm]
    if len(norms) < 3 or of.start < 0.1:
        return None
    most, large = _OVERSHOT * max(of.start, *(point.loss for point in early[:2])), _LEAP * median(norms)
    over = [point for point in early if point.loss > most and (point.norm or 0.0) > large]
    if len(over) < 2 and not (over and over[0].loss > 2 * most):
        return None
    worst = max(over, key=lambda point: point.loss)
    return Finding(
        "learning rate too high", "error",
        f"The loss began at {of.start:.4g} and shot up to {worst.loss:.4g} at step {worst.step}, with a gradient norm of "
        f"{worst.norm:.3g} where the first steps had {median(norms):.3g}: the first large updates broke what the model knew.",
        f"Divide the rate by 10, or find one with: llmbench diagnose {of.name} --lr-range.",
        (f"training.learning_rate={rate / 10:.2g}",), steps=tuple(point.step for point in over[:8]),
        figures={"start": of.start, "highest": worst.loss, "norm": worst.norm, "learning_rate": rate},
    )  # fmt: skip


def _high(of: Traces, rate: float, start: float, top: float, step: int) -> Finding:
    norms = [point.norm for point in of.points if point.norm is not None]
    norm = f" Gradient norms reach {max(norms):.3g}." if norms else ""
    return Finding(
        "learning rate too high", "error",
        f"The loss began at {start:.4g} and stood at {top:.4g} from step {step} on: the updates made it worse.{norm}",
        f"Divide the rate by 10, or find one with: llmbench diagnose {of.name} --lr-range.",
        (f"training.learning_rate={rate / 10:.2g}",),
        steps=(step,), figures={"start": start, "highest": top, "learning_rate": rate},
    )  # fmt: skip


def _travel(of: Traces, rate: float) -> Finding | None:
    """What the rates of all steps add up to: AdamW moves a weight by about the rate a step, and LoRA's B begins at 0."""
    if not of.recipe.get("lora") or not of.training["optim"].startswith(("adamw", "paged_adamw", "lion")):
        return None
    rates = {point.step: point.rate for point in of.points}
    travel = sum(rates.values()) / len(rates) * of.step
    part = len(of.losses) // 4
    fell = median(of.losses[:part]) - median(of.losses[-part:])
    if travel >= _TRAVEL or fell > 0.1 * of.start:
        return None
    return Finding(
        "learning rate too low", "warning",
        f"The rates of all {of.step} steps add up to {travel:.2g}, and no weight of the adapter can have moved "
        "farther; the loss went from "
        f"{median(of.losses[:part]):.4g} to {median(of.losses[-part:]):.4g} (medians of the first and the last quarter).",
        f"Raise the rate about {min(100, 10 * math.ceil(_TRAVEL / travel)):g}-fold, or find one with: "
        f"llmbench diagnose {of.name} --lr-range.",
        (f"training.learning_rate={min(100, 10 * math.ceil(_TRAVEL / travel)) * rate:.2g}",),
        figures={"travel": travel, "fell": fell, "learning_rate": rate},
    )  # fmt: skip


def _low(of: Traces, rate: float) -> Iterator[Finding]:
    """The fall of the loss for a unit of the rate: as much late as early, where the rate is too low to get to the bend."""
    losses, small = of.losses, _travel(of, rate)
    if small is not None:
        yield small
        return
    levels = robust.blocks(losses, _BLOCKS, [point.rate for point in of.points])
    if not levels:
        return
    each = len(losses) // _BLOCKS
    error = robust.level_error(robust.noise(losses), each) * math.sqrt(2)
    early, late, whole = levels[0] - levels[3], levels[-4] - levels[-1], levels[0] - levels[-1]
    if whole < 4 * error or whole < 0.01 * levels[0] or whole > _SHORT_FALL * levels[0]:
        return
    if late >= _STRAIGHT * early and late > 3 * error:
        yield Finding(
            "learning rate too low", "warning",
            f"The loss fell from {levels[0]:.4g} to {levels[-1]:.4g} in a straight line: {early:.2g} in the first half "
            "of the updates, "
            f"{late:.2g} in the second. A rate that suits falls fast and then bends.",
            f"Multiply the rate by 5, or find one with: llmbench diagnose {of.name} --lr-range.",
            (f"training.learning_rate={5 * rate:.2g}",),
            figures={"first_half": early, "second_half": late, "learning_rate": rate},
        )  # fmt: skip
