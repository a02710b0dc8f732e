"""Held-out losses: where they turn up, how far they are from the training's, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from llmbench.diagnosis import robust
from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "between", "found", "unseen"]

KINDS = {
    "overfitting": "The held-out loss turned up while the training loss fell on.",
    "memorisation": "The training loss is far below the held-out loss, which no longer falls.",
    "evaluation noise": "The held-out rows are too few to show what the run, or the difference of two runs, would have "
    "to show.",
}
_FEWEST = 3
_RISE = 0.02
"""Share by which the held-out loss must have risen, where rows are paired; without them twice as much and two evaluations."""
_FAR, _MANY = 0.2, 3
"""A rise, in so many evaluations that all lie above the lowest, that needs no interval: few held-out rows have wide ones."""


def found(of: Traces) -> Iterator[Finding]:
    """Findings about held-out losses."""
    over = _overfitting(of)
    if over is not None:
        yield over
    yield from _gap(of)
    yield from _noise(of)


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if not of.likelihood:
        return
    if not of.evaluations:
        yield "overfitting: nothing is held out (data.eval_fraction=0.05, training.eval_steps=50)"
    elif len(of.evaluations) < _FEWEST:
        yield (
            f"where overfitting begins: {len(of.evaluations)} evaluation{'s' * (len(of.evaluations) > 1)}, and "
            f"{_FEWEST} are needed "
            f"(training.eval_steps={max(of.step // 10, 1)})"
        )
    if of.evaluations and not of.by_row:
        yield "how sure the held-out loss is: its rows are not recorded one by one"


def between(a: Traces, b: Traces) -> Iterator[Finding]:
    """Two runs that were evaluated on the same rows: whether the rows can tell them apart."""
    if not a.evaluations or not b.evaluations:
        return
    (step_a, loss_a), (step_b, loss_b) = a.evaluations[-1], b.evaluations[-1]
    rows_a, rows_b = a.by_row.get(step_a), b.by_row.get(step_b)
    if rows_a is None or rows_b is None or rows_a[1] != rows_b[1]:
        return
    found = robust.paired(rows_a[0], rows_b[0], rows_a[1])
    if found is None or found.apart:
        return
    yield Finding(
        "evaluation noise", "warning",
        f"{a.name} ({loss_a:.4g}) and {b.name} ({loss_b:.4g}) cannot be told apart: row by row, the held-out loss differs by "
        f"{found.mean:+.2g}, 95 % interval [{found.low:+.2g}, {found.high:+.2g}], on {found.rows} rows.",
        "Hold out more rows, or compare with several seeds before one is preferred.",
        figures={"mean": found.mean, "low": found.low, "high": found.high, "rows": found.rows, "runs": [a.name, b.name]},
    )  # fmt: skip


def _change(of: Traces, first: int, last: int, confidence: float) -> robust.Interval | None:
    """The held-out loss at `last` minus that at `first`, row by row."""
    a, b = of.by_row.get(first), of.by_row.get(last)
    return robust.paired(a[0], b[0], a[1], confidence) if a is not None and b is not None else None


def _overfitting(of: Traces) -> Finding | None:
    points = of.evaluations
    if not of.likelihood or len(points) < _FEWEST:
        return None
    at = min(range(len(points)), key=lambda i: points[i][1])
    (step, low), (last, loss) = points[at], points[-1]
    after = [value for _, value in points[at + 1 :]]
    if not after or loss <= low or low <= 0:
        return None
    # The lowest of k is low by luck, too: each of the k - 1 differences to it gets its share of the 5 % (Bonferroni).
    rise, sure = loss / low - 1, _change(of, step, last, 1 - 0.05 / (len(points) - 1))
    risen = robust.rising([low, *after])[-1] / low - 1
    if rise > _FAR and len(after) >= _MANY and min(after) > 1.05 * low:
        how = f", and the {len(after)} evaluations after it are all higher"
    elif sure is not None:
        if sure.low <= 0 or min(rise, risen) < _RISE or (len(after) == 1 and rise < 0.1):
            return None
        how = f", interval of the rise [{sure.low:+.2g}, {sure.high:+.2g}] over {sure.rows} rows"
    else:
        scatter = robust.bends([value for _, value in points]) if len(points) > 4 else 0.0
        if len(after) < 2 or min(after[-2:]) / low - 1 < 2 * _RISE or loss - low < 4 * scatter:
            return None
        how = f" over {len(after)} evaluations"
    trained = [p.loss for p in of.points if p.step > step]
    before = [p.loss for p in of.points if p.step <= step]
    if trained and before and median(trained[-max(3, len(trained) // 5) :]) > 1.1 * median(before[-max(3, len(before) // 5) :]):
        return None  # the training loss rose as well: that is no overfitting
    return Finding(
        "overfitting", "error" if rise > 0.2 else "warning",
        f"The held-out loss was lowest at step {step} ({low:.4g}) and is {loss:.4g} at step {last}, {rise:.1%} "
        f"more{how}, while the training loss went to {of.end:.4g}.",
        f"Keep the best step in place of the last, train to about step {step}, or give it more varied rows.",
        ("training.load_best_model_at_end=true", "training.early_stopping_patience=3"),
        steps=(step,), figures={"step": step, "lowest": low, "last": loss, "rise": rise},
    )  # fmt: skip


def _gap(of: Traces) -> Iterator[Finding]:
    if not of.likelihood or not of.evaluations or of.epochs < 1.5 or len(of.points) < 8:
        return
    held = of.evaluations[-1][1]
    falls = len(of.evaluations) > 1 and held < 0.97 * of.evaluations[-2][1]
    if of.end < 0.4 * held and held - of.end > 0.1 and not falls:
        yield Finding(
            "memorisation", "warning",
            f"After {of.epochs:.3g} epochs the training loss is {of.end:.4g} and the held-out loss {held:.4g}, "
            f"{held / max(of.end, 1e-9):.1f} times as much: rows are remembered.",
            "Fewer epochs, more rows, a smaller lora.r, or lora.lora_dropout.",
            (f"training.num_train_epochs={max(1.0, of.epochs // 2):g}", "lora.lora_dropout=0.1"),
            figures={"train": of.end, "held_out": held, "epochs": of.epochs},
        )  # fmt: skip


def _noise(of: Traces) -> Iterator[Finding]:
    """Whether the rows can show that anything was learned, and whether the step that was kept is better than the last."""
    points = of.evaluations
    if not of.likelihood or len(points) < 2:
        return
    (first, at_first), (last, at_last) = points[0], points[-1]
    whole = _change(of, first, last, 0.95)
    fell = of.start - of.end
    unsure = whole is not None and not whole.apart and not _most_fell(of, first, last)
    if whole is not None and unsure and (whole.high - whole.low) / 2 > max(0.25 * abs(fell), 0.05 * at_first):
        yield Finding(
            "evaluation noise", "warning",
            f"From step {first} to {last} the held-out loss went from {at_first:.4g} to {at_last:.4g}, but on "
            f"{whole.rows} rows the 95 % "
            f"interval of that is [{whole.low:+.2g}, {whole.high:+.2g}]: it shows nothing.",
            "Hold out more rows.", (f"data.eval_fraction={_more(of):g}",),
            figures={"low": whole.low, "high": whole.high, "rows": whole.rows},
        )  # fmt: skip
        return
    kept = of.status.get("kept_step")
    chosen = _change(of, int(kept), last, 0.95) if kept is not None and kept != last else None
    if chosen is not None and not chosen.apart:
        yield Finding(
            "evaluation noise", "note",
            f"Step {kept} was kept as the best, but on {chosen.rows} held-out rows it cannot be told from the last "
            f"step {last}: the 95 % "
            f"interval of the difference is [{chosen.low:+.2g}, {chosen.high:+.2g}].",
            "Hold out more rows before a step is chosen by them.", (f"data.eval_fraction={_more(of):g}",),
            steps=(int(kept or 0),), figures={"low": chosen.low, "high": chosen.high, "rows": chosen.rows},
        )  # fmt: skip


def _most_fell(of: Traces, first: int, last: int) -> bool:
    """Whether more rows fell than chance lets fall (the sign test, p < .05 by the normal approximation with its correction)."""
    a, b = of.by_row[first][0], of.by_row[last][0]
    fell, rose = (sum(sign * (y - x) > 0 for x, y in zip(a, b, strict=True)) for sign in (-1, 1))
    return fell - rose - 1 > 1.96 * math.sqrt(fell + rose)


def _more(of: Traces) -> float:
    """A larger share to hold out."""
    return min(max(4 * float(of.recipe["data"].get("eval_fraction") or 0.0), 0.05), 0.3)
