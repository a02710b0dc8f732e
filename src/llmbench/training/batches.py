"""Which rows stand in which batch, and how a batch becomes tensors. Everything follows from the recipe and the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import torch
from torch.utils.data import Sampler

from llmbench.recipe import TrainRecipe

__all__ = ["Batches", "Collator"]

_WINDOW = 4096


class Batches(Sampler[list[int]]):
    """Batches of row numbers, the same for the same seed and epoch, so that a resumed run sees what it would have seen.

    With `max_tokens_per_batch` a batch takes rows while (rows x padded length) stays within it. Shuffled rows are then
    grouped with others of about their length, which saves padding; rows in file order stay in file order.
    """

    def __init__(self, lengths: Sequence[int], recipe: TrainRecipe, *, train: bool = True) -> None:
        spec = recipe.training
        self.lengths = lengths
        self.multiple = spec.pad_to_multiple_of or 1
        self.rows = spec.per_device_train_batch_size if train else spec.per_device_eval_batch_size
        self.budget = spec.max_tokens_per_batch
        self.seed = spec.seed
        self.shuffle = train and recipe.data.shuffle
        self.epoch = 0
        self.batch_size = None
        order = list(range(len(lengths)))
        if self.shuffle:
            Random(f"rows {self.seed}").shuffle(order)
        if self.budget is not None and (self.shuffle or not train):
            windows = [order[i : i + _WINDOW] for i in range(0, len(order), _WINDOW)]
            order = [row for window in windows for row in sorted(window, key=lambda row: lengths[row])]
        self.order = order
        self.grouped = self.budget is not None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        if self.shuffle and self.grouped:
            Random(f"batches {self.seed} {self.epoch}").shuffle(batches)
        return iter(batches)

    def _batches(self) -> list[list[int]]:
        order = self.order
        if self.budget is None:
            if self.shuffle:
                order = list(order)
                Random(f"epoch {self.seed} {self.epoch}").shuffle(order)
            return [order[i : i + self.rows] for i in range(0, len(order), self.rows)]
        batches: list[list[int]] = []
        longest = 0
        for row in order:
            length = padded(self.lengths[row], self.multiple)
            if batches and (len(batches[-1]) + 1) * max(longest, length) <= self.budget:
                batches[-1].append(row)
                longest = max(longest, length)
            else:
                batches.append([row])
                longest = length
        return batches


class Collator:
    """Rows -> `input_ids`, `labels` (-100 where nothing is learned) and `attention_mask`, padded on the right.

    With `fill` a batch is made up to its full number of rows with empty ones, so that a compiled model meets one shape a
    length: each new shape costs a CPU half a minute of compilation.
    """

    def __init__(self, recipe: TrainRecipe, pad_token_id: int) -> None:
        spec = recipe.training
        self.pad = pad_token_id
        self.multiple = spec.pad_to_multiple_of or 1
        self.fill = spec.torch_compile
        self.rows = spec.per_device_train_batch_size
        self.budget = spec.max_tokens_per_batch

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Makes one batch of shape (rows, padded length)."""
        length = padded(max(len(example["input_ids"]) for example in examples), self.multiple)
        full = self.rows if self.budget is None else max(self.budget // length, 1)
        rows = max(len(examples), full) if self.fill else len(examples)
        batch = {
            "input_ids": torch.full((rows, length), self.pad, dtype=torch.long),
            "labels": torch.full((rows, length), -100, dtype=torch.long),
            "attention_mask": torch.zeros((rows, length), dtype=torch.long),
        }
        for i, example in enumerate(examples):
            end = len(example["input_ids"])
            batch["input_ids"][i, :end] = torch.as_tensor(example["input_ids"], dtype=torch.long)
            batch["labels"][i, :end] = torch.as_tensor(example["labels"], dtype=torch.long)
            batch["attention_mask"][i, :end] = 1
        return batch


def padded(length: int, multiple: int) -> int:
    """The length after padding to a multiple."""
    return -(-length // multiple) * multiple
