"""Batches: everything once, of like length, filled by tokens."""

from __future__ import annotations

import random

import pytest

from llmbench.retrieval.embedding.light import batches


@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_every_text_is_in_one_batch_and_no_batch_is_over_its_budget(budget: int) -> None:
    lengths = random.Random(1).choices(range(1, 257), k=500)
    made = batches.by_length(lengths, budget)
    assert sorted(i for batch in made for i in batch) == list(range(500))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    computed = sum(len(batch) * max(lengths[i] for i in batch) for batch in made)
    assert computed <= 1.2 * sum(lengths)


def test_blocks_bound_what_is_tokenized_at_once() -> None:
    made = list(batches.blocks([3, 1, 9, 9, 2, 7], 4))
    assert made == [[2, 3, 5, 0], [4, 1]]
    assert list(batches.blocks([])) == []
