"""A training, whatever its method: a page read downwards. What is particular to a method is in the module of its name."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import set_seed

from llmbench import checkpoints, data
from llmbench.data import preferences, vocabulary
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.estimate import Estimate
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.selection import goal
from llmbench.training import data_report, lock, needs, performance, quiet, save
from llmbench.training.kernels import compilation, fused_lora
from llmbench.training.loading import adapter, trial
from llmbench.training.loading.model import Loaded, load_model, stop_at
from llmbench.training.loop import idle, plot, questions
from llmbench.training.loop.batches import Batches
from llmbench.training.loop.evaluation import Exam
from llmbench.training.loop.record import Progress, Recorder, Stop
from llmbench.training.loop.watch import Diverged
from llmbench.training.methods.trainer import lengths
from llmbench.training.performance import Choice

__all__ = ["Job", "first_step", "prepare", "train"]


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, loaded and checked; nothing is written yet."""

    recipe: TrainRecipe
    loaded: Loaded
    rows: data.Rows
    steps: int
    choices: tuple[Choice, ...] = ()
    """What `training.performance` chose; `recipe` holds it."""
    needs: Estimate | None = None
    """What it was estimated to need; None where the configuration does not say how wide the model is."""
    questions: tuple[questions.Question, ...] = ()
    """What is asked at each evaluation."""
    teacher: Any = None
    """The model that a distillation learns from."""

    @property
    def trained_parameters(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.loaded.model.parameters() if p.requires_grad)

    @property
    def parameters(self) -> int:
        """How many parameters the model has, those of LoRA included."""
        return int(self.loaded.model.num_parameters())


def prepare(recipe: TrainRecipe, *, progress: Callable[[int], None] | None = None) -> Job:
    """Loads and checks the model and the data; `progress` is called with the number of rows read since its last call.

    Raises:
        LlmbenchError: see `load_model` and `data.load`; or rows longer than the model's context.
    """
    quiet.libraries()
    set_seed(recipe.training.seed)
    loaded = trial.tried(recipe, load_model(recipe))
    if recipe.data.chat_template is not None:
        loaded.tokenizer.chat_template = recipe.data.template()  # so that it is saved with a model that learned it
    rows = _rows(recipe, loaded, progress)
    stop_at(loaded.model, rows.train_report.turn_ends)
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(rows.train_report.longest, rows.eval_report.longest if rows.eval_report else 0)
    if context is not None and longest > context:
        raise RecipeError(
            f"data.max_length: the longest row has {longest:,} tokens and the model reads {context:,}. "
            f"Set data.max_length={context} and data.over_length to drop or truncate."
        )
    teacher = None
    match recipe.method:
        case "grpo":
            from llmbench.training.methods import grpo

            grpo.check(recipe, rows.train, device=loaded.device, context=context, longest=longest)
        case "distillation":
            from llmbench.training.methods import distillation

            teacher = distillation.teacher(recipe, loaded)
    recipe, choices = performance.choose(recipe, loaded, rows)
    asked = questions.read(recipe, rows, loaded.tokenizer, context) if recipe.evaluation is not None else []
    needed = needs.of(recipe, loaded, rows)
    job = Job(recipe, loaded, rows, _steps(recipe, rows), choices, needed, tuple(asked), teacher)
    adapter.initialise(job)
    if recipe.training.fused_lora:
        fused_lora.install(loaded.model)
    return job


def _rows(recipe: TrainRecipe, loaded: Loaded, progress: Callable[[int], None] | None) -> data.Rows:
    """The rows in the form that the method learns from."""
    seed, added, stops = recipe.training.seed, recipe.tokenizer, vocabulary.stops(loaded.folder)
    tokenizer = loaded.tokenizer
    match recipe.method:
        case "sft" | "pretrain" | "distillation":
            folder = recipe.model.tokenizer or loaded.folder
            return data.load(recipe.data, tokenizer, seed=seed, folder=folder, added=added, stops=stops, progress=progress)
        case method:
            return preferences.load(method, recipe.data, tokenizer, seed=seed, added=added, stops=stops, progress=progress)


