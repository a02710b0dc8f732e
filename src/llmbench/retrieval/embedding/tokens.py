"""Texts to token numbers, by the model's own tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding.light import Layout

__all__ = ["Reading", "Tokens"]

_PIECE = 3
"""Letters from which a piece of a word says something of its own: English words are nine tenths such pieces, and a language
that a vocabulary was not made for is spelt in ones and twos."""


@dataclass(frozen=True)
class Reading:
    """How much of a text a vocabulary knows, in characters that are not white space.

    `unknown` are those that no token stands for. `letters` are all its letters, `familiar` those in pieces of three and more.
    """

    characters: int
    unknown: int
    letters: int
    familiar: int

    @property
    def blind(self) -> bool:
        """Whether most of it is unknown: its vector is that of any other text which is."""
        return 2 * self.unknown > self.characters

    @property
    def foreign(self) -> bool:
        """Whether over two fifths of its letters are read one or two at a time, or not at all.

        Then the vocabulary was not made for its language: to all-MiniLM-L6-v2's familiar are 0.9 of English, 0.7 of German,
        French and Spanish, 0.58 of Turkish and Finnish, nothing of Russian, Arabic, Chinese and Thai.
        """
        return self.blind or (self.letters > 0 and 5 * self.familiar < 3 * self.letters)


class Tokens:
    """A tokenizer that cuts at the window, and one that does not. Safe to use from several threads."""

    def __init__(self, layout: Layout, window: int) -> None:
        """Reads tokenizer.json.

        Raises:
            LlmbenchError: it is missing, or cannot be read.
        """
        try:
            from tokenizers import Tokenizer, normalizers
        except ImportError as error:
            raise MissingPackage("index", "tokenizers", "rag") from error
        path = layout.transformer / "tokenizer.json"
        if not path.is_file():
            raise LlmbenchError(
                f"embedder {layout.folder} has no tokenizer.json, which splitting documents needs. Choose another."
            )
        try:
            whole: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception
            raise LlmbenchError(
                f"{path}: cannot be read ({' '.join(str(error).split())[:150]}). Download the model again."
            ) from error
        if layout.lower_case:
            own = [whole.normalizer] if whole.normalizer is not None else []
            whole.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        whole.no_truncation()
        whole.no_padding()
        self._whole = whole
        self._unknown = _unknown(whole)
        self._cut = Tokenizer.from_str(whole.to_str())
        self._cut.enable_truncation(max_length=window)
        self._blank = int(layout.config.get("pad_token_id") or 0)

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's token numbers with its special tokens, at most a window of them and at least one."""
        found = self._cut.encode_batch_fast([_clean(text) for text in texts])
        return [encoding.ids or [self._blank] for encoding in found]

    def starts(self, text: str) -> list[int]:
        """The character at which each token begins, special tokens left out."""
        return [start for start, _ in self._whole.encode(_clean(text), add_special_tokens=False).offsets]

    def reading(self, text: str) -> Reading:
        """How much of a text the vocabulary knows."""
        unknown = letters = familiar = 0
        found = self._whole.encode(_clean(text), add_special_tokens=False)
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            piece = text[start:end]
            if number == self._unknown:
                unknown += sum(not c.isspace() for c in piece)
            count = sum(map(str.isalpha, piece))
            letters += count
            familiar += count if count >= _PIECE and number != self._unknown else 0
        return Reading(sum(map(len, text.split())), unknown, letters, familiar)

    @property
    def special(self) -> int:
        """How many special tokens are put around a text."""
        return int(self._whole.num_special_tokens_to_add(False))


def _unknown(tokenizer: Any) -> int | None:
    """The number of the token that stands for what the vocabulary lacks; None where there is none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    name = model.get("unk_token")
    return None if name is None else tokenizer.token_to_id(name)


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which are no characters and which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
