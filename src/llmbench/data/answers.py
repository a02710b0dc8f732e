"""Prompts and the answers to them -> token ids, counted and cut by us, so that no trainer cuts anything unseen.

An answer's ids are what the chat template adds to the prompt for it, up to and with the token that ends the turn. Each
conversation is tokenised whole, so no token is joined across the border and nothing is put before an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbench.data import Report, Skipped
from llmbench.data.prepare import NOTHING, TOO_LONG
from llmbench.errors import DataError
from llmbench.recipe import DataSpec

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

    from llmbench.data.preferences import Example

__all__ = ["Encoded", "encode"]

_BATCH = 500
_END = re.compile(r"end|eot|eos|</", re.IGNORECASE)


@dataclass(frozen=True)
class Encoded:
    """Examples with their token ids: the prompt's, and those of each answer."""

    examples: list[Example]
    prompts: list[list[int]]
    answers: list[list[list[int]]]
    skipped: tuple[Skipped, ...] = ()
    """Rows that cannot be used, and those that are too long."""
    dropped: int = 0
    truncated: int = 0
    unstopped: int = 0

    def select(self, rows: Sequence[int]) -> Encoded:
        """Some of the rows."""
        return replace(
            self,
            examples=[self.examples[i] for i in rows],
            prompts=[self.prompts[i] for i in rows],
            answers=[self.answers[i] for i in rows],
        )

    def without_losses(self) -> Encoded:
        """The same rows, for a part whose losses are counted elsewhere."""
        return replace(self, skipped=(), dropped=0, truncated=0, unstopped=0)

    def report(self) -> Report:
        """The counts. A prompt counts once for each of its answers, as the trainer computes it."""
        lengths = [[len(p) + len(a) for a in row] or [len(p)] for p, row in zip(self.prompts, self.answers, strict=True)]
        return Report(
            rows_in=len(self.examples) + len(self.skipped),
            rows=len(self.examples),
            tokens=sum(map(sum, lengths)),
            trained_tokens=sum(len(answer) for row in self.answers for answer in row),
            longest=max(map(max, lengths)),
            dropped=self.dropped,
            truncated=self.truncated,
            unstopped=self.unstopped,
            skipped=self.skipped,
            length_before=np.array([max(row) for row in lengths], dtype=np.int32),
        )

    def dataset(self, method: str, *, as_tokens: bool = False) -> Dataset:
        """The columns that TRL's trainer of a method reads, and where each row stands; `as_tokens` also of prompts alone."""
        from datasets import Dataset

        if method == "grpo" and not as_tokens:
            return self._prompts()
        origins = [example.origin for example in self.examples]
        where = {"source": [source for source, _ in origins], "row": [row for _, row in origins]}
        chosen, rejected = ([row[i] for row in self.answers if len(row) > i] for i in (0, 1))
        match method:
            case "dpo" | "orpo":
                return Dataset.from_dict({"prompt_ids": self.prompts, "chosen_ids": chosen, "rejected_ids": rejected, **where})
            case "reward":
                whole = [[p + a for p, a in zip(self.prompts, side, strict=True)] for side in (chosen, rejected)]
                return Dataset.from_dict({"chosen_ids": whole[0], "rejected_ids": whole[1], **where})
            case "kto":
                labels = [example.label for example in self.examples]
                return Dataset.from_dict({"prompt_ids": self.prompts, "completion_ids": chosen, "label": labels, **where})
        return Dataset.from_dict({"prompt_ids": self.prompts, **where})

    def _prompts(self) -> Dataset:
        import pyarrow as pa
        from datasets import Dataset

        names = sorted({name for example in self.examples for name in example.columns})
        columns = {name: [example.columns.get(name) for example in self.examples] for name in names}
        try:
            return Dataset.from_dict({"prompt": [example.prompt for example in self.examples], **columns})
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(
                f"{self.examples[0].place}: the columns {', '.join(names)} do not have one type each "
                f"({str(error).splitlines()[0][:200]}). Write them alike in every row."
            ) from error


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    spec: DataSpec,
    skipped: Sequence[Skipped] = (),
    *,
    progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Tokenises prompts and answers, and does with long ones what `over_length` says.

    A row is as long as its prompt with its longer answer. `truncate` keeps the prompt and cuts the answers' ends, as TRL
    does; a row whose answers would be gone, or would be the same, is dropped. `skipped` are rows that were left out before.

    Raises:
        DataError: see `llmbench.data.preferences.load`.
    """
    if not tokenizer.chat_template:
        raise DataError("The model's tokenizer has no chat template, so turns cannot be written. Choose a chat model.")
    stops, control = _stops(tokenizer), _control(tokenizer)
    kept: list[Example] = []
    prompts: list[list[int]] = []
    answers: list[list[list[int]]] = []
    long: list[int] = []
    left_out = list(skipped)
    dropped = truncated = unstopped = 0
    if spec.bad_rows == "skip":
        examples = [example for example in examples if not _refused(example, tokenizer, control, left_out)]
    for start in range(0, len(examples), _BATCH):
        chunk = examples[start : start + _BATCH]
        for example, (prompt, said, open_ends) in zip(chunk, _tokens(chunk, tokenizer, stops, control), strict=True):
            length = len(prompt) + max(map(len, said), default=0)
            if length > spec.max_length:
                long.append(length)
                if spec.over_length == "error":
                    continue
                said = [answer[: max(spec.max_length - len(prompt), 0)] for answer in said]
                gone = len(prompt) > spec.max_length or not all(said) or (len(said) == 2 and said[0] == said[1])
                if spec.over_length == "drop" or gone:
                    dropped += 1
                    left_out.append(
                        Skipped(example.place, TOO_LONG if spec.over_length == "drop" else NOTHING, f"{length:,} tokens")
                    )
                    continue
                truncated += 1
            unstopped += open_ends
            kept.append(example)
            prompts.append(prompt)
            answers.append(said)
        if progress is not None:
            progress(len(chunk))
    if long and spec.over_length == "error":
        raise DataError(
            f"data.max_length: {len(long):,} of {len(examples):,} rows are longer than {spec.max_length:,} tokens "
            f"(the longest has {max(long):,}). Set data.max_length={max(long)}, or data.over_length to drop or truncate."
        )
    if not kept:
        raise DataError(f"data.max_length: no row is left within {spec.max_length:,} tokens. Raise it.")
    return Encoded(kept, prompts, answers, tuple(left_out), dropped, truncated, unstopped)


class _Unwritable(DataError):
    """A row that cannot be written as turns."""

    def __init__(self, place: str, reason: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}. Mend it, or set data.bad_rows=skip to leave such rows out.")
        self.reason, self.detail = reason, detail


def _refused(example: Example, tokenizer: Any, control: list[str], left_out: list[Skipped]) -> bool:
    """Whether an example cannot be written as turns; it is then put among those left out."""
    try:
        for answer in example.answers or (None,):
            _rendered(example, answer, tokenizer, control)
    except _Unwritable as error:
        left_out.append(Skipped(example.place, error.reason, error.detail))
        return True
    return False


def _tokens(
    examples: Sequence[Example], tokenizer: Any, stops: set[int], control: list[str]
) -> list[tuple[list[int], list[list[int]], int]]:
    """The prompt's ids, each answer's, and how many answers have no token that ends the turn."""
    starts = [_rendered(example, None, tokenizer, control) for example in examples]
    plain = [_rendered(example, None, tokenizer, control, begin=False) for example in examples]
    texts: list[str] = []
    borders: list[int] = []
    for example, start, without in zip(examples, starts, plain, strict=True):
        for answer in example.answers:
            text = _rendered(example, answer, tokenizer, control)
            before = next((len(part) for part in (start, without) if text.startswith(part)), None)
            if before is None or answer.strip() not in text[before:]:
                raise DataError(
                    f"{example.place}: the chat template rewrites the prompt when an answer follows, so the answer's tokens "
                    "cannot be told. Use another template, or rows of one question."
                )
            texts.append(text)
            borders.append(before)
    alone = tokenizer(starts, add_special_tokens=False, verbose=False)["input_ids"]  # no word on length; that is ours to say
    whole = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False) if texts else None
    result: list[tuple[list[int], list[list[int]], int]] = []
    at = 0
    for example, prompt in zip(examples, alone, strict=True):
        if whole is None or not example.answers:
            result.append((list(prompt), [], 0))
            continue
        mine = range(at, at := at + len(example.answers))
        ids = [list(whole["input_ids"][i]) for i in mine]
        inside = [sum(end <= borders[i] for _, end in whole["offset_mapping"][i]) for i in mine]
        shared = min(inside)
        while any(row[:shared] != ids[0][:shared] for row in ids):
            shared -= 1
        ends = [_end(row, shared, stops, tokenizer) for row in ids]
        said = [row[shared:end] for row, (end, _) in zip(ids, ends, strict=True)]
        result.append((ids[0][:shared], said, sum(unstopped for _, unstopped in ends)))
    return result


def _rendered(example: Example, answer: str | None, tokenizer: Any, control: list[str], *, begin: bool = True) -> str:
    """The conversation as the chat template writes it; without an answer with the words that ask for one (`begin`)."""
    from jinja2 import TemplateError

    turns = example.prompt if answer is None else [*example.prompt, {"role": "assistant", "content": answer}]
    found = next((token for turn in turns for token in control if token in turn["content"]), None)
    if found is not None:
        detail = f"the text holds the control token {found}, which would end or begin a turn"
        raise _Unwritable(example.place, "a control token in the text", detail)
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None and begin))
    except TemplateError as error:
        detail = f"the chat template refuses this conversation ({error})"
        raise _Unwritable(example.place, "the chat template refuses it", detail) from error


def _end(ids: list[int], start: int, stops: set[int], tokenizer: Any) -> tuple[int, bool]:
    """Where an answer ends, with the token that ends its turn and without what the template writes after; is there none?"""
    last = next((i for i in range(len(ids) - 1, start - 1, -1) if ids[i] in stops), None)
    if last is None or tokenizer.decode(ids[last + 1 :]).strip():
        return len(ids), True
    return last + 1, False


def _stops(tokenizer: Any) -> set[int]:
    """The tokens that end a turn: the tokenizer's end of text, and every special token that is named as an end."""
    named = {number for number, token in tokenizer.added_tokens_decoder.items() if _END.search(str(token))}
    return named if tokenizer.eos_token_id is None else named | {tokenizer.eos_token_id}


def _control(tokenizer: Any) -> list[str]:
    """The tokens that structure a conversation and may not stand in what somebody said."""
    return sorted({str(token) for token in tokenizer.added_tokens_decoder.values() if token.special})
