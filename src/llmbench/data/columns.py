"""The rows of one part as flat arrays, for figures without a Python object per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["ROLES", "Columns", "columns"]

IGNORED = -100
ROLES = ("template", "system", "user", "assistant", "tool", "prompt")
"""Names of the numbers in the column `roles`; the last is everything before a judged answer, whoever wrote it."""


@dataclass(frozen=True)
class Columns:
    """`ids`, `trained` and `roles` of all rows one after another; row i has those from `starts[i]` to `starts[i + 1]`."""

    ids: np.ndarray
    trained: np.ndarray
    """Whether a token is learned; the first of a row never is, as nothing stands before it."""
    roles: np.ndarray
    starts: np.ndarray
    source: np.ndarray
    row: np.ndarray
    """Line or row number in the file."""
    sides: tuple[str, ...] = ()
    """Of pairs, what the answers of each row are, in turn: chosen, rejected."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.starts)

    def first(self, rows: int) -> Columns:
        """The first of the rows."""
        end = self.starts[rows]
        flat = (self.ids[:end], self.trained[:end], self.roles[:end])
        ends = (self.starts[: rows + 1], self.source[:rows], self.row[:rows])
        return self if rows == len(self) else Columns(*flat, *ends, self.sides)

    def per_row(self, flags: np.ndarray) -> np.ndarray:
        """How many of a row's tokens have a flag."""
        sums = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
        counted: np.ndarray = sums[self.starts[1:]] - sums[self.starts[:-1]]
        return counted

    def samples_of_rows(self) -> list[list[int]]:
        """The samples of each row of a file: one an answer, the pieces of a long text, or the same one many times."""
        found: dict[tuple[int, int], list[int]] = {}
        for sample, origin in enumerate(zip(self.source.tolist(), self.row.tolist(), strict=True)):
            found.setdefault(origin, []).append(sample)
        return list(found.values())

    def prompt_ends(self) -> np.ndarray:
        """Where each row's first learned token stands (its end, where none is)."""
        at = np.flatnonzero(self.trained)
        first = np.append(at, len(self.ids))[np.searchsorted(at, self.starts[:-1])]
        ends: np.ndarray = np.minimum(first, self.starts[1:])
        return ends


def columns(dataset: Dataset) -> Columns:
    """The arrays of a prepared dataset: conversations, or prompts with judged answers, each answer a row of its own."""
    if "input_ids" not in dataset.column_names:
        return _judged(dataset)
    ids, starts = _flat(dataset, "input_ids")
    labels, _ = _flat(dataset, "labels")
    roles, _ = _flat(dataset, "roles")
    trained = labels != IGNORED
    trained[starts[:-1][starts[:-1] < len(trained)]] = False
    source, row = (_column(dataset, name).to_numpy(zero_copy_only=False) for name in ("source", "row"))
    return Columns(ids, trained, roles, starts, source, row)


def _judged(dataset: Dataset) -> Columns:
    """Rows of `chosen_ids` and `rejected_ids`, or of `completion_ids`, behind `prompt_ids` where those are apart; or those."""
    names = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in dataset.column_names]
    answers = [_rows(dataset, name) for name in names]
    prompts = _rows(dataset, "prompt_ids") if "prompt_ids" in dataset.column_names else _shared(*answers)
    whole = "prompt_ids" not in dataset.column_names
    ids, roles = [], []
    for i, prompt in enumerate(prompts):
        for answer in [side[i][len(prompt) if whole else 0 :] for side in answers] or [prompt[:0]]:
            ids += [prompt, answer]
            roles.append(
                np.repeat(np.asarray([ROLES.index("prompt"), ROLES.index("assistant")], np.int8), [len(prompt), len(answer)])
            )
    lengths = np.asarray([len(role) for role in roles], dtype=np.int64)
    known = "source" in dataset.column_names
    source, row = (
        np.repeat(_column(dataset, name).to_numpy(zero_copy_only=False), len(names) or 1) if known else np.full(len(roles), -1)
        for name in ("source", "row")
    )
    flat = np.concatenate(roles)
    return Columns(
        np.concatenate(ids).astype(np.int32),
        flat == ROLES.index("assistant"),
        flat,
        np.concatenate([[0], np.cumsum(lengths)]),
        source,
        row if known else np.repeat(np.arange(len(prompts)), len(names) or 1),
        tuple(name.removesuffix("_ids") for name in names) if len(names) > 1 else (),
    )


def _shared(first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
    """What both sequences of a row begin with."""
    found = []
    for a, b in zip(first, second, strict=True):
        size = min(len(a), len(b))
        differ = np.flatnonzero(a[:size] != b[:size])
        found.append(a[: differ[0] if len(differ) else size])
    return found


def _rows(dataset: Dataset, name: str) -> list[np.ndarray]:
    flat, starts = _flat(dataset, name)
    return np.split(flat, starts[1:-1])


def _column(dataset: Dataset, name: str) -> Any:
    import pyarrow as pa

    found = dataset.with_format("arrow")[name][:]
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _flat(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.compute as pc

    lists = _column(dataset, name)
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pc.list_flatten(lists).to_numpy(zero_copy_only=False), starts
