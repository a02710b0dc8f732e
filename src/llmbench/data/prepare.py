"""Rows -> an Arrow file of tokens: read, rendered, tokenised and written in batches, so that memory stays bounded.

While one batch is tokenised here, the next is rendered in the template's process.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llmbench.data.files import Fault
from llmbench.data.formats import Chat, Text, Tokens
from llmbench.data.items import BATCH, Item, batches
from llmbench.data.template import Renderer
from llmbench.data.tokens import IGNORED, Sample, Tokenizer
from llmbench.data.values import Report, Skipped
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

__all__ = ["SCHEMA", "prepare"]

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "roles": pa.list_(pa.int8()),
        "source": pa.int16(),
        "row": pa.int64(),
    }
)
_TOKENS = 1_000_000
"""About how many tokens a record batch has at most."""

TOO_LONG = "longer than max_length"
NOTHING = "nothing to train within max_length"


@dataclass
class Count:
    """What became of the rows so far."""

    rows_in: int = 0
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    dropped: int = 0
    truncated: int = 0
    unstopped: int = 0
    double_bos: int = 0
    split: int = 0
    control: int = 0
    unprompted: int = 0
    merged: int = 0
    too_long: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"))
    skipped: list[Skipped] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    inner: set[int] = field(default_factory=set)


def prepare(
    spec: DataSpec,
    sources: list[DataSource],
    tokenizer: Any,
    path: Path,
    *,
    chat_template: str | None = None,
    stops: Sequence[int] = (),
    own: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Tokenises the rows of some sources into an Arrow stream at `path`, with the columns of SCHEMA.

    `stops` are the tokens at which the model stops by itself, `own` those that the recipe added to the tokenizer.

    Raises:
        DataError: see `llmbench.data.load`.
    """
    part = _Part(spec, sources, Tokenizer(tokenizer, stops, own), chat_template)
    with ExitStack() as stack:
        part.writer = stack.enter_context(_Writer(path))
        part.stack = stack
        ahead: list[Item] | None = None
        for batch in _ended(batches(spec, sources)):
            answers = part.receive() if ahead else []
            part.send(batch)
            part.count.rows_in += len(batch)
            if ahead:
                part.finish(ahead, answers)
                if progress is not None:
                    progress(len(ahead))
            ahead = batch
    return part.report()


def _ended(found: Iterator[list[Item]]) -> Iterator[list[Item]]:
    """The batches, and an empty one behind them."""
    yield from found
    yield []


