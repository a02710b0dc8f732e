"""Rendered conversations, documents and ready tokens -> token ids, labels and roles, as numpy arrays.

A label is the token itself where it is learned, else -100. Control tokens in the words of a row are split into ordinary
pieces: only what the chat template writes is control.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbench.data.formats import Text, Tokens
from llmbench.data.template import Template
from llmbench.errors import DataError

__all__ = ["IGNORED", "Sample", "Tokenizer", "span"]

IGNORED = -100
_CODED = 0xF8000  # as in turns.signs, which only the process that renders imports


@dataclass(frozen=True, slots=True)
class Sample:
    """What one row, or one turn of it, is to the trainer."""

    ids: np.ndarray
    """int32."""
    learned: np.ndarray
    """Which of them are learned (bool)."""
    roles: np.ndarray
    """Whose words they are (int8): 0 the template's, 1 system, 2 user, 3 assistant, 4 tool or tool definitions."""
    labels: np.ndarray | None = None
    """Where the labels are not the ids themselves: int32."""
    merged: int = 0
    """Answers that begin inside a token of the prompt, which is then not learned."""
    unstopped: int = 0
    """Answers whose end of turn is not learned."""
    ends: tuple[int, ...] = ()
    """The tokens that end its learned turns."""
    inner: frozenset[int] = frozenset()
    """Control tokens within its learned turns: a model that stopped at one of these would break off."""


class Tokenizer:
    """A fast tokenizer of transformers, as preparation needs it.

    `stops` are the tokens at which the model stops by itself; `own` those that a recipe added, which are used wherever the
    words of a row have them, special or not.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[int] = (), own: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        every = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.own = frozenset(own)
        self.every = tuple(every)
        self._control = np.asarray(sorted(every.values()), dtype=np.int32)
        added = {text: number for text, number in every.items() if text in special and text not in self.own}
        self.specials = tuple(added)
        self.stops = {*stops, tokenizer.eos_token_id} - {None}
        self._numbers = sorted(added, key=len, reverse=True)
        self._special_ids = added
        self._literal: Any = None
        self._coded: Any = None
        self._first_coded = 0

    def template(self, override: str | None, variables: dict[str, Any], train_on: str) -> Template:
        """The chat template, its variables and its control tokens.

        Raises:
            DataError: the tokenizer has none and the recipe gives none.
        """
        own = override or self.tokenizer.chat_template
        if not own:
            raise DataError(
                "The model's tokenizer has no chat template, so conversations cannot be rendered. Choose a chat model, set "
                "data.chat_template, or train on raw text (format: text)."
            )
        templates = own if isinstance(own, dict) else {"default": own}
        if "default" not in templates:
            templates = templates | {"default": next(iter(templates.values()))}
        known = [number for number in sorted(self.stops) if number < len(self.tokenizer)]
        stops = tuple(self.tokenizer.convert_ids_to_tokens(known))
        special = {key: str(value) for key, value in self.tokenizer.special_tokens_map.items() if isinstance(value, str)}
        return Template(templates, special | variables, self.specials, self.every, stops, train_on)

    def chats(self, samples: Sequence[dict[str, Any]]) -> list[Sample]:
        """Rendered samples, as the template's process gives them."""
        plain = [i for i, sample in enumerate(samples) if "coded" not in sample]
        coded = [i for i, sample in enumerate(samples) if "coded" in sample]
        encodings: list[Any] = [None] * len(samples)
        for i, found in zip(plain, self._encode(self.backend, [samples[i]["text"] for i in plain]), strict=True):
            encodings[i] = found
        if coded:
            backend, first = self._coded_backend()
            for i, found in zip(coded, self._encode(backend, [samples[i]["coded"] for i in coded]), strict=True):
                encodings[i] = found
        result = []
        for i, (sample, encoding) in enumerate(zip(samples, encodings, strict=True)):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            if "coded" in samples[i]:
                real = np.asarray([self._special_ids[name] for name in self._numbers], dtype=np.int32)
                ids = np.where(ids >= first, real[np.clip(ids - first, 0, len(real) - 1)], ids)
            result.append(_sample(encoding, ids, sample, self._control))
        return result

    def texts(self, texts: Sequence[Text]) -> list[Sample]:
        """Documents: the tokenizer's own beginning, every token learned, end of text at the end."""
        if self._literal is None:
            self._literal = self._plain_backend()
        end = self.tokenizer.eos_token_id
        result = []
        for encoding in self._literal.encode_batch_fast([text.text for text in texts], add_special_tokens=True):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            if end is not None and (not len(ids) or ids[-1] != end):
                ids = np.append(ids, np.int32(end))
            result.append(Sample(ids, np.ones(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int8)))
        return result

    def tokens(self, row: Tokens) -> Sample:
        """A row of ids and labels.

        Raises:
            ValueError: an id or a label that the tokenizer does not have.
        """
        ids, labels = np.asarray(row.ids, dtype=np.int32), np.asarray(row.labels, dtype=np.int32)
        size = len(self.tokenizer)
        if len(ids) and (ids.min() < 0 or ids.max() >= size):
            raise ValueError(f"input_ids holds {ids.min() if ids.min() < 0 else ids.max()}; the tokenizer has {size:,} tokens")
        learned = labels != IGNORED
        wrong = labels[learned & ((labels < 0) | (labels >= size))]
        if len(wrong):
            raise ValueError(f"labels holds {wrong[0]}; the tokenizer has {size:,} tokens, and {IGNORED} marks untrained ones")
        same = np.array_equal(labels[learned], ids[learned])
        return Sample(ids, learned, np.where(learned, np.int8(3), np.int8(0)), None if same else labels)

    def in_words(self, text: str) -> bool:
        """Whether control tokens are spelled out in a document."""
        return any(special in text for special in self.specials)

    def _encode(self, backend: Any, texts: list[str]) -> list[Any]:
        found: list[Any] = backend.encode_batch(texts, add_special_tokens=False) if texts else []
        return found

    def _plain_backend(self) -> Any:
        """A tokenizer to which control tokens are plain text, all but those that the recipe added."""
        settings = json.loads(self.backend.to_str())
        for token in settings["added_tokens"]:
            token["special"] = token["special"] and token["content"] not in self.own
        made = type(self.backend).from_str(json.dumps(settings))
        made.encode_special_tokens = True
        return made

    def _coded_backend(self) -> tuple[Any, int]:
        """A tokenizer to which control tokens are plain text, and private characters control tokens; the first id of those."""
        if self._coded is None:
            from tokenizers import AddedToken

            self._coded = self._plain_backend()
            options = {token.content: token for token in self.tokenizer.added_tokens_decoder.values()}
            for i, name in enumerate(self._numbers):
                token = options[name]
                sides = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
                self._coded.add_tokens([AddedToken(chr(_CODED + i) * len(name), normalized=False, special=False, **sides)])
            self._first_coded = self._coded.token_to_id(chr(_CODED) * len(self._numbers[0]))
        return self._coded, self._first_coded


