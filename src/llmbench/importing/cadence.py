"""How often a peer evaluates, saves and logs, as a recipe counts it: in optimizer steps."""

from __future__ import annotations

import math
from typing import Any

from llmbench.importing.draft import Draft
from llmbench.importing.sources import counted

__all__ = ["best_model", "by_epoch", "in_steps", "kept", "steps"]


def _unknown(draft: Draft) -> str:
    """Why the steps are not known here."""
    if draft.set_to("training.packing"):
        return "needs the number of bins that the rows are packed into, which llmbench check says (steps)"
    return "needs the number of rows, which is not known before the data is on this machine"


def steps(draft: Draft) -> tuple[int | None, int | None]:
    """Optimizer steps of an epoch and of the whole training, where the rows can be counted or `max_steps` says it."""
    spec = draft.recipe.get("training", {})
    rows = None if spec.get("packing") else counted(draft)
    an_epoch = None
    batch, accumulated = spec.get("per_device_train_batch_size", 8), spec.get("gradient_accumulation_steps", 1)
    if rows is not None and batch > 0 and accumulated > 0:
        kept_rows = rows - round(rows * draft.set_to("data.eval_fraction", 0.0))
        an_epoch = max(math.ceil(math.ceil(kept_rows / batch) / accumulated), 1)
    limit = spec.get("max_steps", -1)
    if limit > 0:
        return an_epoch, limit
    return an_epoch, None if an_epoch is None else math.ceil(an_epoch * spec.get("num_train_epochs", 1))


def in_steps(draft: Draft, key: str, ours: str) -> None:
    """A number of steps, or below 1 a share of all of them."""
    value = draft.number(key)
    if value is None or isinstance(value, str):
        return
    if value >= 1:
        draft.keep(key, ours, int(value))
    elif value <= 0:
        draft.drop(key, "is off there")
    elif (total := steps(draft)[1]) is not None:
        draft.keep(key, ours, max(round(value * total), 1), f"{value:g} of {total} steps")
    else:
        draft.drop(
            key, f"a share of all steps {_unknown(draft)}. Run llmbench check, and set {ours} to {value:g} times the steps"
        )


def by_epoch(draft: Draft, key: str, ours: str, times: float = 1.0) -> None:
    """So often an epoch."""
    an_epoch = steps(draft)[0]
    if an_epoch is not None:
        draft.keep(key, ours, max(round(an_epoch / times), 1), f"{times:g} times an epoch of {an_epoch} steps")
    else:
        draft.drop(key, f"{times:g} times an epoch {_unknown(draft)}. Set {ours} to the steps of an epoch / {times:g}")


def held_out(draft: Draft) -> bool:
    """Whether the recipe holds rows out."""
    return bool(draft.set_to("data.eval")) or bool(draft.set_to("data.eval_fraction", 0))


def kept(draft: Draft) -> None:
    """`eval_strategy`, `eval_steps`, `save_steps` and `logging_steps` as transformers takes them."""
    strategy_key = next((key for key in ("eval_strategy", "evaluation_strategy") if draft.has(key)), None)
    strategy = str(draft.get(strategy_key)) if strategy_key else "no"
    if not held_out(draft):
        draft.drop("eval_steps", "no rows are held out")
        if strategy_key:
            draft.drop(strategy_key, "no rows are held out")
    elif strategy == "steps":
        key = "eval_steps" if draft.has("eval_steps") else "logging_steps" if draft.has("logging_steps") else None
        if strategy_key:
            draft.drop(strategy_key, "training.eval_steps says how often; it evaluates at the end in any case")
        if key == "eval_steps":
            in_steps(draft, key, "training.eval_steps")
        elif key is not None and isinstance(draft.get(key), int):
            draft.put("training.eval_steps", draft.get(key))
            draft.comments["training.eval_steps"] = "as often as it logs"
    else:
        draft.drop("eval_steps", "eval_strategy is not steps")
        if strategy == "epoch" and strategy_key:
            by_epoch(draft, strategy_key, "training.eval_steps")
        elif strategy_key:
            draft.drop(strategy_key, "llmbench evaluates rows that are held out at the end; it changes no weight")
    for key, ours in (("save_steps", "training.save_steps"), ("logging_steps", "training.logging_steps")):
        if draft.has(key):
            in_steps(draft, key, ours)
    if str(draft.get("save_strategy")) == "epoch":
        by_epoch(draft, "save_strategy", "training.save_steps")


def best_model(draft: Draft) -> None:
    """The settings of the best evaluation, which need one that comes again and again."""
    patience = next((key for key in ("early_stopping_patience", "early_stopping_steps") if draft.has(key)), None)
    regular = draft.set_to("training.eval_steps") is not None
    values: list[tuple[str, str, Any]] = []
    if draft.has("load_best_model_at_end") and draft.flag("load_best_model_at_end"):
        values.append(("load_best_model_at_end", "training.load_best_model_at_end", True))
    if patience:
        values.append((patience, "training.early_stopping_patience", draft.whole(patience)))
    metric = str(draft.get("metric_for_best_model", "loss")).removeprefix("eval_")
    if draft.has("metric_for_best_model") and values:
        if metric == "loss":
            draft.keep("metric_for_best_model", "training.metric_for_best_model", "loss")
        else:
            draft.refuse("metric_for_best_model", f"llmbench does not measure {metric}; it goes by the loss")
    for key, ours, value in values:
        if regular:
            draft.keep(key, ours, value)
        else:
            draft.refuse(key, "needs training.eval_steps, which is not known yet; set both")
    if draft.has("greater_is_better"):
        draft.drop("greater_is_better", "less is better of the loss")
