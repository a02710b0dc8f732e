"""Judged answers: several processes learn, lose and measure what one does, at the same batch; or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench import runs
from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.distributed import deal
from llmbench.training.distributed.ranks import Ranks

from .judgements import trained, written
from .test_processes import PLANTS
from .test_processes import trained as started

SETTINGS = (
    "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=4", "training.max_steps=5",
    "training.per_device_eval_batch_size=2", "training.eval_steps=2", "data.eval_fraction=0.25",
)  # fmt: skip
"""15 rows in 5 batches: an epoch ends with a step of one, in which one process has none. 5 rows are held out, in 3 batches."""
CLOCKED = {"tokens_per_second", "seconds", "peak_memory", "peak_memory_together", "epoch"}
OF_ONE = {"losses", "norms", "layers", "lora_b", "lora_b_zero", "learned", "spikes"}


def figures(run: Run) -> list[dict[str, float]]:
    """All that a run's lines say of losses, answers and tokens."""
    return [{name: value for name, value in row.items() if name not in CLOCKED | OF_ONE} for row in run.metrics()]


def same(document: TrainRecipe, *overrides: str) -> Run:
    """Trains a recipe with one process here and with two by the command line: all figures are equal."""
    alone = trained(document.model_copy(update={"name": "alone"}))
    done = started(document, *overrides, "--processes", "2")
    assert done.returncode == 0, done.stderr
    together = runs.open_run(document.name)
    assert together.state == "finished" and together.status["processes"] == 2
    for one, two in zip(figures(alone), figures(together), strict=True):
        assert two.keys() == one.keys()
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=1e-5, abs=1e-6), (name, one["step"])
    return together


def test_two_processes_learn_pairs_as_one(tmp_path: Path) -> None:
    run = same(written(tmp_path, "dpo", *SETTINGS), *SETTINGS)
    assert {"rewards/margins", "entropy"} <= set(run.metrics()[-1]) | set(run.metrics()[-2])


@pytest.mark.parametrize("method", ["kto", "orpo", "reward"])
def test_so_do_two_of_each_method(tmp_path: Path, method: str) -> None:
    same(written(tmp_path, method, *SETTINGS), *SETTINGS)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_and_two_that_train_all_parameters_beside_a_reference(tmp_path: Path, method: str) -> None:
    settings = (*SETTINGS, "training.learning_rate=1e-4", "training.padding_free=false")
    same(written(tmp_path, method, *settings, lora=None), *settings)


def test_what_is_not_as_asked_is_refused(tmp_path: Path) -> None:
    module, code, said = PLANTS["unwrapped"]
    document = written(tmp_path, "dpo", *SETTINGS)
    done = started(document, *SETTINGS, "--processes", "2", plant=(module, code))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_training_goes_on_with_two_processes_and_with_one(tmp_path: Path) -> None:
    from .judgements import stopped

    document = written(tmp_path, "kto", *SETTINGS)
    whole = trained(document.model_copy(update={"name": "whole"}))
    stopped(document, 3)
    done = started(document, *SETTINGS, "--processes", "2", "--resume")
    assert done.returncode == 0, done.stderr
    for one, two in zip(figures(whole), figures(runs.open_run("kto")), strict=True):
        assert two == pytest.approx(one, rel=1e-5, abs=1e-6)


# Without a training


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("rows", [1, 9, 24])
def test_each_step_has_the_batches_that_one_process_has(world: int, rows: int) -> None:
    from torch.utils.data import BatchSampler, SequentialSampler

    from llmbench.training.loop.batches import Dealt

    whole = BatchSampler(SequentialSampler(range(rows)), 2, drop_last=False)
    shares = [Dealt(whole, 4, Ranks(rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares} | {len(list(share)) for share in shares}) == 1
    every, slots = list(whole), 4 // world
    for step in range(-(-len(every) // 4)):
        dealt = [batch for share in shares for batch in list(share)[step * slots : (step + 1) * slots] if batch]
        assert sorted(dealt) == sorted(every[step * 4 : step * 4 + 4])


def refused(tmp_path: Path, method: str, *overrides: str, **sections: Any) -> str:
    with pytest.raises(RecipeError) as found:
        deal.check(written(tmp_path, method, *overrides, **sections), 2)
    return str(found.value)


def test_methods_and_strategies_that_are_not_proven_are_refused(tmp_path: Path) -> None:
    assert "grpo trains with one process: that several train what one trains is not proven" in refused(tmp_path, "grpo")
    assert "fsdp2 is for sft and pretrain" in refused(tmp_path, "dpo", "distributed.strategy=fsdp2")


def test_a_batch_by_which_the_loss_goes_is_not_made_smaller(tmp_path: Path) -> None:
    assert "per_device_train_batch_size=2 training.gradient_accumulation_steps=2" in refused(tmp_path, "dpo")
    assert refused(tmp_path, "kto").endswith("Use training.gradient_accumulation_steps=2")
