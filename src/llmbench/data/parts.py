"""One part (train, eval) of a recipe's data at a time: from the cache, or prepared and put there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset  # type: ignore[import-untyped]

from llmbench import workspace
from llmbench.data.cache import Hashes, grown, kept, key, tokenizer_hash
from llmbench.data.sources import chosen, title
from llmbench.data.values import Report
from llmbench.recipe import DataSource, DataSpec, TokenizerSpec

__all__ = ["Parts"]

Part = tuple[Dataset, Report]


class Parts:
    """The parts of one `data.load`."""

    def __init__(
        self,
        spec: DataSpec,
        tokenizer: Any,
        seed: int,
        template: str | None,
        folder: Path | None,
        added: TokenizerSpec | None,
        stops: tuple[int, ...],
        progress: Callable[[int], None] | None,
    ) -> None:
        self.spec, self.seed, self.template, self.progress = spec, seed, template, progress
        self._tokenizer = tokenizer
        files = tokenizer_hash(folder) if folder is not None else _hash_of(self.tokenizer())
        self.stops, self.own = stops, tuple(added.add_tokens) if added is not None else ()
        self.hash = grown(files, added, stops)
        self.hashes = Hashes(workspace.cache())

    def tokenizer(self) -> Any:
        """The tokenizer, loaded when it is first needed."""
        if not hasattr(self._tokenizer, "backend_tokenizer"):
            self._tokenizer = self._tokenizer()
        return self._tokenizer

    def part(self, sources: list[DataSource], fraction: float = 0.0) -> list[Part]:
        """The rows of some sources; with a fraction, the rows held out besides."""
        name = key(self.spec, sources, self.hash, self.template, fraction, self.seed, self.hashes)
        made = False

        def make(folder: Path) -> list[Report]:
            nonlocal made
            made = True
            return self._make(folder, sources, fraction)

        with kept(name, make, self.hashes) as (folder, reports):
            if not made and self.progress is not None:
                self.progress(reports[0].rows_in)
            files = ("rows.arrow", "held_out.arrow")[: len(reports)]
            return [(Dataset.from_file(str(folder / file)), report) for file, report in zip(files, reports, strict=True)]

    def _make(self, folder: Path, sources: list[DataSource], fraction: float) -> list[Report]:
        """Prepares rows.arrow, and held_out.arrow where a fraction is held out."""
        from llmbench.data.draw import draw
        from llmbench.data.prepare import prepare

        drawn = bool(fraction) or sources[0].weight is not None
        path = folder / ("all.arrow" if drawn else "rows.arrow")
        report = prepare(
            self.spec,
            sources,
            self.tokenizer(),
            path,
            chat_template=self.template,
            stops=self.stops,
            own=self.own,
            progress=self.progress,
        )
        notes = tuple(f"{title(source)}: {note}" for source in sources for note in chosen(source).notes)
        report = replace(report, notes=report.notes + notes)
        if not drawn:
            return [report]
        kept_, held_out = draw(path, report, sources, [title(source) for source in sources], fraction, self.seed)
        path.unlink()
        return [kept_] if held_out is None else [kept_, held_out]


def _hash_of(tokenizer: Any) -> str:
    """A tokenizer by its content, where it has no folder."""
    text = f"{tokenizer.backend_tokenizer.to_str()}\n{tokenizer.chat_template}\n{tokenizer.special_tokens_map}"
    return hashlib.sha256(text.encode()).hexdigest()
