"""One vector from the vectors of a text's tokens, as sentence-transformers' Pooling does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["pool"]


def pool(hidden: NDArray[np.float32], lengths: Sequence[int], method: str) -> NDArray[np.float32]:
    """Hidden states (rows, length, width) and each row's tokens -> (rows, width). Padding stands at the end of a row.

    Args:
        hidden: the encoder's last layer.
        lengths: how many tokens of each row are its own.
        method: `cls`, `mean`, `max` or `lasttoken`.
    """
    import numpy as np

    rows: list[NDArray[np.float32]] = [row[:n] for row, n in zip(hidden, lengths, strict=True)]
    match method:
        case "cls":
            return np.stack([row[0] for row in rows])
        case "lasttoken":
            return np.stack([row[-1] for row in rows])
        case "max":
            return np.stack([row.max(axis=0) for row in rows])
        case "mean":
            return np.stack([row.mean(axis=0) for row in rows])
    raise AssertionError(method)
