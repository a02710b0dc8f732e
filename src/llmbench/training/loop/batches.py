"""Which rows stand in which batch, and how a batch becomes tensors. Everything follows from the recipe and the seed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from random import Random
from typing import Any

import torch
from torch.utils.data import Sampler

from llmbench.recipe import TrainRecipe
from llmbench.training.distributed.ranks import ALONE, Ranks

__all__ = ["Batches", "Collator", "Dealt", "lengths", "packed"]

_WINDOW = 4096


class Batches(Sampler[list[int]]):
    """Batches of row numbers, the same for the same seed and epoch, so that a resumed run sees what it would have seen.

    With `max_tokens_per_batch` a batch takes rows while (rows x padded length) stays within it. Shuffled rows are then
    grouped with others of about their length, which saves padding; rows in file order stay in file order.

    Several processes are dealt the batches of one: each step has the rows that it has with one process. Where a step's
    batches do not go round, an empty one takes a turn, so that all processes take as many.
    """

    def __init__(self, lengths: Sequence[int], recipe: TrainRecipe, *, train: bool = True, ranks: Ranks = ALONE) -> None:
        spec = recipe.training
        self.lengths = lengths
        self.multiple = spec.pad_to_multiple_of or 1
        self.rows = spec.per_device_train_batch_size if train else spec.per_device_eval_batch_size
        self.budget = spec.max_tokens_per_batch
        self.seed = spec.seed
        self.shuffle = train and recipe.data.shuffle
        self.epoch = 0
        self.batch_size = None
        self.ranks = ranks
        self.a_step = spec.gradient_accumulation_steps if train else ranks.world
        order = list(range(len(lengths)))
        if self.shuffle:
            Random(f"rows {self.seed}").shuffle(order)
        if self.budget is not None and (self.shuffle or not train):
            windows = [order[i : i + _WINDOW] for i in range(0, len(order), _WINDOW)]
            order = [row for window in windows for row in sorted(window, key=lambda row: lengths[row])]
        self.order = order
        self.grouped = self.budget is not None
        self.bin = recipe.data.max_length if spec.packing and train else None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(_dealt(self._batches(), self.a_step, self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        if self.shuffle and self.grouped:
            Random(f"batches {self.seed} {self.epoch}").shuffle(batches)
        return iter(_dealt(batches, self.a_step, self.ranks))

    def _batches(self) -> list[list[int]]:
        order = self.order
        if self.budget is None:
            if self.shuffle:
                order = list(order)
                Random(f"epoch {self.seed} {self.epoch}").shuffle(order)
            if self.bin is not None:
                return self._packed(order, self.bin)
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

    def _packed(self, order: list[int], size: int) -> list[list[int]]:
        """Batches of `rows` bins each, the bins in an order of the epoch's own."""
        bins: list[list[int]] = []
        for start in range(0, len(order), _WINDOW):
            window = order[start : start + _WINDOW]
            bins += [[window[i] for i in found] for found in packed([self.lengths[row] for row in window], size)]
        if self.shuffle:
            Random(f"bins {self.seed} {self.epoch}").shuffle(bins)
        return [list(chain.from_iterable(bins[i : i + self.rows])) for i in range(0, len(bins), self.rows)]


class Dealt(Sampler[list[int]]):
    """A process's share of the batches that another sampler draws, dealt as those of `Batches` are."""

    def __init__(self, whole: Any, a_step: int, ranks: Ranks) -> None:
        """As above.

        Args:
            whole: a BatchSampler, the same in each process.
            a_step: its batches of a step.
            ranks: this process.
        """
        self.whole, self.a_step, self.ranks = whole, a_step, ranks
        self.batch_size = None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        if hasattr(self.whole.sampler, "set_epoch"):
            self.whole.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(_dealt([[]] * len(self.whole), self.a_step, self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(_dealt([list(batch) for batch in self.whole], self.a_step, self.ranks))


def _dealt(batches: list[list[int]], a_step: int, ranks: Ranks) -> list[list[int]]:
    """A process's share of each step's batches; empty ones stand in where these do not go round."""
    if ranks.alone:
        return batches
    steps = (batches[start : start + a_step] for start in range(0, len(batches), a_step))
    padded_steps = (step + [[]] * (-len(step) % ranks.world) for step in steps)
    return [batch for step in padded_steps for batch in step[ranks.rank :: ranks.world]]


def packed(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Best-fit-decreasing bin packing: the longest first, each into the fullest bin that still has room.

    Args:
        lengths: of the rows, in tokens.
        size: what a bin holds, in tokens; a longer row has a bin to itself.

    Returns:
        Row numbers of each bin, in the order of the first (longest) row in it.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), ascending
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        at = bisect_left(room, (lengths[row], 0))
        if at == len(room):
            bins.append([row])
            left, number = size - lengths[row], len(bins) - 1
        else:
            left, number = room.pop(at)
            bins[number].append(row)
            left -= lengths[row]
        if left > 0:
            insort(room, (left, number))
    return bins


class Collator:
    """Rows -> `input_ids`, `labels` (-100 where nothing is learned) and `attention_mask`, padded on the right; or end to end.

    Padding-free, all rows stand in one of shape (1, tokens): `position_ids` begin anew in each, `cu_seq_lens_q` says where
    each ends, and attention stays within them (see `segments`).
    """

    def __init__(self, recipe: TrainRecipe, pad_token_id: int) -> None:
        spec = recipe.training
        self.pad = pad_token_id
        self.multiple = spec.pad_to_multiple_of or 1
        self.end_to_end = spec.padding_free

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes one batch of shape (rows, padded length), or (1, tokens)."""
        if not examples:
            return self._nothing()
        if self.end_to_end:
            return _joined(examples)
        length = padded(max(len(example["input_ids"]) for example in examples), self.multiple)
        rows = len(examples)
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

    def _nothing(self) -> dict[str, Any]:
        """A turn without rows: two tokens from which nothing is learned, and which are not counted."""
        row = {"input_ids": [self.pad, self.pad], "labels": [-100, -100]}
        batch = _joined([row]) if self.end_to_end else {name: torch.tensor([values]) for name, values in row.items()}
        return batch | {"attention_mask": torch.zeros((1, 2), dtype=torch.long)}


def _joined(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows end to end. The first token of each is never learned: what stands before it is another row."""
    lengths = [len(example["input_ids"]) for example in examples]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    ids = torch.cat([torch.as_tensor(example["input_ids"], dtype=torch.long) for example in examples])
    labels = torch.cat([torch.as_tensor(example["labels"], dtype=torch.long) for example in examples])
    labels[ends[:-1].long()] = -100
    return {
        "input_ids": ids[None],
        "labels": labels[None],
        "attention_mask": torch.ones_like(ids)[None],  # for counting tokens; attention goes by the ends
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def padded(length: int, multiple: int) -> int:
    """The length after padding to a multiple."""
    return -(-length // multiple) * multiple


def lengths(dataset: Any) -> list[int]:
    """Tokens of each row."""
    import pyarrow.compute as pc

    found: list[int] = pc.list_value_length(dataset.with_format("arrow")["input_ids"][:]).to_pylist()
    return found
