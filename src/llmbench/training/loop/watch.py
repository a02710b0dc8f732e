"""Ends a training in the very step whose loss or gradient is no number, before that step changes a weight.

The check reads one number from the device in each optimizer step, after the gradient norm and before the update. Nothing
that is not finite gets into the weights, so the checkpoints and the state in memory are those of the step before.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import torch

from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.distributed import sharding
from llmbench.training.distributed.ranks import Ranks
from llmbench.training.loop.random_state import undisturbed
from llmbench.training.loop.signals import Signals

__all__ = ["Diverged", "Watched", "place"]

_SHOWN_ROWS = 8


class Diverged(LlmbenchError):
    """A loss, a gradient or a weight that is no finite number. `figures` goes to the run's state."""

    def __init__(self, message: str, **figures: Any) -> None:
        super().__init__(message)
        self.figures = figures


class Watched:
    """Stands before one of TRL's trainers and looks at each step's losses and gradient norm."""

    recipe: TrainRecipe
    run: Run | None = None
    """Where the rows of a bad batch are kept in full; None in a trainer that belongs to no run."""
    args: Any
    state: Any
    model: Any
    accelerator: Any
    train_dataset: Any
    ranks = Ranks()
    _losses: list[torch.Tensor]
    _last_loss: torch.Tensor | None = None
    last_norm: Any = None
    """The gradient norm of the last step."""
    last_rate: float = 0.0
    """The learning rate that the last step was taken with."""
    signals: Signals | None = None
    """What is kept of the steps for a diagnosis; None before the first of them."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch forward and backward; its loss is kept until the step's check."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self._losses = [*getattr(self, "_losses", []), loss.detach()]
        self.signals = self.signals or Signals()
        self.signals.batch(inputs)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called by transformers once a step, after the last batch's backward pass and before the update."""
        norm = sharding.whole(super()._get_grad_norm(model, grad_norm))  # type: ignore[misc]
        losses, self._losses = self._losses, []
        looked_at = [loss.float().reshape(()) for loss in losses]
        if getattr(self.accelerator, "scaler", None) is None:  # float16 scales its loss, overflows, and skips such steps itself
            looked_at.append(torch.as_tensor(norm, dtype=torch.float32, device=losses[0].device).reshape(()))
        bad = not bool(torch.isfinite(torch.stack(looked_at)).all())
        if self.ranks.most(bad)[0]:
            raise self._agreed([float(loss) for loss in losses], float(norm))
        self._last_loss = torch.stack(looked_at[: len(losses)]).sum()
        self.last_norm, self.last_rate = norm, self._get_learning_rate()  # type: ignore[attr-defined]
        if self.signals is not None:
            self.signals.look(self, norm)
        return norm

    def _agreed(self, losses: list[float], norm: float) -> Diverged:
        """What every process says: the words of one whose own loss is bad, or of the first."""
        own = self._diverged(losses, norm)
        told = self.ranks.gather((all(map(math.isfinite, losses)), str(own), own.figures))
        _, message, figures = min(told, key=lambda words: words[0])
        return Diverged(message, **figures)

    def refuse_unusable_weights(self) -> None:
        """Makes sure that what is about to be saved is finite: an update may overflow though its gradient did not.

        Raises:
            Diverged: a trained weight is not.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and self.ranks.most(not bool(torch.isfinite(sharding.local(parameter)).all()))[0]:
                raise Diverged(
                    f"The update of step {self.state.global_step} made {name} infinite or NaN: the training has diverged, "
                    f"and this step is not saved. {self._before()}{self._advice()}",
                    diverged={"step": self.state.global_step, "weight": name},
                )

    def _diverged(self, losses: list[float], norm: float) -> Diverged:
        """What to say about the step that was not taken."""
        step = int(self.state.global_step) + 1
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        what = f"gradient norm is {norm}" if bad is None else f"loss is {losses[bad]}"
        batches = self._rows_of(int(self.state.global_step), len(losses))
        batch, rows = "", [row for rows in batches for row in rows]
        if bad is not None and bad < len(batches):
            rows = batches[bad]
            batch = f", batch {bad + 1} of {len(losses)}" if len(losses) > 1 else ""
        places = [place(self.train_dataset, self.recipe, row) for row in rows]
        listed = ", ".join(places[:_SHOWN_ROWS]) + (
            f" and {len(places) - _SHOWN_ROWS} more" if len(places) > _SHOWN_ROWS else ""
        )
        of = f" Its rows: {listed}." if places else ""
        return Diverged(
            f"The {what} at step {step}{batch}: the training has diverged, and this step is not taken.{of} "
            f"{self._before()}{self._advice()}",
            diverged={"step": step, "losses": [repr(loss) for loss in losses], "grad_norm": repr(norm), "rows": places},
        )

    def _before(self) -> str:
        """The last figures that were numbers."""
        last = "none yet" if self._last_loss is None else f"{float(self._last_loss):.4g}"
        rate = self._get_learning_rate()  # type: ignore[attr-defined]
        return f"The last finite loss was {last}, the learning rate is {rate:.3g}. "

    def _advice(self) -> str:
        """What to do next."""
        return (
            f"Look at these rows, or lower training.learning_rate (it is {self.recipe.training.learning_rate:g}), "
            "and start again with --overwrite."
        )

    def places(self, steps_done: int) -> list[str]:
        """Where the rows of the step that follows `steps_done` stand; drawing them disturbs nothing."""
        with undisturbed(self.model):
            batches = self._rows_of(steps_done, self.args.gradient_accumulation_steps)
        return [place(self.train_dataset, self.recipe, row) for rows in batches for row in rows]

    def _rows_of(self, steps_done: int, count: int) -> list[list[int]]:
        """The row numbers of each batch of the step that follows `steps_done`, drawn anew from the order of batches."""
        accumulated = self.args.gradient_accumulation_steps
        loader = self.get_train_dataloader()  # type: ignore[attr-defined]
        sampler = getattr(loader, "batch_sampler", None)
        if sampler is None or hasattr(
            self, "num_generations"
        ):  # streamed rows have no numbers; GRPO repeats and buffers its own
            return []
        steps_an_epoch = math.ceil(len(loader) / accumulated)
        epoch, step = divmod(steps_done, steps_an_epoch)
        loader.set_epoch(epoch)
        return [list(rows) for rows in islice(sampler, step * accumulated, step * accumulated + count)]


def place(rows: Any, recipe: TrainRecipe, number: int) -> str:
    """Where a row of the training data stands: `data/chat.jsonl:17`, or its number where the data does not say."""
    if not {"source", "row"} <= set(rows.column_names):
        return f"training row {number + 1}"
    row = rows[number]
    source = recipe.data.train[int(row["source"])]
    return f"{source.path or 'generated lessons'}:{int(row['row'])}"
