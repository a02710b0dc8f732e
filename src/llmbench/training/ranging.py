"""A learning-rate range test: a run's recipe, trained for some steps from its start with a rate that rises exponentially."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from llmbench import workspace
from llmbench.errors import LlmbenchError, RunError
from llmbench.recipe import TrainRecipe, load
from llmbench.runs import Run, resolved
from llmbench.training.stages import prepare, train

__all__ = ["METHODS", "range_test"]

METHODS = ("sft", "pretrain", "orpo", "distillation")
"""Methods whose loss is a mean over tokens, from which a rate can be read."""
_OVERRIDES = (
    "training.num_train_epochs=1000", "training.warmup_steps=0", "training.lr_scheduler_type=constant",
    "training.lr_scheduler_kwargs={}", "training.logging_steps=1", "training.eval_steps=null", "training.eval_on_start=false",
    "training.load_best_model_at_end=false", "training.early_stopping_patience=null", "training.metric_for_best_model=null",
    "training.save_steps=1000000", "data.eval=[]", "data.eval_fraction=0", "evaluation=null", "tracking.to=[]",
)  # fmt: skip


def range_test(
    run: Run, *, low: float, high: float, steps: int, progress: Callable[[int, int, str], None] | None = None
) -> list[tuple[float, float]]:
    """The loss of each step of a training whose rate rises from `low` to `high`, by the same factor each step.

    It trains in a temporary folder: the run and its files stay as they are. The recipe is the run's own, its data, batches and
    seed too; held-out rows are trained on, as nothing is evaluated.

    Args:
        run: whose recipe is tried.
        low: the rate of the first step, above 0.
        high: that of the last one, above `low`.
        steps: at least 2.
        progress: told of each step, in place of the bar on stderr.

    Returns:
        (rate, loss) of each step, up to the one at which the loss is no number any more, which ends the test.

    Raises:
        LlmbenchError: the method's loss says nothing of a rate, or the recipe can no longer be trained.
    """
    method = run.recipe["method"]
    if method not in METHODS:
        raise RunError(f"--lr-range reads a loss over tokens ({', '.join(METHODS)}), and {run.name} is of method {method}.")
    name = f"{run.name[:50]}-lr-range"
    document = load(
        run.folder / "recipe.yaml", TrainRecipe,
        [*_OVERRIDES, f"training.max_steps={steps}", f"training.learning_rate={high!r}", f"name={name}"],
    )  # fmt: skip
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    with TemporaryDirectory(prefix="llmbench-lr-range-") as folder:
        tried = Run(Path(folder) / name)
        tried.folder.mkdir()
        workspace.write_text(tried.folder / "recipe.yaml", resolved(document))
        tried.mark("stopped", "not started")
        try:
            train(prepare(document), tried, progress=progress, rates=rates)
        except LlmbenchError:
            if "diverged" not in tried.status:
                raise
        losses = {row["step"]: float(row["loss"]) for row in tried.metrics() if "loss" in row}
    return [(rate, losses[step]) for step, rate in enumerate(rates, start=1) if step in losses]
