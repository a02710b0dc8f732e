"""Which rows count as the same, and that no pair is reported that does not reach the threshold."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llmbench.data import duplicates
from llmbench.data.duplicates import Group

LONG = "The warranty of the Belvi camera lasts 24 months and covers the lens , the shutter , the battery and every cable in it"


def found(*texts: str, threshold: float = 0.8) -> list[Group]:
    return duplicates.groups(pa.array(texts, pa.large_string()), [text.encode() for text in texts], threshold)


def jaccard(a: str, b: str) -> float:
    """The same by sets of strings, word by word."""
    x, y = (shingles(re.findall(r"[^\W_]+|[^\w\s]", text.lower())) for text in (a, b))
    return len(x & y) / len(x | y)


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def test_equal_rows_are_one_exact_group() -> None:
    assert found("a b c", LONG, "d e f", LONG, LONG) == [Group((1, 3, 4), 1.0, True)]


def test_a_word_more_in_a_long_row_is_nearly_the_same() -> None:
    [group] = found(LONG, "something else altogether", LONG + " today")
    assert group.rows == (0, 2)
    assert not group.exact
    assert group.similarity == pytest.approx(jaccard(LONG, LONG + " today"))


def test_case_and_spacing_do_not_count() -> None:
    [group] = found("How do  I locate my card?", "how do i locate\nmy card ?")
    assert group.similarity == 1.0
    assert not group.exact


def test_signs_count() -> None:
    assert found("What is 12 + 3 ?", "What is 12 - 3 ?") == []


def test_rows_of_other_words_are_not_reported() -> None:
    assert found(LONG, LONG.replace("Belvi", "Borin").replace("shutter", "screen").replace("24", "36")) == []


def test_rows_without_words_are_left_alone() -> None:
    assert found("", " ", "\n") == []


def test_short_rows_are_compared_whole() -> None:
    assert [group.rows for group in found("Yes.", "No.", "yes .")] == [(0, 2)]


def test_writing_without_spaces_has_words_too() -> None:
    text = "這台相機的保固期為二十四個月包括鏡頭快門電池以及盒中所有的電線請保留收據"
    [group] = found(text, text + "謝", "完全不同的一句話跟相機沒有關係也沒有提到保固")
    assert group.rows == (0, 1)


def test_the_threshold_decides() -> None:
    other = LONG.replace("shutter", "screen")
    similarity = jaccard(LONG, other)
    assert 0.5 < similarity < 0.8
    assert found(LONG, other) == []
    assert [group.rows for group in found(LONG, other, threshold=similarity - 0.01)] == [(0, 1)]


def test_exact_copies_and_near_ones_come_in_one_group() -> None:
    [group] = found(LONG, LONG, LONG + " today")
    assert group.rows == (0, 1, 2)
    assert not group.exact


def vague(count: int) -> list[str]:
    """Texts of a small vocabulary, many of them edited copies of others."""
    draw = Random(7)
    words = [f"word{i}" for i in range(400)]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 60))) for _ in range(count)]
    for i in range(0, count, 3):
        copied = texts[draw.randrange(count)].split()
        for _ in range(draw.randint(0, 3)):
            copied[draw.randrange(len(copied))] = draw.choice(words)
        texts[i] = " ".join(copied)
    return texts


def test_what_is_found_is_what_comparing_every_pair_finds() -> None:
    texts = vague(240)
    pairs = {pair for pair in combinations(range(len(texts)), 2) if jaccard(texts[pair[0]], texts[pair[1]]) >= 0.8}
    linked = {row for pair in pairs for row in pair}
    groups = found(*texts)
    assert len(pairs) > 20
    assert {row for group in groups for row in group.rows} == linked
    for group in groups:
        inside = {pair for pair in pairs if set(pair) <= set(group.rows)}
        assert inside, group


def test_a_crowd_of_alike_rows_is_one_group() -> None:
    [group] = found(*(f"{LONG} number {i}" for i in range(200)))
    assert len(group.rows) == 200


def test_hashes_tell_rows_apart_by_their_ids() -> None:
    ids, starts = np.asarray([1, 2, 3, 1, 2, 3, 1, 2]), np.asarray([0, 3, 6, 8])
    a, b, c = duplicates.digests(ids, starts[:-1], starts[1:])
    assert a == b
    assert a != c


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_candidates_hold_nearly_every_pair_that_counts(threshold: float) -> None:
    texts = vague(200)
    array: Any = pa.array(texts, pa.large_string())
    pairs = {pair for pair in combinations(range(len(texts)), 2) if jaccard(texts[pair[0]], texts[pair[1]]) >= threshold}
    missed = pairs - set(duplicates.candidates(duplicates.Words(), array, threshold))
    assert len(missed) <= 0.05 * len(pairs)
