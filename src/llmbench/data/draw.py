"""A second pass over prepared rows: which are held out, and how often each is taken when sources are mixed by weight.

Samples of one row (a conversation of several) stay together. What is drawn follows from the seed and the counts alone.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from llmbench.data.prepare import SCHEMA
from llmbench.data.values import Report
from llmbench.errors import DataError
from llmbench.recipe import DataSource

__all__ = ["draw"]


def draw(
    path: Path, report: Report, sources: list[DataSource], names: list[str], fraction: float, seed: int
) -> tuple[Report, Report | None]:
    """Writes rows.arrow and, with a fraction, held_out.arrow beside `path`; the reports of both.

    Raises:
        DataError: the fraction holds out nothing, or everything.
    """
    table = _mapped(path)
    source = table["source"].to_numpy()
    row = table["row"].to_numpy()
    starts = np.flatnonzero(np.r_[True, (source[1:] != source[:-1]) | (row[1:] != row[:-1])])
    of_row = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(row)]))
    held_out = np.zeros(len(starts), dtype=bool)
    if fraction:
        count = round(len(starts) * fraction)
        if not 0 < count < len(starts):
            raise DataError(
                f"data.eval_fraction: {fraction} of {len(starts)} rows leaves {count} for evaluation. Change it, or set it "
                f"to 0."
            )
        held_out[Random(f"held out {seed}").sample(range(len(starts)), count)] = True
    times = np.where(held_out, 0, 1)
    notes: list[str] = []
    if sources[0].weight is not None:
        weights = [source.weight or 0.0 for source in sources]
        notes = _mix(times, source[starts], weights, names, seed)
    kept = _written(table, times[of_row], path.with_name("rows.arrow"), report)
    kept = _with(kept, notes=report.notes + tuple(notes))
    if not fraction:
        return kept, None
    apart = _written(table, held_out[of_row].astype(np.int64), path.with_name("held_out.arrow"), report)
    return kept, _with(
        apart, rows_in=apart.rows, dropped=0, truncated=0, unstopped=0, skipped=(), split=0, control=0, unprompted=0, merged=0
    )


def _mix(times: np.ndarray, source: np.ndarray, weights: list[float], names: list[str], seed: int) -> list[str]:
    """Sets how often each row is taken, so that each source has its share of as many rows as there are; says how often."""
    total, notes = int(times.sum()), []
    for index, weight in enumerate(weights):
        rows = np.flatnonzero((source == index) & (times > 0))
        if not len(rows):
            continue
        wanted = max(round(total * weight / sum(weights)), 1)
        whole, rest = divmod(wanted, len(rows))
        times[rows] = whole
        times[rows[Random(f"mixed {seed} {index}").sample(range(len(rows)), rest)]] += 1
        share = f"{weight / sum(weights):.0%} of the rows: {wanted:,}"
        if wanted >= len(rows):
            notes.append(f"{names[index]}: {share}, each of its {len(rows):,} is used {wanted / len(rows):.2f} times")
        else:
            notes.append(f"{names[index]}: {share} of its {len(rows):,}, the rest are left out")
    return notes


def _written(table: Any, times: np.ndarray, path: Path, report: Report) -> Report:
    """Writes each row as often as `times` says, a record batch at a time, and counts."""
    import pyarrow.compute as pc

    rows = tokens = trained = longest = start = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
        for batch in table.to_batches():
            here = np.repeat(np.arange(batch.num_rows), times[start : start + batch.num_rows])
            start += batch.num_rows
            if not len(here):
                continue
            taken = batch.take(pa.array(here))
            stream.write_batch(taken)
            lengths = pc.list_value_length(taken["input_ids"]).to_numpy(zero_copy_only=False)
            labels = taken["labels"].flatten().to_numpy()
            first = np.r_[0, np.cumsum(lengths)[:-1]]
            rows += len(here)
            tokens += int(lengths.sum())
            trained += int((labels != -100).sum()) - int((labels[first[lengths > 0]] != -100).sum())
            longest = max(longest, int(lengths.max()))
    return _with(report, rows=rows, tokens=tokens, trained_tokens=trained, longest=longest)


def _mapped(path: Path) -> Any:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_stream(file).read_all()


def _with(report: Report, **values: Any) -> Report:
    from dataclasses import replace

    return replace(report, **values)
