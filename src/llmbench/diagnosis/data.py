"""What was read: how much of it is learned, in which order, and what it says twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from llmbench.diagnosis import robust
from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "labels mostly masked": "Hardly any token is learned, or many rows have none that is.",
    "data order": "The loss follows the order of the rows, which are not shuffled.",
    "duplicates learned by heart": "Many rows say the same, and the training loss is far below the held-out loss.",
    "held-out rows among training rows": "Held-out rows are in the training rows too, so that their loss says nothing.",
    "rows cut": "Many rows were truncated, with what was to be learned.",
}
_LEARNED, _UNTRAINED = 0.01, 0.2
"""Share of the tokens that are learned, and of rows with none that is. Long prompts with short answers have 2 to 10 %."""
_SAME, _LEAKED, _CUT = 0.2, 0.05, 0.1
_NOTHING_LEFT = "nothing to train within max_length"
"""As the data report says it."""
_ALIKE, _SURE = 0.6, 5.0
"""Correlation of the loss at the same place of two epochs, after the trend is taken away, and its Student's t."""
_PLACES = 24


def found(of: Traces) -> Iterator[Finding]:
    """Findings about the data."""
    train = of.report.get("train") or {}
    yield from _masked(of, train)
    yield from _order(of)
    yield from _twice(of, train)
    yield from _left_out(of, train)
    limit = train.get("cut_turns") or 0
    if train.get("rows") and limit / train["rows"] > _CUT:
        yield Finding(
            "rows cut", "warning",
            f"{limit:,} of {train['rows']:,} rows were truncated within what is learned "
            f"(data.max_length={of.recipe['data']['max_length']}): "
            "the model learns answers without their end.",
            "Raise data.max_length, or drop such rows.", ("data.over_length=drop",),
            figures={"cut": limit, "rows": train["rows"]},
        )  # fmt: skip


def _left_out(of: Traces, train: dict[str, Any]) -> Iterator[Finding]:
    """Rows of which truncation leaves nothing to learn, so that they are not trained on at all."""
    found = [one for one in train.get("skipped") or () if one.get("reason") == _NOTHING_LEFT]
    rows, every = sum(int(one["rows"]) for one in found), train.get("rows_in") or 0
    if every and rows / every > _CUT:
        size = of.recipe["data"]["max_length"]
        yield Finding(
            "rows cut", "warning",
            f"{rows:,} of {every:,} rows are not trained on: within data.max_length={size} there is nothing of them to learn.",
            "Raise data.max_length.", (f"data.max_length={int((train.get('limit') or {}).get('fits_all') or 2 * size)}",),
            rows=tuple(place for one in found for place in one.get("places", ()))[:16],
            figures={"left_out": rows, "rows": every},
        )  # fmt: skip


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if not of.report and not of.has("learned"):
        yield "labels, duplicates and held-out rows among training rows: there is no data report (data.json)"
    if not of.recipe["data"]["shuffle"] and not of.epochs >= 2 and not _sources(of):
        yield "effects of the rows' order: one epoch over one source shows none"


def _masked(of: Traces, train: dict[str, Any]) -> Iterator[Finding]:
    shares = [share for _, share in of.series("learned")]
    share = median(shares) if shares else _ratio(train.get("trained_tokens"), train.get("tokens"))
    bare = _ratio(train.get("untrained_rows"), train.get("rows"))
    if of.recipe["method"] not in ("sft", "pretrain", "distillation"):
        return
    if (share is not None and share < _LEARNED) or (bare is not None and bare > _UNTRAINED):
        words = [f"{share:.2%} of the tokens are learned"] if share is not None else []
        words += [f"{train['untrained_rows']:,} of {train['rows']:,} rows have no learned token"] if bare else []
        yield Finding(
            "labels mostly masked", "error" if share is not None and share < _LEARNED / 10 else "warning",
            f"{' and '.join(words)}.".capitalize() if not words[0][0].isdigit() else f"{' and '.join(words)}.",
            "See which words are learned: llmbench check RECIPE shows rows token by token. Often data.train_on or the "
            "chat template's "
            "generation marks are not what was meant, or data.max_length cuts the answers off.",
            ("data.train_on=all",) if of.recipe["data"].get("train_on") == "assistant" else (),
            rows=tuple(train.get("untrained_places") or ())[:16], figures={"learned": share, "rows_without": bare},
        )  # fmt: skip


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if part is not None and whole else None


def _sources(of: Traces) -> bool:
    return len(of.recipe["data"]["train"]) > 1


