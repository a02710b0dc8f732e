"""Estimates follow the recipe, and what they offer instead fits."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from llmbench import assets, estimate, hardware, recipe, runs
from llmbench.errors import LlmbenchError
from llmbench.estimate import offers, shapes
from llmbench.hardware import Machine
from llmbench.recipe import TrainRecipe

GIB = 2**30
HERE = Machine("cpu", 2, 16 * GIB, bfloat16=True)
WIDE = {
    "model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
MOE = WIDE | {
    "model_type": "qwen3_moe", "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
LENGTHS = np.full(400, 512)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "data": {"train": [{"path": "rows.jsonl"}]}}), encoding="utf-8")

    def loaded(*overrides: str) -> TrainRecipe:
        return recipe.load(path, TrainRecipe, overrides)

    return loaded


def of(document: TrainRecipe, there: Machine = HERE) -> estimate.Estimate:
    found = shapes.of(None, WIDE)
    return estimate.estimate(document, found, estimate.work(document, LENGTHS, 0.5), there)


def test_parameters_are_counted_in_the_weights_and_from_the_widths() -> None:
    tiny = shapes.of(Path(assets.model_folder(assets.TINY)))
    assert tiny.parameters == 2_886_400
    computed = shapes.of(None, WIDE)
    assert computed.parameters == pytest.approx(1.72e9, rel=0.01), "Qwen3-1.7B has 1.72 billion"


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("mixtral", 0.003), ("qwen3_moe", 0.003), ("qwen2_moe", 0.005), ("glm4_moe", 0.003), ("gpt_oss", 0.02)],
)
def test_a_mixture_is_counted_as_it_is_made_and_used(kind: str, tolerance: float) -> None:
    """Against the parameters of the model that transformers makes of the same configuration (norms and biases are left out)."""
    import torch
    from tests.training import architectures
    from transformers import AutoModelForCausalLM

    config = architectures.config(kind)
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    experts = sum(p.numel() for name, p in made.named_parameters() if p.ndim == 3)
    found = shapes.of(None, config.to_dict())
    assert found.parameters == pytest.approx(made.num_parameters(), rel=tolerance)
    assert found.experts == experts
    assert found.active == found.body - experts // 2, "2 of 4 experts"


def test_a_mixture_takes_the_time_of_what_is_used_and_the_memory_of_all(load: Any) -> None:
    """Qwen3-30B-A3B: 30.5 billion parameters, 3.3 of them at work for a token; bitsandbytes leaves its experts as they are."""
    dense, document = shapes.of(None, WIDE), load()
    moe = shapes.of(None, MOE)
    assert moe.parameters == pytest.approx(30.5e9, rel=0.01)
    assert moe.active + moe.embedding == pytest.approx(3.35e9, rel=0.01)
    batches = estimate.work(document, LENGTHS, 0.5)
    seconds = [estimate.estimate(document, found, batches, HERE).seconds for found in (dense, moe)]
    assert seconds[1] < 5 * seconds[0], "17 times the parameters"
    four = load("quantization.load_in_4bit=true")
    needed = estimate.estimate(four, moe, batches, HERE).memory["weights"]
    assert needed > 2 * moe.experts, "2 bytes for each parameter of the experts"
    said = estimate.unquantized(four, moe)
    assert said is not None and said.startswith("the experts (28,991,029,248 of 30,531,")
    assert estimate.unquantized(four, dense) is None and estimate.unquantized(document, moe) is None


def test_each_setting_moves_what_it_should(load: Any) -> None:
    plain = of(load())
    assert plain.dominated_by == "activations"
    half = of(load("training.per_device_train_batch_size=4"))
    assert half.memory["activations"] == pytest.approx(plain.memory["activations"] / 2, rel=0.05)
    again = of(load("training.gradient_checkpointing=true"))
    assert again.memory["activations"] < plain.memory["activations"] / 4
    assert again.seconds > plain.seconds
    four = of(load("quantization.load_in_4bit=true"))
    assert four.memory["weights"] < plain.memory["weights"] * 0.6
    whole, light = of(load("lora=null")), of(load("lora=null", "training.optim=sgd"))
    assert whole.memory["trained"] == pytest.approx(1.72e9 * 24, rel=0.01), "weights, gradients, two moments, and copies"
    assert light.memory["trained"] == pytest.approx(1.72e9 * 16, rel=0.01)
    assert of(load("model.dtype=float32")).memory["weights"] == 2 * plain.memory["weights"]


def test_finished_runs_correct_the_time(load: Any) -> None:
    document, found = load(), shapes.of(None, WIDE)
    work = estimate.work(document, LENGTHS, 0.5)
    plain = estimate.estimate(document, found, work, HERE)
    corrected = estimate.estimate(document, found, work, HERE, correction=[1.5, 2.0, 9.0])
    assert corrected.seconds - 3 == pytest.approx(2 * (plain.seconds - 3)), "the first step takes 3 s more, corrected or not"
    assert corrected.uncorrected_seconds == plain.uncorrected_seconds
    assert corrected.corrected_by == 3


def test_what_is_offered_fits_and_loads(load: Any) -> None:
    document, found = load(), shapes.of(None, WIDE)
    need = of(document)
    found_ones = offers.fitting(document, found, LENGTHS, 0.5, HERE, limit=need.peak // 2)
    assert found_ones
    for offer in found_ones:
        assert offer.estimate.peak <= need.peak // 2
        changed = load(*offer.overrides.split(" "))
        assert changed.training.per_device_train_batch_size * changed.training.gradient_accumulation_steps >= 8
    assert not offers.fitting(document, found, LENGTHS, 0.5, HERE, limit=GIB)


def test_a_cpu_that_is_faster_in_float32_is_offered_the_half_of_its_memory(load: Any) -> None:
    xeon = dataclasses.replace(HERE, bfloat16=False)
    document, found = load("training.per_device_train_batch_size=1"), shapes.of(None, WIDE)
    need = estimate.estimate(document, found, estimate.work(document, LENGTHS, 0.5), xeon)
    half = offers.fitting(document, found, LENGTHS, 0.5, xeon, limit=int(need.peak * 0.7))
    assert {"model.dtype": "bfloat16"} in [offer.settings for offer in half]
    assert all(offer.estimate.seconds > need.seconds for offer in half if "model.dtype" in offer.settings)


def test_steps_follow_from_epochs_batches_and_packing(load: Any) -> None:
    assert estimate.work(load(), LENGTHS, 0.5).steps == 50
    assert (
        estimate.work(load("training.gradient_accumulation_steps=4", "training.num_train_epochs=3"), LENGTHS, 0.5).steps == 38
    )
    packed = estimate.work(load("training.packing=true", "data.max_length=2048"), LENGTHS, 0.5)
    assert packed.rows == pytest.approx(32, abs=1), "eight bins of four rows"


def test_lengths_that_a_histogram_could_have_come_from() -> None:
    values = estimate.spread(1000, 60.0, [(0, 49, 500), (50, 99, 400), (100, 400, 100)], 400)
    assert len(values) == 1000
    assert values.mean() == pytest.approx(60, rel=0.02)
    assert values.max() <= 400


def test_a_configuration_without_widths_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "hidden_size": 64}), encoding="utf-8")
    with pytest.raises(LlmbenchError, match="no estimate without num_hidden_layers"):
        shapes.of(tmp_path)


def test_this_machine_is_read() -> None:
    there = hardware.machine("cpu")
    assert there.device == "cpu"
    assert there.cores >= 1
    assert there.memory > GIB // 4


def test_three_finished_runs_are_believed_and_fewer_are_not(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    first: dict[str, Any] = {"seconds": 60.0, "step": 4, "startup_seconds": 0.0}
    longer: list[dict[str, Any]] = [
        {"seconds": took + 4.0, "step": 20, "startup_seconds": 4.0} for took in (10.0, 20.0, 2.0, 30.0, 14.0)
    ]
    for number, figures in enumerate([*longer[:4], first, longer[4]]):
        assert number > 3 or estimate.corrections(HERE) == []
        run = runs.create(load(f"name=run-{number}"))
        run.write_lock({"hardware": {"device": "cpu", "cores": 2}})
        with run.writing():
            said = {"seconds": 10.0, "uncorrected_seconds": 10.0, "peak_memory": 1}
            run.mark("finished", **figures, estimate=said)
    assert sorted(estimate.corrections(HERE)) == [1.0, 1.4, 2.0, 3.0], "2 s say nothing, nor do 4 steps, nor the first step"
    assert estimate.corrections(HERE, method="dpo") == []
    assert estimate.corrections(replace(HERE, cores=64)) == []


QWEN = WIDE | {"hidden_size": 1024, "intermediate_size": 3072}
"""Qwen3-0.6B."""
ON_A_GPU = Machine("cuda", 16, 128 * GIB, bfloat16=True, gpu="NVIDIA H200", gpu_memory=139 * GIB)


@pytest.mark.parametrize(
    ("overrides", "largest", "measured", "off"),
    [
        ([], 6_577, 14.04e9, 0.1),
        (["training.padding_free=false"], 14_112, 27.56e9, 0.1),
        (["training.gradient_checkpointing=true"], 5_979, 3.35e9, 0.3),
    ],
)
def test_gpu_memory_is_near_what_was_measured(
    load: Any, overrides: list[str], largest: int, measured: float, off: float
) -> None:
    """Allocated on an H200 by LoRA r=16; `largest` is the tokens of the run's largest batch as the estimate drew it."""
    document = load("training.per_device_train_batch_size=1", "lora.r=16", *overrides)
    rows = estimate.work(document, np.full(40, largest), 0.583)
    said = estimate.estimate(document, shapes.of(None, QWEN), rows, ON_A_GPU).peak
    assert said == pytest.approx(measured, rel=off)
