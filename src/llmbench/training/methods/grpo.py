"""Group relative policy optimisation: the model answers each prompt several times, and functions judge the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback
from trl import import_utils

from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.loop.record import Recorder
from llmbench.training.methods import rewards
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, parts, reference, settings

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["batches", "check", "trainer"]


def trainer(job: Job, run: Run, recorder: Recorder) -> Any:
    """TRL's GRPOTrainer on prompts, with the recipe's reward functions."""
    spec, training = job.recipe.grpo, job.recipe.training
    assert spec is not None
    trl = _trl(vllm=spec.use_vllm)
    settings_of_trl = trl.GRPOConfig(
        **settings(job, run),
        **spec.model_dump(exclude={"reward_functions"}),
        reward_weights=[reward.weight for reward in spec.reward_functions],
        shuffle_dataset=job.recipe.data.shuffle,
        disable_dropout=True,
        pad_to_multiple_of=training.pad_to_multiple_of,
    )
    load = trl.create_model_from_path
    if spec.beta and (frozen := reference(job)) is not None:  # TRL would load the base a second time, by its path
        trl.create_model_from_path = lambda *_, **__: frozen
    try:
        made = type("Trainer", (Judged, trl.GRPOTrainer), {})(
            job.recipe,
            **parts(job, recorder),
            reward_funcs=rewards.functions(spec.reward_functions, _columns(job.rows.train)),
            args=one_gpu(settings_of_trl),
        )
    finally:
        trl.create_model_from_path = load
    made.remove_callback(PrinterCallback)
    return made


def check(recipe: TrainRecipe, rows: Any, *, device: str, context: int | None, longest: int) -> None:
    """Raises when the answers do not fit the context or the reward functions the data, before anything is written.

    Raises:
        LlmbenchError: what does not fit, and what would.
    """
    spec = recipe.grpo
    assert spec is not None
    if spec.use_vllm and device != "cuda":
        raise RecipeError(
            "grpo.use_vllm: vLLM in the trainer's process needs an NVIDIA GPU, and there is none; set use_vllm: false"
        )
    if context is not None and longest + spec.max_completion_length > context:
        raise RecipeError(
            f"grpo.max_completion_length: the longest prompt has {longest:,} tokens; {spec.max_completion_length:,} more of "
            f"an answer are past the {context:,} that the model reads. Use at most {max(context - longest, 1):,}."
        )
    needed = _prompts(recipe)
    if len(rows) < needed:
        raise RecipeError(f"data.train: {len(rows)} prompts are fewer than the {needed} of one round of generation. Add some.")
    rewards.functions(spec.reward_functions, _columns(rows))


def batches(recipe: TrainRecipe, rows: int) -> int:
    """Batches of an epoch, as TRL's sampler deals them: whole rounds of generation only."""
    spec, training = recipe.grpo, recipe.training
    assert spec is not None
    return rows // _prompts(recipe) * spec.num_iterations * (spec.steps_per_generation or training.gradient_accumulation_steps)


def _prompts(recipe: TrainRecipe) -> int:
    """Prompts of one round of generation."""
    spec, training = recipe.grpo, recipe.training
    assert spec is not None
    batches = spec.steps_per_generation or training.gradient_accumulation_steps
    return training.per_device_train_batch_size * batches // spec.num_generations


def _columns(rows: Any) -> list[str]:
    return [name for name in rows.column_names if name != "prompt"]


def _trl(*, vllm: bool) -> Any:
    """TRL's module of GRPO, which would import vLLM wherever that is installed; here only where answers are drawn with it."""
    own = import_utils.is_vllm_available
    if not vllm:
        import_utils.is_vllm_available = lambda min_version=None: False
    try:
        from trl.trainer import grpo_trainer
    finally:
        import_utils.is_vllm_available = own
    return grpo_trainer
