"""What `performance: auto` chooses, and that its choices change speed and not what is learned."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace

import pytest

from llmbench import hardware, runs, training
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.runs import Run

from .conftest import Write

EXACT = ("model.dtype=float32", "training.max_steps=4")


def run_of(write: Write, name: str, *overrides: str) -> Run:
    recipe = write(name, *overrides)
    run = runs.create(recipe)
    training.train(recipe, run)
    return run


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.metrics() if "loss" in row]


def test_every_choice_says_why(write: Write) -> None:
    choices = {choice.name: choice for choice in training.prepare(write("auto")).choices}
    assert choices["padding_free"].value is True
    assert choices["torch_compile"].value is choices["gradient_checkpointing"].value is False
    assert choices["fused_lora"].value is True
    assert all(choice.reason for choice in choices.values())


def test_activations_are_computed_again_where_they_do_not_fit(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    here = hardware.machine("cpu")
    monkeypatch.setattr(hardware, "machine", lambda device: replace(here, memory=2**28))
    job = training.prepare(write("short", "model.device=cpu"))
    [choice] = [choice for choice in job.choices if choice.name == "gradient_checkpointing"]
    assert choice.value is job.recipe.training.gradient_checkpointing is True
    assert "0.2 GiB are free" in choice.reason


def test_what_the_recipe_sets_is_left_alone(write: Write) -> None:
    job = training.prepare(write("set", "training.padding_free=false", "training.gradient_checkpointing=true"))
    assert not job.recipe.training.padding_free
    assert job.recipe.training.gradient_checkpointing
    assert not {"padding_free", "gradient_checkpointing"} & {choice.name for choice in job.choices}
    plain = training.prepare(write("plain", "training.performance=plain"))
    assert not plain.recipe.training.padding_free


def test_rows_end_to_end_train_as_padded_rows(write: Write) -> None:
    padded = run_of(write, "padded", *EXACT, "training.padding_free=false")
    joined = run_of(write, "joined", *EXACT)
    assert losses(joined) == pytest.approx(losses(padded), rel=1e-5)
    assert [r["tokens"] for r in joined.metrics()] == [r["tokens"] for r in padded.metrics()]


def test_checkpointing_changes_nothing(write: Write) -> None:
    plain = run_of(write, "kept", *EXACT)
    again = run_of(write, "again", *EXACT, "training.gradient_checkpointing=true")
    assert losses(again) == pytest.approx(losses(plain), rel=1e-6)


@pytest.mark.filterwarnings("ignore")  # of torch's own compiler, which turns one that is raised into an error
def test_compiled_layers_learn_the_same_and_are_compiled_once(write: Write) -> None:
    import torch

    settings = (*EXACT, "training.padding_free=true")  # padded ones are compiled in the self-test
    plain = run_of(write, "uncompiled", *settings, "training.torch_compile=false")
    torch._dynamo.utils.counters.clear()
    limit = torch._dynamo.config.recompile_limit
    compiled = run_of(write, "compiled", *settings, "training.torch_compile=true")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert torch._dynamo.config.recompile_limit == limit
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 8, "not one for each length and layer"


def test_a_run_is_compiled_where_that_pays_back(write: Write) -> None:
    from llmbench.training.kernels import compilation

    job = training.prepare(write("pays"))
    assert job.needs is not None

    def choice(seconds: float, **more: object) -> tuple[bool, str]:
        assert job.needs is not None
        recipe = job.recipe.model_copy(update=more)
        return compilation.payback(recipe, replace(job.needs, uncorrected_seconds=seconds), "cpu")

    assert choice(600.0) == (False, "saves about 36 s, costs about 30 s")
    assert choice(3600.0) == (True, "saves about 216 s, costs about 30 s")
    assert not compilation.payback(job.recipe, None, "cpu")[0]
    assert not compilation.payback(job.recipe, job.needs, "cuda")[0]


def test_a_long_run_is_compiled_and_prompt_tuning_is_not(write: Write) -> None:
    long = ("training.max_steps=1000000", "model.device=cpu")
    lora = training.prepare(write("long", *long))
    assert lora.recipe.training.torch_compile is True
    prompt = training.prepare(write("prompts", *long, lora=None, adapter={"type": "prompt_tuning", "num_virtual_tokens": 4}))
    assert prompt.recipe.training.torch_compile is False
    assert "bypasses the compiled layers" in {choice.name: choice.reason for choice in prompt.choices}["torch_compile"]


@pytest.mark.filterwarnings("ignore")
def test_what_the_compiler_cannot_do_is_one_line() -> None:
    import torch

    from llmbench.training.kernels import compilation

    @torch.compile(fullgraph=True)
    def broken(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x + 1

    with (
        pytest.raises(LlmbenchError, match=r"layers cannot be compiled .*torch_compile=false\.$") as caught,
        compilation.compiling(),
    ):
        broken(torch.ones(2))
    assert "\n" not in str(caught.value)


def test_compiling_without_a_compiler_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"torch_compile: not here: there is no C\+\+ compiler \(g\+\+\) here"):
        training.prepare(write("no-compiler", "training.torch_compile=true", "model.device=cpu"))


def test_packing_fills_a_step_with_tokens_and_learns(write: Write) -> None:
    packed = run_of(write, "packed", "training.packing=true", "training.per_device_train_batch_size=1", "training.max_steps=8")
    plain = run_of(write, "plain", "training.per_device_train_batch_size=1", "training.max_steps=8")
    assert packed.metrics()[-1]["tokens"] > 1.5 * plain.metrics()[-1]["tokens"]
    assert losses(packed)[-1] < losses(packed)[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.packing=true", "training.padding_free=false"], "packing implies padding_free"),
        (["training.packing=true", "training.max_tokens_per_batch=512"], "choose one"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_by_the_recipe(write: Write, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        write("refused", *overrides)


@pytest.mark.parametrize("setting", ["activation_offloading", "use_liger_kernel"])
def test_what_needs_a_gpu_is_refused_without_one(write: Write, setting: str) -> None:
    with pytest.raises(RecipeError, match="works on CUDA only"):
        training.prepare(write("cuda-only", f"training.{setting}=true", "model.device=cpu"))


def test_packing_with_another_attention_is_refused(write: Write) -> None:
    with pytest.raises(RecipeError, match="attn_implementation is eager"):
        training.prepare(write("eager", "training.packing=true", "model.attn_implementation=eager"))


def test_offloading_is_for_sft(write: Write) -> None:
    from llmbench.training import performance

    recipe = write("dpo-offloading", "training.activation_offloading=true")
    job = training.prepare(write("plain-job"))
    with pytest.raises(RecipeError, match="not with method: dpo"):
        performance.choose(recipe.model_copy(update={"method": "dpo"}), job.loaded, job.rows)


@pytest.mark.parametrize("optim", ["adamw_8bit", "lion_8bit"])
def test_an_8_bit_optimizer_learns_and_resumes_to_the_same_losses(write: Write, optim: str) -> None:
    settings = (f"training.optim={optim}", "training.learning_rate=1e-3", "training.max_steps=6", "training.save_steps=2")
    straight = run_of(write, "straight", *settings)
    recipe = write("broken", *settings)
    run = runs.create(recipe)

    def stop(step: int, steps: int, figures: str) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, run, progress=stop)
    training.train(recipe, runs.resume(recipe), resume=True)
    assert losses(straight)[-1] < losses(straight)[0]
    assert losses(run) == losses(straight)
