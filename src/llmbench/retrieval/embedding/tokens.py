"""Texts to token numbers, by the model's own tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding.layout import Layout

__all__ = ["Tokens"]


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
            raise LlmbenchError(f"embedder {layout.folder} has no tokenizer.json, which cutting documents needs. Name another.")
        try:
            whole: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception
            raise LlmbenchError(
                f"{path}: cannot be read ({' '.join(str(error).split())[:150]}). Get the model again."
            ) from error
        if layout.lower_case:
            own = [whole.normalizer] if whole.normalizer is not None else []
            whole.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        whole.no_truncation()
        whole.no_padding()
        self._whole = whole
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

    @property
    def special(self) -> int:
        """How many special tokens are put around a text."""
        return int(self._whole.num_special_tokens_to_add(False))


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which are no characters and which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
