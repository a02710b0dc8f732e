"""Prompts and the answers to them -> token ids, counted and cut by us, so that no trainer cuts anything unseen.

An answer's ids are what the chat template adds to the prompt for it, up to and with the token that ends the turn, as rows of
sft are rendered and by the same process: words, thinking and tool calls are compared with the row. Each conversation is
tokenised whole, so no token is joined across the border and nothing is put before an answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbench.data.formats import Chat
from llmbench.data.prepare import NOTHING, TOO_LONG
from llmbench.data.template import Renderer
from llmbench.data.tokens import Tokenizer, span
from llmbench.data.values import Report, Skipped
from llmbench.errors import DataError
from llmbench.recipe import DataSpec

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

    from llmbench.data.examples import Example

__all__ = ["Encoded", "encode"]

_BATCH = 500


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
    unprompted: int = 0
    ends: tuple[int, ...] = ()
    """The tokens that end the answers' turns, the commonest first."""
    notes: tuple[str, ...] = ()
    """What else a person should know, such as files of a folder that were passed over."""

    def noting(self, notes: tuple[str, ...]) -> Encoded:
        """The same rows with more to know."""
        return replace(self, notes=self.notes + notes)

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
        return replace(self, skipped=(), dropped=0, truncated=0, unstopped=0, unprompted=0)

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
            unprompted=self.unprompted,
            turn_ends=self.ends,
            skipped=self.skipped,
            notes=self.notes,
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
                f"{self.examples[0].place}: the columns {', '.join(names)} have mixed types "
                f"({str(error).splitlines()[0][:200]}). Use one type per column."
            ) from error


