"""The order of rows: what is in which batch, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

from llmbench.recipe import TrainRecipe

from .conftest import Write

LENGTHS = [5, 90, 30, 64, 65, 10, 120, 7, 33, 128, 2, 61]
Made = Callable[..., TrainRecipe]


def test_every_row_comes_once_an_epoch(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    for settings in (["training.max_tokens_per_batch=256"], ["training.per_device_train_batch_size=5"]):
        for shuffle in ("true", "false"):
            batches = Batches(LENGTHS, write("all", *settings, f"data.shuffle={shuffle}"))
            assert sorted(row for batch in batches for row in batch) == list(range(len(LENGTHS)))
            assert len(list(batches)) == len(batches)


def test_a_batch_takes_as_many_rows_as_fit_padded_in_file_order(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    settings = ("training.max_tokens_per_batch=256", "training.pad_to_multiple_of=64", "data.shuffle=false")
    batches = list(Batches([10, 60, 64, 3, 65, 20, 30, 128, 1], write("fit", *settings)))
    assert batches == [[0, 1, 2, 3], [4, 5], [6, 7], [8]]


def test_a_row_longer_than_the_budget_stands_alone(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    settings = ("training.max_tokens_per_batch=64", "data.shuffle=false")
    assert list(Batches([100, 100, 5], write("alone", *settings))) == [[0], [1], [2]]


def test_epochs_differ_and_a_seed_repeats_them(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    for settings in (["training.max_tokens_per_batch=256"], []):
        recipe = write("epochs", *settings)
        first, again = Batches(LENGTHS, recipe), Batches(LENGTHS, recipe)
        zero = list(first)
        first.set_epoch(1)
        assert list(first) != zero and len(list(first)) == len(zero)
        assert list(again) == zero
        assert list(Batches(LENGTHS, write("other", *settings, "training.seed=7"))) != zero


def test_shuffled_batches_hold_rows_of_about_the_same_length(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    batches = Batches(LENGTHS, write("alike", "training.max_tokens_per_batch=256"))
    waste = sum(len(b) * max(LENGTHS[row] for row in b) - sum(LENGTHS[row] for row in b) for b in batches)
    assert waste < sum(LENGTHS) / 4


def test_held_out_rows_are_never_shuffled(write: Write) -> None:
    from llmbench.training.loop.batches import Batches

    batches = Batches(LENGTHS, write("eval", "training.per_device_eval_batch_size=12"), train=False)
    assert list(batches) == [list(range(12))]


def rows(*lengths: int) -> list[dict[str, list[int]]]:
    return [{"input_ids": list(range(1, n + 1)), "labels": [-100, *range(2, n + 1)]} for n in lengths]


def test_padding_stands_on_the_right_and_is_not_learned(write: Write) -> None:
    from llmbench.training.loop.batches import Collator

    batch = Collator(write("pad", "training.pad_to_multiple_of=4"), pad_token_id=0)(rows(3, 5))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100, -100, -100, -100], [-100, 2, 3, 4, 5, -100, -100, -100]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 5]


def test_padded_rounds_up() -> None:
    from llmbench.training.loop.batches import padded

    assert [padded(n, 64) for n in (1, 64, 65)] == [64, 64, 128]
