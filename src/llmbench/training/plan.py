"""What a method is about to do, in the lines that a user reads before the training begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.recipe import DpoSpec, GrpoSpec, KtoSpec
from llmbench.training.loading import adapter

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["adapter_lines", "lines"]


def lines(job: Job) -> list[str]:
    """The method's settings, its reference and what to know about its result; nothing for supervised fine-tuning."""
    recipe = job.recipe
    if recipe.method in ("sft", "pretrain"):
        return []
    rate = f"learning rate {recipe.training.learning_rate:g}"
    match recipe.method:
        case "dpo" if recipe.dpo is not None:
            return [f"  method  {_dpo(recipe.dpo)}, {rate}", _reference(job)]
        case "orpo" if recipe.orpo is not None:
            return [f"  method  beta {recipe.orpo.beta:g}, {rate}; no reference"]
        case "kto" if recipe.kto is not None:
            return [
                f"  method  {recipe.kto.loss_type}, beta {recipe.kto.beta:g}, {rate}",
                _reference(job),
                *_balance(job, recipe.kto),
            ]
        case "reward":
            return [
                f"  method  pairs judged by a head of one number, {rate}",
                "  note    a reward model does not chat: it cannot be served as an adapter; judge with it, or train with it",
            ]
        case "grpo" if recipe.grpo is not None:
            held = [_reference(job)] if recipe.grpo.beta else []
            return [f"  method  {_grpo(recipe.grpo)}, {rate}", *held]
        case "distillation" if recipe.distillation is not None:
            spec, size = recipe.distillation, int(job.teacher.num_parameters())
            own = f", {spec.lmbda:.0%} of answers by the student" if spec.lmbda else ""
            teacher = f"{spec.teacher.model_name_or_path} ({size:,} parameters)"
            return [f"  method  teacher {teacher}, beta {spec.beta:g}{own}, {rate}"]
    return []


def adapter_lines(job: Job) -> list[str]:
    """Which modules have an adapter, by name and number, and what of the model has none and why."""
    recipe = job.recipe
    if not recipe.adapts or (recipe.adapter is not None and recipe.adapter.type == "prompt_tuning"):
        return []
    counts, size = adapter.adapted(job.loaded.model)
    named = ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))
    lines = [f"  adapts  {sum(counts.values())} modules: {named} ({size:,} parameters)"]
    for left in job.loaded.left_out:
        what = f"{', '.join(left.names)} x{left.count} ({left.parameters:,} parameters)"
        lines.append(f"  skips   {what}: {left.reason}")
    return lines


def _dpo(spec: DpoSpec) -> str:
    weights = spec.loss_weights or [1.0] * len(spec.loss_type)
    losses = [f"{weight:g} x {name}" if weight != 1 else name for name, weight in zip(spec.loss_type, weights, strict=True)]
    return f"loss {' + '.join(losses)}, beta {spec.beta:g}"


def _grpo(spec: GrpoSpec) -> str:
    rewards = " + ".join(f"{r.weight:g} x {r.name}" if r.weight != 1 else r.name for r in spec.reward_functions)
    return f"{spec.num_generations} answers a prompt of at most {spec.max_completion_length} tokens, reward {rewards}"


def _reference(job: Job) -> str:
    if hasattr(job.loaded.model, "peft_config"):
        return "  against a copy of the adapter as it begins"
    return f"  against a second copy of the model, as it begins ({job.parameters:,} parameters more in memory)"


def _balance(job: Job, spec: KtoSpec) -> list[str]:
    """How many answers are good and bad, and a word where the weights do not make up for it (eq. 8 of arXiv 2402.01306)."""
    labels = job.rows.train["label"][:]
    good = sum(labels)
    bad = len(labels) - good
    found = [f"  labels  {good:,} good, {bad:,} bad"]
    ratio = spec.desirable_weight * good / (spec.undesirable_weight * bad)
    if not 1 / 1.34 <= ratio <= 1.34:
        rarer = "desirable_weight" if good < bad else "undesirable_weight"
        weight = spec.undesirable_weight * bad / good if good < bad else spec.desirable_weight * good / bad
        more = max(ratio, 1 / ratio)
        found.append(f"  note    one kind outweighs the other {more:.1f} times: kto.{rarer}={weight:.2f} makes them even")
    return found