def _steps(recipe: TrainRecipe, rows: data.Rows) -> int:
    """How many steps the training takes."""
    spec = recipe.training
    if spec.max_steps > 0:
        return spec.max_steps
    match recipe.method:
        case "sft" | "pretrain":
            batches = len(Batches(lengths(rows.train), recipe))
        case "grpo":
            from llmbench.training.methods import grpo

            batches = grpo.batches(recipe, len(rows.train))
        case _:
            batches = math.ceil(len(rows.train) / spec.per_device_train_batch_size)
    return math.ceil(spec.num_train_epochs * math.ceil(batches / spec.gradient_accumulation_steps))


def train(
    recipe: TrainRecipe,
    run: Run,
    *,
    resume: bool = False,
    resume_from_checkpoint: int | None = None,
    job: Job | None = None,
    progress: Progress | None = None,
) -> None:
    """Trains and leaves an adapter, or a model when all parameters were trained, in the run's folder.

    Args:
        recipe: what to train.
        run: its folder, from `runs.create` or, to continue, from `runs.resume`.
        resume: continue from the last whole checkpoint, as if nothing had happened; without one, from the start.
        resume_from_checkpoint: with `resume`, the step of the checkpoint to continue from instead. Later ones are dropped.
        job: the recipe's model and data where `prepare` has loaded them already.
        progress: told of each step, in place of the bar on stderr.

    Raises:
        LlmbenchError: something the user can mend; the run is marked failed.
        KeyboardInterrupt: stopped by Ctrl-C; a checkpoint is saved and the run is marked stopped.
    """
    stop = Stop()
    with run.writing(), stop.listening(), save.disk_errors(run):
        job = job or prepare(recipe)
        checkpoint = _start(run, recipe, resume_from_checkpoint) if resume else None
        lock.write(run, job.recipe, job.loaded, resume=checkpoint is not None)
        data_report.write(job, run)
        run.rewind(checkpoints.step_of(checkpoint) if checkpoint else -1, recipe)
        recorder = Recorder(run, stop, progress)
        trainer = _trainer(job, run, recorder)
        recorder.trainer, trainer.run = trainer, run
        if recipe.evaluation is not None:
            batch_size = recipe.training.per_device_eval_batch_size
            trainer.exam = Exam(recipe.evaluation, job.questions, job.loaded.tokenizer, batch_size, run)
        compiling = compilation.failures() if job.recipe.training.torch_compile else nullcontext()
        with recorder.showing(), _diverging(run), _library_faults(job, trainer), compiling:
            trainer.train_from(checkpoint, job.steps)
        step, steps = trainer.state.global_step, trainer.state.max_steps
        if stop.asked and step < steps and not trainer.stopped_early():
            run.mark("running", step=step, steps=steps)
            raise KeyboardInterrupt
        if not any(key.startswith("eval_") for key in recorder.at(step)):
            trainer.measure()
        kept = trainer.keep_best()
        with _diverging(run):
            trainer.refuse_unusable_weights()
        save.result(trainer.model, job, run)
        plot.write(run)
        figures = recorder.summary(kept) | {
            "estimate": needs.figures(job.needs),
            "warning": idle.reason(recorder.idle, job.recipe, step),
            "seconds_left": 0.0,
        }
        run.mark("finished", step=step, steps=steps, stopped_early=trainer.stopped_early(), **figures)
        _drop_checkpoints(job, run, kept)  # after the mark: a kill in between leaves a finished run


def _drop_checkpoints(job: Job, run: Run, best: int | None) -> None:
    """Of an adapter's checkpoints the last one stays (and the best, which it needs), so that --resume can add epochs to it.

    It is three times the adapter. Of a training of all parameters it would be three times the model, so none stays.
    """
    every = checkpoints.every(run.checkpoints)
    if not job.recipe.adapts or not every:
        checkpoints.clear(run.checkpoints)
        return
    for checkpoint in every[:-1]:
        if checkpoints.step_of(checkpoint) != best:
            checkpoints.remove(checkpoint)