def _sample(encoding: Any, ids: np.ndarray, sample: dict[str, Any], control: np.ndarray) -> Sample:
    learned = np.zeros(len(ids), dtype=bool)
    roles = np.zeros(len(ids), dtype=np.int8)
    for start, end, role in sample["roles"]:
        first, last = span(encoding, start, end)
        roles[first:last] = role
    merged = 0
    for start, end in sample["spans"]:
        first, last = span(encoding, start, end)
        if first < last and encoding.token_to_chars(first)[0] < start:
            first += 1  # a token that began in the prompt was given, not said
            merged += 1
        learned[first:last] = True
    closing = [span(encoding, end - 1, end)[1] - 1 for end in sample["ends"]]
    within = learned.copy()
    within[closing] = False
    inner = frozenset(np.intersect1d(ids[within], control).tolist())
    ends = tuple(int(ids[at]) for at in closing)
    return Sample(ids, learned, roles, merged=merged, unstopped=sample["unstopped"], ends=ends, inner=inner)


def span(encoding: Any, start: int, end: int) -> tuple[int, int]:
    """The tokens of a span of characters; characters that belong to no token (stripped space) are passed over."""
    first = last = None
    while start < end and first is None:
        first = encoding.char_to_token(start)
        start += first is None
    while start < end and last is None:
        last = encoding.char_to_token(end - 1)
        end -= last is None
    if first is None or last is None:
        return 0, 0
    while last + 1 < len(encoding) and (place := encoding.token_to_chars(last + 1)) is not None and place[0] < end:
        last += 1  # one character may be several tokens
    return first, last + 1
