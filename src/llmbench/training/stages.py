"""A training, whatever its method: a page read downwards. What is particular to a method is in the module of its name."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import set_seed

from llmbench import borrowed, data, tracking
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import TrackingSpec, TrainRecipe
from llmbench.runs import Run, checkpoints, rewind
from llmbench.runs.best import goal
from llmbench.training import data_report, lock, methods, needs, performance, quiet, save
from llmbench.training.distributed import deal, ranks, report
from llmbench.training.job import Job
from llmbench.training.kernels import compilation, fused_head, fused_lora, patches
from llmbench.training.loading import eva, trial
from llmbench.training.loading.model import device_of, load_model, stop_at
from llmbench.training.loop import idle, plot, questions
from llmbench.training.loop.evaluation import Exam
from llmbench.training.loop.record import Progress, Recorder, Stop
from llmbench.training.loop.watch import Diverged

__all__ = ["first_step", "prepare", "train"]


def prepare(recipe: TrainRecipe, *, progress: Callable[[int], None] | None = None) -> Job:
    """Loads and checks the model and the data; `progress` is called with the number of rows read since its last call.

    Raises:
        LlmbenchError: see `load_model`, `data.load` and `borrowed.verify`; or rows longer than the model's context.
    """
    borrowed.verify(*patches.TRAINER, *patches.METHODS.get(recipe.method, ()))
    quiet.libraries()
    here = ranks.join(device_of(recipe.model))
    deal.check(recipe, here.world)
    set_seed(recipe.training.seed)
    loaded = trial.tried(recipe, load_model(recipe))
    if recipe.data.chat_template is not None:
        loaded.tokenizer.chat_template = recipe.data.template()  # so that it is saved with a model that learned it
    method = methods.of(recipe.method)
    rows = method.rows(recipe, loaded, progress)
    stop_at(loaded.model, rows.train_report.turn_ends)
    context = loaded.context
    longest = max(rows.train_report.longest, rows.eval_report.longest if rows.eval_report else 0)
    if context is not None and longest > context:
        raise RecipeError(
            f"data.max_length: the longest row has {longest:,} tokens and the model reads {context:,}. "
            f"Set data.max_length={context} and data.over_length to drop or truncate."
        )
    method.check(recipe, loaded, rows)
    teacher = method.teacher(recipe, loaded)
    asked, (recipe, choices) = recipe, here.share(performance.choose(recipe, loaded, rows))
    examined = questions.read(recipe, rows, loaded.tokenizer, context) if recipe.evaluation is not None else []
    needed = needs.of(recipe, loaded, rows) if here.alone else None  # it is of one process, and learns from such runs
    job = Job(asked, recipe, loaded, rows, _steps(recipe, rows), choices, needed, tuple(examined), teacher)
    eva.initialise(recipe, loaded, rows.train)
    if recipe.training.fused_lora:
        fused_lora.install(loaded.model)
    return job


def _steps(recipe: TrainRecipe, rows: data.Rows) -> int:
    """How many steps the training takes."""
    spec = recipe.training
    if spec.max_steps > 0:
        return spec.max_steps
    batches = methods.of(recipe.method).batches(recipe, rows)
    return math.ceil(spec.num_train_epochs * math.ceil(batches / spec.gradient_accumulation_steps))


def train(
    what: TrainRecipe | Job,
    run: Run,
    *,
    resume: bool = False,
    resume_from_checkpoint: int | None = None,
    progress: Progress | None = None,
    stop_after: int | None = None,
    log_at: Sequence[int] = (),
    rates: Sequence[float] = (),
) -> None:
    """Trains and leaves an adapter, or a model when all parameters were trained, in the run's folder.

    Args:
        what: a recipe, or its job where `prepare` has loaded model and data already.
        run: its folder, from `runs.create` or, to continue, from `runs.resume`.
        resume: continue from the last whole checkpoint, as if nothing had happened; without one, from the start.
        resume_from_checkpoint: with `resume`, the step of the checkpoint to continue from instead. Later ones are dropped.
        progress: told of each step, in place of the bar on stderr.
        stop_after: stop after this step as Ctrl-C does, with a checkpoint.
        log_at: steps that are logged besides those of `logging_steps`, as a run logs the step at which it is stopped.
        rates: the learning rate of each step, in place of the recipe's schedule; for a learning-rate range test.

    Raises:
        LlmbenchError: something the user can mend; the run is marked failed.
        KeyboardInterrupt: stopped by Ctrl-C or after `stop_after`; a checkpoint is saved and the run is marked stopped.
    """
    stop, here = Stop(), ranks.current()
    spec = (what.asked if isinstance(what, Job) else what).tracking if here.first else TrackingSpec()
    with tracking.follow(run, spec) as followed, run.writing(), stop.listening(), save.disk_errors(run):
        job = what if isinstance(what, Job) else prepare(what)
        recipe = job.recipe
        checkpoint = _start(run, recipe, resume_from_checkpoint) if resume and here.first else None
        checkpoint = here.share(checkpoint)
        at = checkpoints.step_of(checkpoint) if checkpoint is not None else None
        if here.first:
            lock.write(run, recipe, job.loaded, job.rows, resumed_at=at)
            data_report.write(job, run)
            rewind(run, checkpoints.step_of(checkpoint) if checkpoint else -1, job.asked)
        followed.begin()
        progress = progress if here.first else _nobody
        recorder = Recorder(run, stop, progress, stop_after=stop_after, log_at=log_at, rates=rates)
        with fused_head.scoring(job.loaded.model):
            trainer = _trainer(job, run, recorder)
            compiling = compilation.compiling() if recipe.training.torch_compile else nullcontext()
            followed.opened()
            with recorder.showing(), _diverging(run), _library_faults(job, trainer), compiling:
                trainer.train_from(checkpoint, job.steps)
            step, steps = trainer.state.global_step, trainer.state.max_steps
            if stop.asked and step < steps and not trainer.stopped_early():
                run.mark("running", step=step, steps=steps)
                raise KeyboardInterrupt(report.STOPPED)
            if here.share(not any(key.startswith("eval_") for key in recorder.at(step))):
                trainer.measure()
            kept = trainer.keep_best()
        with _diverging(run):
            trainer.refuse_unusable_weights()
        trainer.gather()
        if not here.first:
            return
        uncertified = save.result(trainer.model, job, run, whole=trainer.gathered)
        plot.write(run)
        figures = recorder.summary(kept) | {
            "estimate": needs.figures(job.needs),
            "warning": idle.reason(recorder.idle, recipe, step) or _uncertified(run, uncertified) or None,
            "seconds_left": 0.0,
        }
        many: dict[str, Any] = {} if here.alone else {"processes": here.world, "strategy": recipe.distributed.called}
        run.mark("finished", step=step, steps=steps, stopped_early=trainer.stopped_early(), **figures, **many)
        _drop_checkpoints(job, run, kept)  # after the mark: a kill in between leaves a finished run


def _trainer(job: Job, run: Run, recorder: Recorder) -> Any:
    """The method's trainer, which knows its run and the recipe's questions."""
    recipe = job.recipe
    trainer = methods.of(recipe.method).trainer(job, run, recorder)
    recorder.trainer, trainer.run = trainer, run
    if recipe.evaluation is not None:
        batch_size = recipe.training.per_device_eval_batch_size
        trainer.exam = Exam(recipe.evaluation, job.questions, job.loaded.tokenizer, batch_size, run)
    here = ranks.current()
    if not here.first:  # dropout of its own; TRL has set the seed, so that what is drawn before is the same
        set_seed((recipe.training.seed + 7919 * here.rank) % 2**32)
    return trainer


def _nobody(done: int, steps: int, figures: str) -> None:
    """Is told of the steps of a process that is not the first."""


def _uncertified(run: Run, problem: str) -> str:
    """What to say of an adapter whose certificate could not be written."""
    return f"No certificate was written ({problem}). Serving will ask for one: llmbench certify {run.name}" if problem else ""


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


def first_step(job: Job) -> str:
    """Takes the first batch forward and backward, as training would, and keeps nothing; the job cannot be trained after it.

    Returns:
        What was seen, or what was not tried and why, in a few words.

    Raises:
        LlmbenchError: the step fails.
    """
    method = methods.of(job.recipe.method)
    if method.first is not None:
        return f"no step was taken: with method: {job.recipe.method} {method.first}"
    with TemporaryDirectory() as folder, fused_head.scoring(job.loaded.model):
        run = Run(Path(folder))
        trainer = method.trainer(job, run, Recorder(run, Stop()))
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
    left = f"; {len(still)} trained parameters got no gradient, such as {still[0]}" if still else ""
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
            f"The first step failed on {kind} ({type(error).__name__}: {said}).{plain} See where with --debug"
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
        print(f"{line}: using {checkpoint.name} instead.", file=sys.stderr)
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
