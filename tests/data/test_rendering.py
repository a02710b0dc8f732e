"""What is shown of a row: each token's own text, whether it is learned, and nothing that acts on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from llmbench.data import rendering
from llmbench.data.rendering import Fold, Piece


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def pieces(tokenizer: Any, text: str) -> list[Piece]:
    ids = tokenizer.encode(text).ids
    return list(rendering.pieces(ids, [False] * len(ids), tokenizer))


@pytest.mark.parametrize(
    "text",
    [
        "Hello there.",
        "  two  spaces\n\tand a tab\n\n",
        "Élise: 🙂 naïve 相機 ☃",
        "<|im_start|>user\nHi<|im_end|>",
        "a\x1b[31mb",
    ],
)
def test_the_pieces_together_are_the_text(tokenizer: Any, text: str) -> None:
    assert "".join(piece.text for piece in pieces(tokenizer, text)) == text


def test_tokens_that_make_up_one_character_are_one_piece(tokenizer: Any) -> None:
    ids = tokenizer.encode("🙂").ids
    assert len(ids) > 1
    assert pieces(tokenizer, "🙂") == [Piece("🙂", False)]


def test_a_row_cut_within_a_character_shows_that(tokenizer: Any) -> None:
    ids = tokenizer.encode("a🙂").ids[:-1]
    assert "".join(piece.text for piece in rendering.pieces(ids, [True] * len(ids), tokenizer)) == "a�"


def test_special_tokens_are_marked(tokenizer: Any) -> None:
    assert [piece.text for piece in pieces(tokenizer, "<|im_start|>user<|im_end|>") if piece.special] == [
        "<|im_start|>",
        "<|im_end|>",
    ]


def test_learned_tokens_are_marked(tokenizer: Any) -> None:
    ids = tokenizer.encode("one two").ids
    row = rendering.row("f:1", ids, [i > 1 for i in range(len(ids))], tokenizer)
    assert [piece.trained for piece in row.pieces] == [i > 1 for i in range(len(ids))]
    assert row.trained_tokens == len(ids) - 2
    assert [trained for trained, _ in rendering.runs(row)] == [False, True]


def test_a_tokenizer_of_words_with_bytes_for_the_rest() -> None:
    words = ["<unk>", "<s>", "▁Hello", "▁there", "!"]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"<0x{i:02X}>" for i in range(256))])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    made.add_special_tokens(["<s>"])
    snowman = [vocabulary[f"<0x{byte:02X}>"] for byte in "☃".encode()]
    ids = [1, 2, 3, *snowman, 4]
    found = list(rendering.pieces(ids, [True] * len(ids), made))
    assert [piece.text for piece in found][-2:] == ["☃", "!"]
    assert "".join(piece.text for piece in found).replace(" ", "") == "<s>Hellothere☃!"


def test_a_very_long_row_keeps_its_beginning_and_its_end(tokenizer: Any) -> None:
    ids = tokenizer.encode("first " + "word " * 9000 + "last").ids
    row = rendering.row("f:1", ids, [False] * len(ids), tokenizer)
    [fold] = [piece for piece in row.pieces if isinstance(piece, Fold)]
    assert fold.tokens == len(ids) - 3000
    assert row.tokens == len(ids)
    assert row.pieces[0] == Piece("first"[: len(row.pieces[0].text)], False)  # type: ignore[union-attr]


def test_a_run_folds_only_where_that_saves_something() -> None:
    run: list[Piece | Fold] = [Piece(str(i), False) for i in range(100)]
    assert rendering.folded(run, 60, 35) == (run, [], [])
    head, middle, tail = rendering.folded(run, 60, 20)
    assert [*head, *middle, *tail] == run
    assert (len(head), len(tail)) == (60, 20)
