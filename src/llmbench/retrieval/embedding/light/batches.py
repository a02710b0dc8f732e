"""Texts of like length together, each batch filled by tokens rather than by rows, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["BLOCK", "blocks", "by_length"]

BLOCK = 1024
"""Texts tokenized at once, one block ahead of the computing: bounds memory, and is enough for batches of like length."""


def blocks(sizes: Sequence[int], most: int = BLOCK) -> Iterator[list[int]]:
    """Indices in blocks, largest size first: what does not fit into memory fails at once, and the last batches are short."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    for start in range(0, len(order), most):
        yield order[start : start + most]


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of indices, longest first; rows times the longest row is at most `budget`, or the batch is one row."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
