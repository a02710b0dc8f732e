"""Conversations -> token ids and labels. A label is the token itself where the assistant speaks, else -100.

What the assistant said is known from the chat template's `{% generation %}` markers. For a template without them it is
the difference between the text before the turn (with the generation prompt) and the text after it, checked in every row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbench.data import Report
from llmbench.data.files import Conversation
from llmbench.errors import DataError
from llmbench.recipe import DataSpec

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["encode", "masked"]

IGNORED = -100
_BATCH = 1000
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_END = re.compile(r"end|eot|eos|</", re.IGNORECASE)

Spans = list[tuple[int, int]]


def encode(
    conversations: Sequence[Conversation],
    places: Sequence[str],
    tokenizer: Any,
    spec: DataSpec,
    *,
    chat_template: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Dataset, Report]:
    """Tokenises conversations.

    Returns:
        A dataset with the columns `input_ids` and `labels` (lists of int32), and the count of what became of the rows.

    Raises:
        DataError: see `llmbench.data.load`.
    """
    template = chat_template or tokenizer.chat_template
    if not template:
        raise DataError("The model's tokenizer has no chat template, so turns cannot be written. Choose a chat model.")
    stops = _stops(tokenizer)
    ids: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    long: list[int] = []
    dropped = truncated = unstopped = 0
    for start in range(0, len(conversations), _BATCH):
        chunk, where = conversations[start : start + _BATCH], places[start : start + _BATCH]
        for place, (row, said) in zip(where, masked(chunk, where, tokenizer, template), strict=True):
            if not said[1:].any():
                raise DataError(f"{place}: the chat template leaves no token of the assistant's to learn in this row.")
            ends = np.flatnonzero(said & ~np.append(said[1:], False))
            unstopped += sum(int(token) not in stops for token in row[ends])
            if len(row) > spec.max_length:
                long.append(len(row))
                row, said = row[: spec.max_length], said[: spec.max_length]
                if spec.over_length == "error":
                    continue
                if spec.over_length == "drop" or not said[1:].any():
                    dropped += 1
                    continue
                truncated += 1
            ids.append(row)
            labels.append(np.where(said, row, np.int32(IGNORED)))
        if progress is not None:
            progress(len(chunk))
    if long and spec.over_length == "error":
        raise DataError(
            f"data.max_length: {len(long):,} of {len(conversations):,} rows are longer than {spec.max_length:,} tokens "
            f"(the longest has {max(long):,}). Set data.max_length={max(long)}, or data.over_length to drop or truncate."
        )
    if not ids:
        raise DataError(f"data.max_length: no row is left within {spec.max_length:,} tokens. Raise it.")
    report = Report(
        rows=len(ids),
        tokens=sum(map(len, ids)),
        trained_tokens=int(sum((row[1:] != IGNORED).sum() for row in labels)),
        longest=max(map(len, ids)),
        dropped=dropped,
        truncated=truncated,
        unstopped=unstopped,
    )
    return _dataset(ids, labels), report


def masked(
    conversations: Sequence[Conversation], places: Sequence[str], tokenizer: Any, template: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each conversation's token ids (int32) and which of them are the assistant's (bool).

    Raises:
        DataError: the template refuses a row, or does not show what the assistant said.
    """
    from jinja2 import TemplateError

    try:
        if _MARKER.search(template):
            out = tokenizer.apply_chat_template(
                list(conversations), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
            )
            for row, mask in zip(out["input_ids"], out["assistant_masks"], strict=True):
                yield np.asarray(row, dtype=np.int32), np.asarray(mask, dtype=bool)
            return
        texts, spans = [], []
        for turns, place in zip(conversations, places, strict=True):
            text, found = _by_prefix(turns, place, tokenizer, template)
            texts.append(text)
            spans.append(found)
        for encoding, found in zip(tokenizer(texts, add_special_tokens=False).encodings, spans, strict=True):
            said = np.zeros(len(encoding.ids), dtype=bool)
            for first, end in _token_spans(encoding, found):
                said[first:end] = True
            yield np.asarray(encoding.ids, dtype=np.int32), said
    except TemplateError as error:
        place = places[0] if len(places) == 1 else _refused(conversations, places, tokenizer, template)
        raise DataError(f"{place}: the model's chat template refuses this row: {error}") from error


def _refused(conversations: Sequence[Conversation], places: Sequence[str], tokenizer: Any, template: str) -> str:
    """The place of the first row that the template refuses."""
    from jinja2 import TemplateError

    for turns, place in zip(conversations, places, strict=True):
        try:
            tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
        except TemplateError:
            return place
    return f"{places[0]} to {places[-1]}"


def _by_prefix(turns: Conversation, place: str, tokenizer: Any, template: str) -> tuple[str, Spans]:
    """The text of a template without markers and the assistant's spans: what each of its turns adds to the text before."""

    def write(part: Conversation, prompt: bool = False) -> str:
        return str(tokenizer.apply_chat_template(part, chat_template=template, tokenize=False, add_generation_prompt=prompt))

    text, stop = write(turns), tokenizer.eos_token
    spans = []
    for i, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before, through = write(turns[:i], prompt=True), write(turns[: i + 1])
        added = through[len(before) :]
        if not (text.startswith(through) and through.startswith(before) and turn["content"].strip() in added):
            raise DataError(
                f"{place}: the chat template has no {{% generation %}} markers and rewrites earlier turns, so the assistant's "
                f"tokens cannot be told (turn {i + 1}). Use a template with markers, or rows of one assistant turn."
            )
        end = added.rfind(stop) + len(stop) if stop and stop in added else len(added)
        spans.append((len(before), len(before) + end))
    return text, spans


def _token_spans(encoding: Any, spans: Spans) -> Spans:
    """Character spans as token spans; characters that belong to no token (stripped space) are passed over."""
    result = []
    for start, end in spans:
        first = last = None
        while start < end and first is None:
            first = encoding.char_to_token(start)
            start += first is None
        while start < end and last is None:
            last = encoding.char_to_token(end - 1)
            end -= last is None
        if first is not None and last is not None:
            result.append((first, last + 1))
    return result


def _stops(tokenizer: Any) -> set[int]:
    """The tokens that end a turn: the tokenizer's end of text, and every special token that is named as an end."""
    named = {number for number, token in tokenizer.added_tokens_decoder.items() if _END.search(str(token))}
    return named if tokenizer.eos_token_id is None else named | {tokenizer.eos_token_id}


def _dataset(ids: list[np.ndarray], labels: list[np.ndarray]) -> Dataset:
    """Two columns of int32 lists, without a Python object per token."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import Dataset

    ends = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=ends[1:])
    column = {
        name: pa.LargeListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(values)))
        for name, values in (("input_ids", ids), ("labels", labels))
    }
    return Dataset(pa.table(column))