_GENERATED = {"grpo": "its answers are generated first", "distillation": "its teacher answers first"}


def first_step(job: Job) -> str:
    """Takes the first batch forward and backward, as training would, and keeps nothing; the job cannot be trained after it.

    Returns:
        What was seen, or what was not tried and why, in a few words.

    Raises:
        LlmbenchError: the step fails.
    """
    method = job.recipe.method
    if method in _GENERATED:
        return f"no step, because with method: {method} {_GENERATED[method]}"
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        trainer = _trainer(job, run, Recorder(run, Stop()))
        trainer.model.train()
        began = time.perf_counter()
        with _library_faults(job):
            batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, batch)
            loss.backward()
        seconds = time.perf_counter() - began
    still = [name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is None]
    if still and not any(p.grad is not None for p in trainer.model.parameters()):
        raise LlmbenchError("The first batch gives no trained parameter a gradient: nothing would be learned.")
    left = f"; {len(still)} trained parameters got no gradient, {still[0]} among them" if still else ""
    return f"one batch forward and backward in {seconds:.1f} s: loss {float(loss.detach()):.4f}{left}"


@contextmanager
def _library_faults(job: Job, trainer: Any = None) -> Iterator[None]:
    """Makes one line of a library's failure in the first step, in which a model shows what it cannot do.

    Raises:
        LlmbenchError: it failed, and no step was taken yet.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError, KeyError, IndexError) as error:
        if (trainer is not None and trainer.state.global_step > 0) or save.is_full(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        kind = type(job.loaded.model.get_base_model() if job.recipe.adapts else job.loaded.model).__name__
        plain = "" if job.recipe.training.performance == "plain" else " Try training.performance=plain;"
        raise LlmbenchError(
            f"The first step failed on {kind} ({type(error).__name__}: {said}).{plain} --debug shows where"
        ) from error


def _start(run: Run, recipe: TrainRecipe, step: int | None) -> Path | None:
    """The checkpoint to go on from. What is damaged is named on stderr; what is later goes, and will be made again."""

    def best(checkpoint: Path) -> int | None:
        judged = goal(recipe.training)
        if judged is None or not recipe.training.load_best_model_at_end:
            return None
        log = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        found = judged.best(log)
        return found[0] if found is not None else None

    checkpoint, damaged = checkpoints.choose(run.checkpoints, step, needs=best)
    if checkpoint is None:
        return None
    for line in damaged:
        print(f"{line}: passed over for {checkpoint.name}.", file=sys.stderr)
    for later in reversed(checkpoints.every(run.checkpoints)):
        if checkpoints.step_of(later) > checkpoints.step_of(checkpoint):
            checkpoints.remove(later)
    return checkpoint


@contextmanager
def _diverging(run: Run) -> Iterator[None]:
    """Keeps the rows and figures of a step that is no number in the run's state, and names the checkpoint that stays."""
    try:
        yield
    except Diverged as error:
        run.mark("running", **error.figures)
        last = checkpoints.every(run.checkpoints)
        stays = f" Checkpoint {checkpoints.step_of(last[-1])} is the last good one." if last else ""
        raise LlmbenchError(f"{error}{stays}") from error


def _trainer(job: Job, run: Run, recorder: Recorder) -> Any:
    """The trainer of the recipe's method, whose libraries are loaded for no other."""
    match job.recipe.method:
        case "sft" | "pretrain":
            from llmbench.training.methods import sft

            return sft.trainer(job, run, recorder)
        case "dpo":
            from llmbench.training.methods import dpo

            return dpo.trainer(job, run, recorder)
        case "orpo":
            from llmbench.training.methods import orpo

            return orpo.trainer(job, run, recorder)
        case "kto":
            from llmbench.training.methods import kto

            return kto.trainer(job, run, recorder)
        case "reward":
            from llmbench.training.methods import reward

            return reward.trainer(job, run, recorder)
        case "grpo":
            from llmbench.training.methods import grpo

            return grpo.trainer(job, run, recorder)
        case "distillation":
            from llmbench.training.methods import distillation

            return distillation.trainer(job, run, recorder)
