"""A training that learned nothing says so, in its state and when it ends."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import runs, training
from llmbench.cli.main import cli
from llmbench.training.loop.idle import Idle

from .conftest import Write

FEW = ("data.train.0.limit=8",)


def warning(write: Write, *overrides: str, **sections: Any) -> str | None:
    document = write("idle", *FEW, *overrides, **sections)
    run = runs.create(document)
    training.train(document, run, progress=lambda *_: None)
    said: str | None = run.status["warning"]
    return said


def test_a_rate_that_never_rose_is_said(write: Write) -> None:
    said = warning(write, "training.max_steps=1", "training.warmup_steps=0.03")
    assert said is not None and said.startswith("Nothing was learned: the learning rate was 0 in every step")
    shown = CliRunner().invoke(cli, ["runs", "idle"]).stdout
    assert said in shown and json.loads(CliRunner().invoke(cli, ["runs", "--json"]).stdout)[0]["warning"] == said


def test_a_warm_up_longer_than_the_run_is_said(write: Write) -> None:
    said = warning(write, "training.max_steps=2", "training.warmup_steps=50")
    assert said is not None and "(training.warmup_steps=50) is longer than the run of 2 steps" in said


def test_gradients_that_vanish_are_said_from_where_on(write: Write) -> None:
    said = warning(write, "training.max_steps=6", "training.learning_rate=1e10", "training.warmup_steps=0")
    assert said is not None and "Nothing was learned from step 2 on: the gradient was 0 to the end" in said


def test_a_training_that_learns_says_nothing(write: Write) -> None:
    assert warning(write, "training.max_steps=3", "training.warmup_steps=0") is None


def test_a_mixture_s_balance_is_not_taken_for_a_reward(write: Write) -> None:
    """Its load-balancing loss gave a norm of 0.0004 in a step whose answers were all rewarded alike."""
    counted = Idle()
    for number, (share, since) in enumerate((([1.0], 1), ([], 1), ([0.5, 1.0], 1), ([0.5], None)), 1):
        logged = {"frac_reward_zero_std": share, "rewards/regex/mean": [0.5]}
        state, metrics = SimpleNamespace(global_step=number), {"train": logged}
        counted.step(SimpleNamespace(state=state, last_norm=4e-4, last_rate=1e-3, _metrics=metrics))
        assert counted.still_since == since
    none = {"frac_reward_zero_std": [0.0], "rewards/none/mean": [float("nan")]}
    counted.step(SimpleNamespace(state=state, last_norm=4e-4, last_rate=1e-3, _metrics={"train": none}))
    assert counted.still_since == 4


@pytest.mark.slow
def test_rewards_that_are_all_none_are_said(write: Write, tmp_path: Any) -> None:
    (tmp_path / "none.py").write_text("def reward(completions, **_):\n    return [None for _ in completions]\n")
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(8)))
    said = warning(
        write,
        "training.max_steps=2",
        "training.warmup_steps=0",
        method="grpo",
        data={"train": [{"path": str(rows)}], "max_length": 64},
        grpo={
            "num_generations": 2,
            "max_completion_length": 4,
            "reward_functions": [{"function": f"{tmp_path}/none.py:reward"}],
        },
    )
    assert (
        said is not None
        and "the gradient of the rewards was 0 in every step (the answers to each prompt had the same rewards" in said
    )
