"""One of TRL's trainers of judged answers as one of several processes: rows, losses and figures are those of one process.

The batches of a step are dealt, and each process scores its own, as one process scores one after another. TRL would put its
figures together over all processes in every batch, which hangs where these have different sizes, and estimate KTO's KL over
other rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from accelerate.data_loader import prepare_data_loader  # type: ignore[import-untyped]
from torch.utils.data import DataLoader

from llmbench.training.distributed import wrap
from llmbench.training.distributed.ranks import Ranks, current
from llmbench.training.loop.batches import Dealt
from llmbench.training.loop.checkpoint import WholeCheckpoints

__all__ = ["Among", "counted"]

_NOTHING = "a turn without rows"
"""What marks a batch that takes a turn where a step's batches do not go round; it is another row, and counts nothing."""

_COUNT = "num_tokens"


class Among(WholeCheckpoints):
    """Stands before one of TRL's trainers. With one process nothing is other than TRL's."""

    data_collator: Any
    control: Any
    figures = "_metrics"
    """TRL's attribute with the figures of each batch since the last log, by `train` and `eval`."""
    filled = 1
    """Batches of the step, over all processes."""

    def __init__(self, *given: Any, **parts: Any) -> None:
        self.ranks = current()
        super().__init__(*given, **parts)

    def get_train_dataloader(self) -> Any:
        """TRL's batches; of several processes each has its share of them."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        return loader if self.ranks.alone else self._share(loader, self.args.gradient_accumulation_steps * self.ranks.world)

    def batches(self, ranks: Ranks) -> Dealt:
        """A process's share of the batches of an epoch."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        return self._batches(loader, self.recipe.training.gradient_accumulation_steps, ranks)

    def _batches(self, loader: Any, a_step: int, ranks: Ranks) -> Dealt:
        whole = loader.batch_sampler
        whole = getattr(whole, "batch_sampler", whole)  # in accelerate's share, where there are several processes
        if hasattr(whole.sampler, "initial_seed"):
            whole.sampler.initial_seed = self.args.seed  # each process has random numbers of its own
        return Dealt(whole, a_step, ranks)

    def _share(self, loader: Any, a_step: int) -> Any:
        dealt = self._batches(loader, a_step, self.ranks)
        turns = _Turns(loader.collate_fn, loader.dataset[0])
        own: DataLoader[Any] = DataLoader(loader.dataset, batch_sampler=dealt, collate_fn=turns)
        return prepare_data_loader(own, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of a step, which are counted over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if not self.ranks.alone:
            self.filled = int(self.ranks.total(sum(_NOTHING not in batch for batch in batches))[0])
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, *more: Any, **given: Any) -> Any:
        """TRL's loss of this process's batch, such that its mean over processes is the mean over the batches of the step."""
        if self.ranks.alone:
            return super().compute_loss(model, inputs, *more, **given)  # type: ignore[misc]
        nothing = inputs.pop(_NOTHING, False)
        with self._apart(), self._unmeasured() if nothing else nullcontext():
            found = super().compute_loss(model, inputs, *more, **given)  # type: ignore[misc]
        if not model.training:
            return found
        turns = self.current_gradient_accumulation_steps * self.ranks.world  # type: ignore[attr-defined]
        share = 0.0 if nothing else turns / self.filled
        return found if share == 1.0 else found * share

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """TRL's evaluation; of several processes each takes its share of the held-out batches."""
        if self.ranks.alone:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[misc]
        loader = super().get_eval_dataloader(eval_dataset)  # type: ignore[misc]
        self.model.eval()
        total, rows = 0.0, 0
        for batch in self._share(loader, self.ranks.world):
            if _NOTHING not in batch:
                with self._apart():
                    loss = self.prediction_step(self.model, batch, prediction_loss_only=True)[0]  # type: ignore[attr-defined]
                count = next(len(one) for one in batch.values() if isinstance(one, torch.Tensor))  # in proportion to its rows
                total, rows = total + float(loss) * count, rows + count
        total, every = self.ranks.total(total, rows)
        metrics = {f"{metric_key_prefix}_loss": total / every}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[attr-defined]
        return metrics

    def log(self, logs: dict[str, float], *more: Any) -> None:
        """TRL's means, over the batches of all processes."""
        if not self.ranks.alone:
            held = getattr(self, self.figures)[self.measured(logs)]
            every = self.ranks.gather({name: list(values) for name, values in held.items()})
            held.clear()
            for one in every:
                for name, values in one.items():
                    held[name] += values
            if _COUNT in held:  # which TRL adds up by itself, those of a turn without rows too
                held[_COUNT] = [self.state.num_input_tokens_seen]
        super().log(logs, *more)  # type: ignore[misc]

    def measured(self, logs: dict[str, float]) -> Literal["train", "eval"]:
        """Which figures TRL is about to log."""
        return "train" if self.model.training else "eval"

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """TRL measures this process's own batch while the block runs."""
        names = ("gather", "gather_for_metrics")
        if names[0] in vars(self.accelerator):  # an evaluation asks for a loss
            yield
            return
        for name in names:
            setattr(self.accelerator, name, lambda value, *_, **__: value)
        try:
            yield
        finally:
            for name in names:
                delattr(self.accelerator, name)

    @contextmanager
    def _unmeasured(self) -> Iterator[None]:
        """What TRL measures while the block runs is forgotten."""
        before = copy.deepcopy(getattr(self, self.figures))
        try:
            yield
        finally:
            setattr(self, self.figures, before)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """In DistributedDataParallel and in nothing else: accelerate would decide by device and environment."""
        if self.ranks.alone:
            return super()._wrap_model(model, training, dataloader)  # type: ignore[misc]
        return wrap.wrapped(self.accelerator, model, self.recipe.distributed)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        super()._track_num_input_tokens(counted(inputs))  # type: ignore[misc]


class _Turns:
    """Collates rows; of none, a row that stands in."""

    def __init__(self, collate: Any, row: Any) -> None:
        self.collate, self.row = collate, row

    def __call__(self, examples: list[Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.collate(examples or [self.row])
        return found if examples else {**found, _NOTHING: True}


def counted(inputs: Any) -> Any:
    """A batch as its tokens are counted: none of a turn without rows."""
    if _NOTHING not in inputs:
        return inputs
    return {name: torch.zeros_like(one) if name.endswith("attention_mask") else one for name, one in inputs.items()}
