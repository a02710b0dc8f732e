"""Reads, checks and tokenises the rows of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbench.data.values import Rows
from llmbench.recipe import DataSource, DataSpec, TokenizerSpec

__all__ = ["load", "rows"]


def load(
    spec: DataSpec,
    tokenizer: Any,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    folder: Path | None = None,
    added: TokenizerSpec | None = None,
    stops: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Reads, checks and tokenises the rows of a recipe, or takes them from the cache.

    Args:
        spec: the recipe's `data` section.
        tokenizer: a fast tokenizer of transformers, or a function without arguments that loads it, which is called only when
            the cache does not have the rows.
        seed: draws the rows held out by `eval_fraction` and the rows mixed by `weight`.
        chat_template: takes the place of the recipe's and the tokenizer's own.
        folder: where the tokenizer was loaded from: it is then known by its files, without loading it.
        added: the recipe's `tokenizer` section: what the tokenizer has beyond the folder's. A row's words may hold these.
        stops: the tokens at which the model stops by itself, as its generation_config.json names them.
        progress: called with the number of rows tokenised since the last call.

    Raises:
        DataError: a source without rows or of unknown format, a row that cannot be used, rows that are too long while
            `over_length` is `error`, or a chat template that does not show what the assistant said.
    """
    from llmbench.data.parts import Parts

    parts = Parts(spec, tokenizer, seed, chat_template, folder, added, tuple(stops), progress)
    if spec.eval:
        [train], [held_out] = parts.part(spec.train), parts.part(spec.eval)
        return Rows(*train, *held_out)
    return Rows(*(value for part in parts.part(spec.train, spec.eval_fraction) for value in part))


def rows(source: DataSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a source as it stands there: its place (`file:line`) and its columns, renamed as the source says.

    Raises:
        DataError: the source cannot be read, or the first row that is broken.
    """
    from llmbench.data.sources import rows as found

    return found(source)