def encode(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
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
    kept: list[Example] = []
    prompts: list[list[int]] = []
    answers: list[list[list[int]]] = []
    long: list[int] = []
    left_out = list(skipped)
    ends: Counter[int] = Counter()
    dropped = truncated = unstopped = unprompted = 0
    for example, made in _encoded(examples, tokenizer, spec, progress):
        if isinstance(made, Skipped):
            left_out.append(made)
            continue
        prompt, said = made.prompt, made.answers
        length = len(prompt) + max(map(len, said), default=0)
        if length > spec.max_length:
            long.append(length)
            if spec.over_length == "error":
                continue
            said = [answer[: max(spec.max_length - len(prompt), 0)] for answer in said]
            gone = len(prompt) > spec.max_length or not all(said) or (len(said) == 2 and said[0] == said[1])
            if spec.over_length == "drop" or gone:
                dropped += 1
                reason = TOO_LONG if spec.over_length == "drop" else NOTHING
                left_out.append(Skipped(example.place, reason, f"{length:,} tokens"))
                continue
            truncated += 1
        unstopped += made.unstopped
        unprompted += made.unprompted
        ends.update(made.ends)
        kept.append(example)
        prompts.append(prompt)
        answers.append(said)
    if kept and not kept[0].answers:
        ends.update(_end(kept[0], tokenizer, spec))
    if long and spec.over_length == "error":
        raise DataError(
            f"data.max_length: {len(long):,} of {len(examples):,} rows are longer than {spec.max_length:,} tokens "
            f"(the longest has {max(long):,}). Set data.max_length={max(long)}, or data.over_length to drop or truncate."
        )
    if not kept:
        if left_out and not dropped:
            raise DataError(f"{left_out[0].place}: {left_out[0].detail}. None of the {len(left_out):,} rows can be used.")
        raise DataError(f"data.max_length: no row fits into {spec.max_length:,} tokens. Raise it.")
    common = tuple(end for end, _ in ends.most_common())
    return Encoded(kept, prompts, answers, tuple(left_out), dropped, truncated, unstopped, unprompted, common)


def _end(example: Example, tokenizer: Tokenizer, spec: DataSpec) -> list[int]:
    """The token that would end an answer to a prompt whose answers the model writes itself."""
    asked = replace(example, answers=({"role": "assistant", "content": "Yes."},))
    try:
        [(_, made)] = _encoded([asked], tokenizer, spec.model_copy(update={"bad_rows": "skip"}), None)
    except DataError:
        return []
    return made.ends if isinstance(made, _Made) else []


@dataclass
class _Made:
    """One example in tokens."""

    prompt: list[int]
    answers: list[list[int]] = field(default_factory=list)
    unstopped: int = 0
    unprompted: int = 0
    ends: list[int] = field(default_factory=list)


def _encoded(
    examples: Sequence[Example], tokenizer: Tokenizer, spec: DataSpec, progress: Callable[[int], None] | None
) -> Iterator[tuple[Example, _Made | Skipped]]:
    """Each example in tokens, or why it cannot be used where such rows are skipped.

    Raises:
        DataError: the first that cannot be used, where they are not; or the tokenizer has no chat template.
    """
    with Renderer(tokenizer.template(spec.template(), spec.chat_template_kwargs, "last")) as page:
        for start in range(0, len(examples), _BATCH):
            chunk = examples[start : start + _BATCH]
            page.send([Chat([*one.prompt, answer], one.tools) for one in chunk for answer in one.answers])
            rendered = page.receive()
            for example in chunk:
                found = [next(rendered) for _ in example.answers]
                try:
                    yield example, _tokens(example, found, tokenizer)
                except _Unwritable as error:
                    if spec.bad_rows != "skip":
                        raise
                    yield example, Skipped(example.place, error.reason, error.detail)
            if progress is not None:
                progress(len(chunk))


class _Unwritable(DataError):
    """A row that cannot be written as turns."""

    def __init__(self, place: str, reason: str, detail: str) -> None:
        super().__init__(f"{place}: {detail.rstrip('.')}. Correct it, or set data.bad_rows=skip to skip such rows.")
        self.reason, self.detail = reason, detail


def _tokens(example: Example, found: list[dict[str, Any]], tokenizer: Tokenizer) -> _Made:
    """The prompt's ids, each answer's, and how many answers have no token that ends the turn."""
    _check_control(example, tokenizer)
    refused = next((answer for answer in found if "samples" not in answer), None)
    if refused is not None:
        raise _Unwritable(example.place, refused["reason"], refused["detail"])
    if not found:
        return _Made(_prompt(example, tokenizer))
    samples = [answer["samples"][-1] for answer in found]
    spans = [sample["turns"][-1] for sample in samples]
    encodings = [tokenizer.backend.encode(sample["text"], add_special_tokens=False) for sample in samples]
    # All that the model is to say begins behind the prompt, be it behind the template's own `{% generation %}` or before.
    starts = [span(encoding, base, end)[0] for encoding, (base, end) in zip(encodings, spans, strict=True)]
    inside = [
        start + (encoding.token_to_chars(start)[0] < base)  # a token that began in the prompt was given, not said
        for encoding, start, (base, _) in zip(encodings, starts, spans, strict=True)
    ]
    ids = [list(encoding.ids) for encoding in encodings]
    shared = min(inside)
    while any(row[:shared] != ids[0][:shared] for row in ids):
        shared -= 1
    ends = [span(encoding, base, end)[1] for encoding, (base, end) in zip(encodings, spans, strict=True)]
    return _Made(
        ids[0][:shared],
        [row[shared:end] for row, end in zip(ids, ends, strict=True)],
        sum(sample["open"] for sample in samples),
        sum(sample["unprompted"] for sample in samples),
        [row[end - 1] for row, end, sample in zip(ids, ends, samples, strict=True) if not sample["open"]],
    )


def _check_control(example: Example, tokenizer: Tokenizer) -> None:
    """Raises for a row whose words spell out a control token: judged answers are compared token by token, and one would end."""
    words = json.dumps([example.prompt, example.answers, example.tools], ensure_ascii=False)
    found = next((token for token in tokenizer.specials if token in words), None)
    if found is not None:
        detail = f"the text contains the control token {found}, which would end or begin a turn"
        raise _Unwritable(example.place, "a control token in the text", detail)


def _prompt(example: Example, tokenizer: Tokenizer) -> list[int]:
    """The prompt alone, as TRL's trainer of grpo writes it."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.tokenizer.apply_chat_template(example.prompt, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        detail = f"the chat template refuses this conversation ({error})"
        raise _Unwritable(example.place, "the chat template refuses it", detail) from error
    return list(tokenizer.backend.encode(text, add_special_tokens=False).ids)