def _order(of: Traces) -> Iterator[Finding]:
    """Rows in file order: the same pattern in each epoch, or a jump up within the first."""
    if of.recipe["data"]["shuffle"] or not of.likelihood or len(of.points) < 24:
        return
    alike = _repeats(of)
    if alike is not None:
        yield Finding(
            "data order", "warning",
            f"Rows are read in the order of the file, and the loss follows it: its ups and downs of one epoch and the next "
            f"correlate by {alike:.2f}.",
            "Shuffle the rows.", ("data.shuffle=true",), figures={"correlation": alike},
        )  # fmt: skip
        return
    jump = _jump(of)
    if jump is not None:
        step, before, after = jump
        yield Finding(
            "data order", "warning",
            f"Rows are read in the order of the file, and at step {step} the loss jumps from {before:.4g} to "
            f"{after:.4g} and stays: other rows "
            "begin there, for which what was learned before does not help.",
            "Shuffle the rows.", ("data.shuffle=true",), steps=(step,), figures={"before": before, "after": after},
        )  # fmt: skip


def _repeats(of: Traces) -> float | None:
    """The correlation of the detrended loss between epochs, by place within them; None where it may be chance."""
    epochs = _epoch_of(of)
    if of.epochs < 2 or not epochs:
        return None
    level = robust.running(of.losses, max(len(of.points) // max(int(of.epochs), 1), 3) | 1)
    rest: dict[int, dict[int, list[float]]] = {}
    for at, loss, middle in zip(epochs, of.losses, level, strict=True):
        if middle > 0:
            rest.setdefault(int(at), {}).setdefault(int((at % 1) * _PLACES), []).append(math.log(max(loss, 1e-9) / middle))
    pairs = [
        (mean(rest[n][place]), mean(rest[n + 1][place]))
        for n in rest
        if n + 1 in rest
        for place in rest[n]
        if place in rest[n + 1]
    ]
    if len(pairs) < 8 or robust.noise([x for x, _ in pairs]) == 0:
        return None
    r = min(_correlation(pairs), 0.9999)
    return r if r > _ALIKE and r * math.sqrt((len(pairs) - 2) / (1 - r * r)) > _SURE else None


def _epoch_of(of: Traces) -> list[float]:
    """How many epochs were done before each point's step, by the steps that a whole one takes."""
    last = of.logged[-1]
    if not last.get("epoch"):
        return []
    each = last["step"] / float(last["epoch"])
    return [(point.step - 1) / each for point in of.points]


def _correlation(pairs: list[tuple[float, float]]) -> float:
    a, b = mean(x for x, _ in pairs), mean(y for _, y in pairs)
    both = sum((x - a) * (y - b) for x, y in pairs)
    size = math.sqrt(sum((x - a) ** 2 for x, _ in pairs) * sum((y - b) ** 2 for _, y in pairs))
    return both / size if size else 0.0


def _jump(of: Traces) -> tuple[int, float, float] | None:
    """The step at which the level rises and stays, by 6 standard errors and a quarter; None where it does not."""
    losses, half = of.losses, max(6, len(of.losses) // 8)
    best: tuple[float, int, float, float] | None = None
    for i in range(half, len(losses) - half + 1):
        before, after = losses[i - half : i], losses[i : i + half]
        a, b = median(before), median(after)
        error = robust.level_error(max(robust.noise(before), robust.noise(after)), half) * math.sqrt(2)
        if b - a > max(6 * error, 0.25 * a) and (best is None or b - a > best[0]):
            best = (b - a, of.points[i].step, a, b)
    return best[1:] if best is not None else None


def _twice(of: Traces, train: dict[str, Any]) -> Iterator[Finding]:
    twice = of.report.get("duplicates") or {}
    rows = train.get("rows") or 0
    copies = int(twice.get("exact_rows") or 0) + int(twice.get("near_rows") or 0)
    groups = [one for one in twice.get("groups") or () if one.get("train_rows", 0) > 1]
    held = of.evaluations[-1][1] if of.evaluations else None
    if rows and copies / rows >= _SAME and of.likelihood and held is not None and of.end < 0.6 * held and held - of.end > 0.05:
        yield Finding(
            "duplicates learned by heart", "warning",
            f"{copies:,} of {rows:,} training rows are copies of others, exactly or nearly, read {of.epochs:.3g} "
            "times; the training loss is "
            f"{of.end:.4g}, the held-out loss {held:.4g}.",
            "Keep one row of each group: llmbench check RECIPE lists them.", ("training.num_train_epochs=1",),
            rows=tuple(place for one in groups[:4] for place in one.get("places", ())[:4]),
            figures={"copies": copies, "rows": rows, "train": of.end, "held_out": held},
        )  # fmt: skip
    leaked = int(twice.get("contaminated_exact") or 0) + int(twice.get("contaminated_near") or 0)
    out = (of.report.get("eval") or {}).get("rows") or 0
    if out and leaked and leaked / out >= _LEAKED:
        yield Finding(
            "held-out rows among training rows", "warning",
            f"{leaked:,} training rows are, exactly or nearly, among the {out:,} held-out rows: the held-out loss "
            "shows what was "
            "remembered.",
            "Remove these rows from the training data, or hold out whole sources with data.eval.", (),
            rows=tuple(twice.get("contaminated_places") or ())[:16], figures={"leaked": leaked, "held_out_rows": out},
        )  # fmt: skip
