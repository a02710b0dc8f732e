"""ZeRO by DeepSpeed trains what one process trains and goes on from its checkpoints; what is not as asked is refused."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs
from llmbench.errors import MissingPackage, RecipeError
from llmbench.recipe import DistributedSpec
from llmbench.training.distributed import deal

from .conftest import Write
from .test_processes import STEPS, figures, one, renamed, trained
from .test_processes_end import LONG, Training, nothing_half

needed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install 'llmbench[deepspeed]'"
)
ZERO = ("distributed.strategy=deepspeed", "distributed.zero_stage={}")


def zero_stage(stage: int) -> tuple[str, ...]:
    return tuple(setting.format(stage) for setting in ZERO)


@needed
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    "more",
    [
        ("data.train.0.limit=37", "training.load_best_model_at_end=true", "training.save_steps=3"),
        ("training.padding_free=false", "training.max_tokens_per_batch=160", "training.weight_decay=0.1"),
        ("training.gradient_checkpointing=true", "training.max_grad_norm=0.1", "training.eval_on_start=true"),
        ("lora=null", "training.learning_rate=0.0005", "training.max_grad_norm=0.1"),
    ],
    ids=["packed", "padded", "recomputed", "all"],
)
def test_two_processes_train_what_one_trains(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, more: tuple[str, ...]
) -> None:
    """Losses, held-out losses and gradient norms; and what is saved is whole. Nothing of DeepSpeed is compiled."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    settings = (*STEPS, *more)
    recipe = write("together", *settings)
    alone = one(renamed(recipe, "alone"))
    done = trained(recipe, *settings, *zero_stage(stage), "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert done.stdout.startswith("{") and "DeepSpeed" not in said and "Warning" not in said
    together = runs.open_run("together")
    assert figures(together) == pytest.approx(figures(alone), rel=1e-5)
    assert together.status["strategy"] == f"deepspeed ZeRO-{stage}"
    name = "adapter/adapter_model.safetensors" if recipe.adapts else "model/model.safetensors"
    from safetensors.torch import load_file

    ours, theirs = (load_file(run.folder / name) for run in (together, alone))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert all((value - theirs[key]).abs().max() < 1e-4 for key, value in ours.items())
    assert not list((tmp_path / "compiled").glob("**/*.so"))


@needed
@pytest.mark.parametrize(("stage", "goes_on"), [(2, 3), (3, 2), (3, 0), (0, 2)])
def test_a_killed_training_goes_on_with_another_stage_or_without(
    write: Write, tmp_path: Path, stage: int, goes_on: int
) -> None:
    recipe = write("ended", *LONG)
    begun = Training(recipe, tmp_path / "ranks", *LONG, *(zero_stage(stage) if stage else ()))
    begun.at(6)
    os.kill(begun.process(1), signal.SIGKILL)
    assert begun.ended()[0] == 2
    nothing_half(begun.run)
    straight = one(renamed(recipe, "straight"))
    done = trained(recipe, *LONG, "--resume", *((*zero_stage(goes_on), "--processes", "2") if goes_on else ()))
    assert done.returncode == 0, done.stderr
    assert figures(begun.run) == pytest.approx(figures(straight), rel=1e-4)


PLANTS = {
    "stage": (
        2, "llmbench.training.distributed.zero",
        "given = configuration\ndef configuration(stage, **more):\n    made = given(stage, **more)\n"
        "    made['zero_optimization']['stage'] = 1\n    return made",
        "strategy: deepspeed ZeRO-2 asked, deepspeed ZeRO-1 found",
    ),
    "unwrapped": (
        3, "llmbench.training.methods.trainer",
        "Trainer._engine = lambda self, model: self.accelerator.prepare_model(model, evaluation_mode=True)",
        "strategy: deepspeed ZeRO-3 asked, none found",
    ),
    "whole": (
        3, "llmbench.training.distributed.zero",
        "made = started\ndef started(*given):\n    engine, steps = made(*given)\n"
        "    for p in engine.module.parameters():\n        p.data = p.data.new_zeros(tuple(p.ds_shape))\n"
        "    return engine, steps",
        "part of the parameters that each process holds: 1/2 asked, whole found",
    ),
}  # fmt: skip
"""What might be otherwise than asked for, done on purpose, and what is said."""


@needed
@pytest.mark.parametrize("fault", PLANTS)
def test_what_is_not_as_asked_is_refused_before_the_first_step(write: Write, fault: str) -> None:
    stage, module, code, said = PLANTS[fault]
    done = trained(write("planted", *STEPS), *STEPS, *zero_stage(stage), "--processes", "2", plant=(module, code))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not list(runs.open_run("planted").folder.glob("adapter"))


@needed
def test_the_questions_of_a_recipe_are_answered_by_a_model_in_parts(write: Write) -> None:
    settings = (*STEPS, "evaluation.metrics=[exact_match]", "training.max_steps=3", "training.learning_rate=0.05")
    recipe = write("asked", *settings)
    alone = one(renamed(recipe, "alone"))
    done = trained(recipe, *settings, *zero_stage(3), "--processes", "2")
    assert done.returncode == 0, done.stderr
    answers = [[row["answer"] for row in run.samples()] for run in (runs.open_run("asked"), alone)]
    assert answers[0] == answers[1] and answers[0]


# Without DeepSpeed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"distributed": {"zero_stage": 3}}, "zero_stage: is for strategy deepspeed; leave it out with ddp"),
        ({"distributed": {"strategy": "deepspeed", "zero_stage": 1}}, "distributed.zero_stage"),
        ({"training": {"optim": "adafactor"}}, "steps torch's AdamW, not adafactor"),
        ({"model": {"dtype": "float16"}}, "trains in bfloat16 or float32"),
        ({"quantization": {}}, "divides unquantised parameters"),
        ({"training": {"torch_compile": True}}, "leave training.torch_compile out"),
    ],
)
def test_what_does_not_go_together_is_refused_when_the_recipe_is_read(write: Write, more: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        write("refused", **{"distributed": {"strategy": "deepspeed"}, **more})


def test_the_stage_is_2_where_nothing_is_said_and_the_plan_tells_it(write: Write) -> None:
    assert DistributedSpec().stage == 0 and DistributedSpec(strategy="deepspeed").stage == 2
    recipe = write("told", *STEPS, distributed={"strategy": "deepspeed", "zero_stage": 3})
    assert deal.words(recipe, 2).endswith("2 for each of 2 processes by deepspeed ZeRO-3)")
    with pytest.raises(RecipeError, match="start several with --processes"):
        deal.check(recipe, 1)


def test_where_it_is_not_installed_one_line_says_how(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.distributed import zero

    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"pip install 'llmbench\[deepspeed\]'"), zero.quiet("cpu"):
        pass
