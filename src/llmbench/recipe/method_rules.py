"""What a method does not go together with in a recipe: each with the reason, and the nearest that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbench.recipe.sections import TrainSections

__all__ = ["refusals"]


def refusals(recipe: TrainSections) -> list[str]:
    """Why this method cannot be trained as the recipe says, a line each; empty where it can."""
    if recipe.method in ("sft", "pretrain"):
        return []
    return [fault for rule in (_batches, _data, _of_the_method) if (fault := rule(recipe)) is not None]


def _batches(recipe: TrainSections) -> str | None:
    method, training = recipe.method, recipe.training
    if training.max_tokens_per_batch is not None:
        return f"training.max_tokens_per_batch: method: {method} counts rows; use training.per_device_train_batch_size"
    if training.torch_compile:
        return "training.torch_compile: only works with method: sft and pretrain; set it to false"
    return None


def _data(recipe: TrainSections) -> str | None:
    method, data = recipe.method, recipe.data
    sources = [*data.train, *data.eval]
    if method != "distillation" and any(source.lessons is not None for source in sources):
        return f"data: lessons have no labels or preferences, which method: {method} needs; use a file, or method: sft"
    if method in ("reward", "grpo") and data.over_length == "truncate":
        where = "an answer is judged at its last token" if method == "reward" else "a prompt ends with the question"
        return f"data.over_length: truncate does not fit method: {method}, since {where}; use drop"
    if method != "distillation" and recipe.model.config is not None:
        return f"model.config: method: {method} needs a trained model, not random weights; use method: pretrain"
    return None


def _of_the_method(recipe: TrainSections) -> str | None:
    training = recipe.training
    match recipe.method:
        case "kto" if recipe.kto is not None and recipe.kto.loss_type == "kto" and training.per_device_train_batch_size < 2:
            return (
                "training.per_device_train_batch_size: 1, but kto measures its KL on the other rows of a batch; use 2 or more, "
                "or kto.loss_type: apo_zero_unpaired"
            )
        case "grpo" if (fault := _groups(recipe)) is not None:
            return fault
        case "dpo" | "kto" | "grpo" if recipe.lora is not None and _on_the_head(recipe.lora.target_modules):
            return (
                f"lora.target_modules: lm_head, but {recipe.method} computes with the head's own weights and would never train "
                "an adapter of it; use all-linear, which leaves it out"
            )
    return None


def _on_the_head(targets: str | list[str]) -> bool:
    return "lm_head" in ([targets] if isinstance(targets, str) else targets)


def _groups(recipe: TrainSections) -> str | None:
    """GRPO draws whole groups of answers; a round of generation must hold them."""
    assert recipe.grpo is not None
    training, spec = recipe.training, recipe.grpo
    batches = spec.steps_per_generation or training.gradient_accumulation_steps
    answers = training.per_device_train_batch_size * batches
    if answers % spec.num_generations:
        factor = "steps_per_generation" if spec.steps_per_generation else "gradient_accumulation_steps"
        fits = _up(training.per_device_train_batch_size, batches, spec.num_generations)
        return (
            f"grpo.num_generations: {spec.num_generations} answers a prompt do not divide the {answers} of a round "
            f"(per_device_train_batch_size x {factor}); use training.per_device_train_batch_size={fits}"
        )
    drawn = spec.num_generations_eval or spec.num_generations
    evaluated = bool(recipe.data.eval) or recipe.data.eval_fraction > 0
    if evaluated and training.per_device_eval_batch_size % drawn:
        return (
            f"training.per_device_eval_batch_size: {training.per_device_eval_batch_size} does not hold whole groups of {drawn} "
            f"answers; use {_up(training.per_device_eval_batch_size, 1, drawn)}, or set grpo.num_generations_eval"
        )
    if spec.use_vllm and recipe.model.device == "cpu":
        return "grpo.use_vllm: vLLM in the trainer's process shares a GPU, and model.device is cpu; set use_vllm: false"
    if spec.use_vllm and recipe.quantization is not None:
        return (
            "grpo.use_vllm: vLLM loads the updated weights at every step, which a 4-bit base cannot provide; turn one of "
            "the two off"
        )
    if spec.generator == "vllm":
        return _drawn_outside(recipe)
    return "grpo.vllm_python does nothing without generator: vllm" if spec.vllm_python is not None else None


def _drawn_outside(recipe: TrainSections) -> str | None:
    """A vLLM that is started for a training has the base as it is stored, and gets an adapter."""
    assert recipe.grpo is not None
    if recipe.grpo.use_vllm:
        return "grpo.generator: vllm draws the answers in a process of its own, use_vllm in the trainer's; leave use_vllm out"
    if recipe.lora is None:
        return "grpo.generator: vllm gets a LoRA adapter at each step, and this recipe trains none; use generator: transformers"
    if recipe.quantization is not None:
        return (
            "grpo.generator: vllm draws from the base in full, and this recipe trains on a quantised one; use generator: "
            "transformers, or train without quantization"
        )
    return None


def _up(rows: int, batches: int, group: int) -> int:
    """The next number of rows of which `batches` hold whole groups."""
    while rows * batches % group:
        rows += 1
    return rows
