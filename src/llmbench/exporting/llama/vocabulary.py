"""A tokenizer of transformers as llama.cpp's fields: tokens with their kinds, merges or scores, and what ends a text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["Vocabulary", "add", "model_name", "of", "refusal"]

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's kinds of tokens."""
_SPACE = "\u2581"
_PHI_3 = re.compile(r"(phi)-?3", re.IGNORECASE)
_LOWEST = -1e9
"""The score of what no merge makes."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    """gpt2: bytes as letters and merges; llama: SentencePiece's pieces and scores."""
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    begins: bool
    """Whether a prompt begins with the token for the beginning of a text."""
    space_first: bool


def refusal(folder: Path) -> str | None:
    """Why llama.cpp cannot have a tokenizer, or None."""
    kind = _read(folder)["model"].get("type")
    return None if kind == "BPE" else f"its tokenizer is of the kind {kind}, and only BPE ones are written to GGUF"


def of(tokenizer: Any, folder: Path, rows: int) -> Vocabulary:
    """The fields of a tokenizer.

    Args:
        tokenizer: transformers' own.
        folder: with its tokenizer.json.
        rows: of the embedding: so many tokens there must be.

    Raises:
        LlmbenchError: llama.cpp has nothing of the kind.
    """
    values = _read(folder)
    if (reason := refusal(folder)) is not None:
        raise LlmbenchError(f"{reason}. Use --format merged")
    bpe = values["model"]
    pieces = bool(bpe.get("byte_fallback"))
    known: dict[int, str] = {number: token for token, number in bpe["vocab"].items()}
    kinds = {number: _kind(token, bpe, pieces) for number, token in known.items()}
    for added in values.get("added_tokens", ()):
        known[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added["special"] else _USER
    count = max(rows, max(known) + 1)
    pairs = [tuple(one.split(" ", 1)) if isinstance(one, str) else tuple(one) for one in bpe["merges"]]
    bos = tokenizer.bos_token_id
    return Vocabulary(
        "llama" if pieces else "gpt2",
        [known.get(i, f"[PAD{i}]") for i in range(count)],
        [kinds.get(i, _UNUSED) for i in range(count)],
        [] if pieces else [" ".join(pair) for pair in pairs],
        _scores(known, pairs, count) if pieces else [],
        bos is not None and tokenizer("a")["input_ids"][:1] == [bos],
        _space_first(values),
    )


def model_name(name: str, folder: Path) -> str:
    """A model's name as llama.cpp may read it.

    Of a model with `phi-3` or `phi3` in its name it drops the white space behind special tokens, as Phi-3's own tokenizer
    does, and loads none that lacks Phi-3's tokens. So that name is given where the tokenizer does the same, and nowhere else.
    """
    added = {one["content"]: bool(one.get("rstrip")) for one in _read(folder).get("added_tokens", ())}
    is_one = added.get("</s>") is True and all(added.get(token) is False for token in ("<unk>", "<s>", "<|endoftext|>"))
    if is_one:
        return name if _PHI_3.search(name) else f"phi-3 {name}"
    return _PHI_3.sub(r"\1 3", name)


def add(writer: Any, found: Vocabulary, tokenizer: Any, stops: frozenset[int], pre: str) -> None:
    """Writes the fields into a GGUF file's head."""
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.kinds)
    if found.merges:
        writer.add_token_merges(found.merges)
    if found.scores:
        writer.add_token_scores(found.scores)
        writer.add_add_space_prefix(found.space_first)
    own = tokenizer.eos_token_id
    ends = sorted(stops, key=lambda token: (token != own, token))
    for token, write in zip(ends, (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        write(token)
    for known, write in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
    ):
        if known is not None:
            write(known)
    writer.add_add_bos_token(found.begins)
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return found


def _kind(token: str, bpe: dict[str, Any], pieces: bool) -> int:
    if pieces and token == bpe.get("unk_token"):
        return _UNKNOWN
    if pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return _BYTE
    return _NORMAL


def _scores(known: dict[int, str], pairs: list[tuple[str, ...]], count: int) -> list[float]:
    """SentencePiece joins the pair of the highest score first: minus the rank of the first merge that makes a piece."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, rank)
    return [-float(ranks[known[i]]) if i in known and known[i] in ranks else _LOWEST for i in range(count)]


def _space_first(values: dict[str, Any]) -> bool:
    """Whether a text is read with a space before it."""
    text = json.dumps([values.get("normalizer"), values.get("pre_tokenizer")], ensure_ascii=False)
    return '"Prepend"' in text or '"prepend_scheme": "always"' in text or '"prepend_scheme": "first"' in text