class _Part:
    """The preparation of one part (train or eval)."""

    writer: _Writer
    stack: ExitStack

    def __init__(self, spec: DataSpec, sources: list[DataSource], tokenizer: Tokenizer, template: str | None) -> None:
        self.spec, self.sources, self.tokenizer, self.override = spec, sources, tokenizer, template
        self.count = Count()
        self.bos = tokenizer.tokenizer.bos_token_id
        self.renderer: Renderer | None = None

    def send(self, batch: list[Item]) -> None:
        """Has the conversations of a batch rendered."""
        chats = [item.holds for item in batch if isinstance(item.holds, Chat)]
        if chats and self.renderer is None:
            spec = self.spec
            template = self.tokenizer.template(self.override or spec.template(), spec.chat_template_kwargs, spec.train_on)
            self.renderer = self.stack.enter_context(Renderer(template))
        if self.renderer is not None:
            self.renderer.send(chats)

    def receive(self) -> list[dict[str, Any]]:
        """The rendered conversations of the batch that was sent last."""
        return list(self.renderer.receive()) if self.renderer is not None else []

    def finish(self, batch: list[Item], answers: list[dict[str, Any]]) -> None:
        """Tokenises a batch and writes it, in its order."""
        rendered = iter(answers)
        texts = self.tokenizer.texts([item.holds for item in batch if isinstance(item.holds, Text)])
        ready = iter(texts)
        known = [answer for answer in answers if "samples" in answer]
        chats = iter(self.tokenizer.chats([sample for answer in known for sample in answer["samples"]]))
        for item in batch:
            match item.holds:
                case Fault(reason, detail):
                    self.count.skipped.append(Skipped(item.place, reason, detail))
                case Chat():
                    answer = next(rendered)
                    if "samples" not in answer:
                        self._refused(item, answer["reason"], answer["detail"])
                        continue
                    self._chat(item, answer, [next(chats) for _ in answer["samples"]])
                case Text(text):
                    self.count.control += self.tokenizer.in_words(text)
                    self._document(item, next(ready))
                case Tokens():
                    try:
                        self._sample(item, self.tokenizer.tokens(item.holds))
                    except ValueError as error:
                        self._refused(item, "an unknown token", str(error))

    def _refused(self, item: Item, reason: str, detail: str) -> None:
        """A row that cannot be used after all.

        Raises:
            DataError: unless such rows are to be skipped.
        """
        if self.spec.bad_rows == "error":
            raise DataError(f"{item.place}: {detail}. Correct it, or set data.bad_rows=skip to skip such rows.")
        self.count.skipped.append(Skipped(item.place, reason, detail))

    def _chat(self, item: Item, answer: dict[str, Any], samples: list[Sample]) -> None:
        if not all(sample.learned[1:].any() for sample in samples):
            detail = "the chat template renders no assistant token to train in this row"
            return self._refused(item, "the chat template renders nothing to train", detail)
        self.count.control += answer["control"]
        self.count.split += len(samples) > 1
        self.count.unprompted += sum(sample["unprompted"] for sample in answer["samples"])
        for sample in samples:
            self.count.merged += sample.merged
            self.count.unstopped += sample.unstopped
            if self.spec.train_on != "all":
                self.count.inner |= sample.inner
            for end in sample.ends:
                self.count.ends[end] = self.count.ends.get(end, 0) + 1
            self._sample(item, sample)
        return None

    def _document(self, item: Item, sample: Sample) -> None:
        """A document, in pieces of `max_length` where the recipe says so."""
        length = self.spec.max_length
        if self.spec.over_length != "split" or len(sample.ids) <= length:
            return self._sample(item, sample)
        self.count.lengths.append(len(sample.ids))
        self.count.split += 1
        for start in range(0, len(sample.ids), length):
            ids = sample.ids[start : start + length]
            if len(ids) > 1:
                self._write(item, Sample(ids, np.ones(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int8)))
        return None

    def _sample(self, item: Item, sample: Sample) -> None:
        """Counts a sample, cuts or drops it as the recipe says, and writes it."""
        count, spec, length = self.count, self.spec, len(sample.ids)
        count.lengths.append(length)
        if not sample.learned[1:].any():
            return self._refused(item, "nothing to train", "no token of this row is trained")
        if length > spec.max_length:
            count.too_long += 1
            if spec.over_length in ("error", "split"):
                return None
            cut = slice(0, spec.max_length)
            labels = None if sample.labels is None else sample.labels[cut]
            sample = Sample(sample.ids[cut], sample.learned[cut], sample.roles[cut], labels)
            if spec.over_length == "drop" or not sample.learned[1:].any():
                count.dropped += 1
                reason = TOO_LONG if spec.over_length == "drop" else NOTHING
                count.skipped.append(Skipped(item.place, reason, f"{length:,} tokens"))
                return None
            count.truncated += 1
        self._write(item, sample)
        return None

    def _write(self, item: Item, sample: Sample) -> None:
        count, ids = self.count, sample.ids
        labels = np.where(sample.learned, ids if sample.labels is None else sample.labels, np.int32(IGNORED))
        count.rows += 1
        count.tokens += len(ids)
        count.trained_tokens += int((labels[1:] != IGNORED).sum())
        count.longest = max(count.longest, len(ids))
        count.double_bos += self.bos is not None and len(ids) > 1 and bool((ids[:2] == self.bos).all())
        self.writer.add(ids, labels, sample.roles, item.source, item.number)

    def report(self) -> Report:
        """What became of the rows.

        Raises:
            DataError: some are too long while `over_length` is `error`, or none is left.
        """
        count, spec = self.count, self.spec
        lengths = np.asarray(count.lengths, dtype=np.int32)
        if count.too_long and spec.over_length in ("error", "split"):
            raise DataError(_too_long(spec, lengths, count.too_long))
        if not count.rows:
            if count.dropped:
                raise DataError(f"data.max_length: no row fits into {spec.max_length:,} tokens. Raise it.")
            first = count.skipped[0]
            raise DataError(f"{first.place}: {first.detail}. None of the {count.rows_in:,} rows can be used.")
        return Report(
            rows_in=count.rows_in,
            rows=count.rows,
            tokens=count.tokens,
            trained_tokens=count.trained_tokens,
            longest=count.longest,
            dropped=count.dropped,
            truncated=count.truncated,
            unstopped=count.unstopped,
            double_bos=count.double_bos,
            split=count.split,
            control=count.control,
            unprompted=count.unprompted,
            merged=count.merged,
            turn_ends=tuple(sorted(count.ends.keys() - count.inner, key=lambda end: -count.ends[end])),
            skipped=tuple(count.skipped),
            length_before=lengths,
        )


def _too_long(spec: DataSpec, lengths: np.ndarray, count: int) -> str:
    longest = int(lengths.max())
    most = int(np.sort(lengths)[min(int(np.ceil(len(lengths) * 0.999)), len(lengths)) - 1])
    fits = f" ({most:,} would fit 99.9 % of them)" if most < longest else ""
    choose = "or data.over_length to drop or truncate (raw text also to split)."
    if spec.over_length == "split":
        choose = "or data.over_length to drop or truncate; split cuts raw text only."
    return (
        f"data.max_length: {count:,} of {len(lengths):,} rows are longer than {spec.max_length:,} tokens (the longest has "
        f"{longest:,}). Set data.max_length={longest}{fits}, {choose}"
    )


class _Writer:
    """An Arrow stream on disk, one record batch at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clear()

    def __enter__(self) -> _Writer:
        self._file = pa.OSFile(str(self.path), "wb")
        self._stream = pa.ipc.new_stream(self._file, SCHEMA)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._stream.close()
        self._file.close()

    def add(self, ids: np.ndarray, labels: np.ndarray, roles: np.ndarray, source: int, row: int) -> None:
        """Adds one row."""
        for values, value in zip(self._lists, (ids, labels, roles), strict=True):
            values.append(value)
        self._source.append(source)
        self._row.append(row)
        self._size += len(ids)
        if self._size > _TOKENS or len(self._row) >= 2 * BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._row:
            return
        ends = np.zeros(len(self._row) + 1, dtype=np.int32)
        np.cumsum([len(ids) for ids in self._lists[0]], out=ends[1:])
        lists = [pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(values))) for values in self._lists]
        numbers = [pa.array(self._source, pa.int16()), pa.array(self._row, pa.int64())]
        self._stream.write_batch(pa.record_batch([*lists, *numbers], schema=SCHEMA))
        self._clear()

    def _clear(self) -> None:
        self._lists: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
        self._source: list[int] = []
        self._row: list[int] = []
        self._size = 0
