"""Group relative policy optimisation: the model answers each prompt several times, and functions judge the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback

from llmbench import data
from llmbench.borrowed import replaced
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.kernels import patches
from llmbench.training.loading.model import Loaded
from llmbench.training.loop.record import Recorder
from llmbench.training.methods import drawing, rewards
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, against, parts, rate, reference, settings
from llmbench.training.methods.method import Method, judged_rows

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD", "of_trl"]


def trainer(job: Job, run: Run, recorder: Recorder) -> Any:
    """TRL's GRPOTrainer on prompts, with the recipe's reward functions."""
    spec, training = job.recipe.grpo, job.recipe.training
    assert spec is not None
    trl = of_trl(vllm=spec.use_vllm)
    outside = spec.generator == "vllm"
    own = {"use_vllm": True, "vllm_mode": "colocate"} if outside else {"use_vllm": spec.use_vllm}  # not TRL's own server
    settings_of_trl = trl.GRPOConfig(
        **settings(job, run),
        **spec.model_dump(exclude={"reward_functions", "generator", "vllm_python", "use_vllm"}),
        **own,
        reward_weights=[reward.weight for reward in spec.reward_functions],
        shuffle_dataset=job.recipe.data.shuffle,
        disable_dropout=True,
        pad_to_multiple_of=training.pad_to_multiple_of,
    )
    frozen = reference(job) if spec.beta else None  # TRL would load the base a second time, by its path
    changes: dict[Any, Any] = {} if frozen is None else {patches.REFERENCE: lambda *_, **__: frozen}
    if outside:
        stops = _stops(job.loaded.model)
        changes[patches.DRAWN_BY] = drawing.backend(_sampler(job), training.seed, stops, lambda: int(made.state.global_step))
    with replaced(changes):
        made = type("Trainer", (Judged, trl.GRPOTrainer), {})(
            job.recipe,
            **parts(job, recorder),
            reward_funcs=rewards.functions(spec.reward_functions, _columns(job.rows.train)),
            args=one_gpu(settings_of_trl),
        )
    made.remove_callback(PrinterCallback)
    return made


def _sampler(job: Job) -> drawing.Sampler:
    if job.sampler is None:
        raise LlmbenchError("grpo.generator: vllm is started by `llmbench train`, and nothing else starts it.")
    sampler: drawing.Sampler = job.sampler
    return sampler


def _stops(model: Any) -> list[int]:
    """The tokens that end an answer, as for answers that transformers draws."""
    found = model.generation_config.eos_token_id
    return [found] if isinstance(found, int) else list(found or ())


def _check(recipe: TrainRecipe, loaded: Loaded, rows: data.Rows) -> None:
    """Raises when the answers do not fit the context or the reward functions the data, before anything is written."""
    spec, context = recipe.grpo, loaded.context
    longest = max(rows.train_report.longest, rows.eval_report.longest if rows.eval_report else 0)
    assert spec is not None
    if spec.use_vllm and loaded.device != "cuda":
        raise RecipeError(
            "grpo.use_vllm: vLLM in the trainer's process needs an NVIDIA GPU, and there is none; set use_vllm: false"
        )
    if context is not None and longest + spec.max_completion_length > context:
        raise RecipeError(
            f"grpo.max_completion_length: the longest prompt has {longest:,} tokens; with {spec.max_completion_length:,} "
            f"more for an answer it exceeds the {context:,} that the model reads. Use at most {max(context - longest, 1):,}."
        )
    needed = _prompts(recipe)
    if len(rows.train) < needed:
        raise RecipeError(
            f"data.train: {len(rows.train)} prompts are fewer than the {needed} of one round of generation. Add some."
        )
    rewards.functions(spec.reward_functions, _columns(rows.train))


def _batches(recipe: TrainRecipe, rows: data.Rows) -> int:
    """Batches of an epoch, as TRL's sampler deals them: whole rounds of generation only."""
    spec, training = recipe.grpo, recipe.training
    assert spec is not None
    rounds = len(rows.train) // _prompts(recipe) * spec.num_iterations
    return rounds * (spec.steps_per_generation or training.gradient_accumulation_steps)


def _prompts(recipe: TrainRecipe) -> int:
    """Prompts of one round of generation."""
    spec, training = recipe.grpo, recipe.training
    assert spec is not None
    batches = spec.steps_per_generation or training.gradient_accumulation_steps
    return training.per_device_train_batch_size * batches // spec.num_generations


def _columns(rows: Any) -> list[str]:
    return [name for name in rows.column_names if name != "prompt"]


def of_trl(*, vllm: bool) -> Any:
    """TRL's module of GRPO, which would import vLLM wherever that is installed; here only where answers are drawn with it."""
    with replaced({} if vllm else {patches.HAS_VLLM: lambda min_version=None: False}):
        from trl.trainer import grpo_trainer
    return grpo_trainer


def _plan(job: Job) -> list[str]:
    spec = job.recipe.grpo
    assert spec is not None
    judges = " + ".join(f"{r.weight:g} x {r.name}" if r.weight != 1 else r.name for r in spec.reward_functions)
    said = f"{spec.num_generations} answers per prompt of at most {spec.max_completion_length} tokens, reward {judges}"
    said += ", drawn by vLLM with the adapter of each step" if spec.generator == "vllm" else ""
    return [f"  method  {said}, {rate(job)}", *([against(job)] if spec.beta else [])]


METHOD = Method(judged_rows, _batches, trainer, _plan, _check, first="its answers are generated first")
