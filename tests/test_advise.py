"""The catalogue is true to its models, speeds follow published measurements, and advice fits the hardware."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.real_models import CONFIGS

from llmbench import estimate, hardware, runs
from llmbench.errors import LlmbenchError
from llmbench.estimate import advice, catalogue, gpus, measure, rates, shapes
from llmbench.estimate.catalogue import Candidate
from llmbench.estimate.measure import Hardware
from llmbench.estimate.serving import Load, precisions, serving
from llmbench.hardware import Machine

GIB = 2**30
MODELS = {model.name: model for model in catalogue.every()}
LLAMA, MISTRAL = MODELS["meta-llama/Llama-3.1-8B"], MODELS["mistralai/Mistral-7B-v0.3"]
FACTOR = 1.6
"""Within which speeds on GPUs must be of what others measured."""


def gpu(name: str) -> Hardware:
    return measure.by_table(gpus.named(name))


def here(**changes: Any) -> Hardware:
    """A CPU as it may be measured."""
    machine = Machine("cpu", 2, 16 * GIB, bfloat16=True)
    return dataclasses.replace(
        Hardware("a CPU", "cpu", 16 * GIB, 20e9, 200e9, 100e9, None, True, machine, here=True), **changes
    )


def made(model: Candidate, layers: int) -> int:
    """Parameters of the model that transformers makes of its configuration, with so many layers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = model.config | {"num_hidden_layers": layers, "pad_token_id": None}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        found: int = AutoModelForCausalLM.from_config(config).num_parameters()  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_configuration_makes_as_many_parameters_as_are_stated(name: str) -> None:
    """All layers of these models have as many parameters as each other, so two sizes tell the third."""
    model = MODELS[name]
    one, two = made(model, 1), made(model, 2)
    assert one + (model.shape.layers - 1) * (two - one) == pytest.approx(model.parameters, rel=0.01)
    assert model.shape.parameters == pytest.approx(model.parameters, rel=0.02), "without norms and biases"


def test_the_catalogue_agrees_with_the_configurations_of_the_recipes() -> None:
    """Which were read elsewhere. An instruction-tuned model has the widths of its base."""
    shared = {name: config for name, config in CONFIGS.items() if name.removesuffix("-Instruct") in MODELS}
    assert len(shared) >= 6
    for name, config in shared.items():
        found = MODELS[name.removesuffix("-Instruct")].config
        assert {key: found[key] for key in config.keys() & found.keys()} == {
            key: config[key] for key in config.keys() & found.keys()
        }


def test_the_catalogue_says_where_everything_was_read() -> None:
    assert len(MODELS) == len(catalogue.every()) == 40
    for model in catalogue.every():
        assert all(f"{word}" in model.source for word in ("config", "parameters", "licence")), model.name
        assert model.context >= 8192
    assert all(one.source for one in gpus.every())
    assert all(one.fp8 is None or one.fp8 == pytest.approx(2 * one.bf16, rel=0.03) for one in gpus.every())


@pytest.mark.parametrize(
    ("name", "window", "layers"),
    [
        ("google/gemma-3-27b-it", 1024, 52),  # five of six, as transformers lists them
        ("google/gemma-2-9b", 4096, 21),
        ("openai/gpt-oss-20b", 128, 12),
        ("mistralai/Mistral-7B-v0.3", 0, 0),
        ("Qwen/Qwen3-8B", 0, 0),
    ],
)
def test_layers_with_a_window_are_those_of_transformers(name: str, window: int, layers: int) -> None:
    from transformers import AutoConfig

    model = MODELS[name]
    assert (model.shape.window, model.shape.windowed) == (window, layers)
    values = dict(model.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    kinds = getattr(config, "layer_types", None) or []
    assert sum(kind == "sliding_attention" for kind in kinds) == layers
    assert shapes.of(None, model.config | {"layer_types": kinds}).windowed == layers


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("rtx 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla T4", None),
        ("NVIDIA GeForce RTX 3080 Ti", None),
        ("NVIDIA GeForce RTX 4070 SUPER", None),
        ("NVIDIA GeForce RTX 4090 D", None),
    ],
)
def test_a_gpu_is_found_by_the_name_that_nvidia_smi_writes(text: str, name: str | None) -> None:
    found = gpus.find(text)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("model", "there", "load", "milliseconds"),
    [
        (LLAMA, "A100 40GB", Load(1, 1152, 128), 1e3 / 75),  # vLLM 0.23, bfloat16: johnmusgrave.com, throughput-latency sweep
        (LLAMA, "H100", Load(1, 512, 128), 6.48),  # vLLM 0.21, float16: yobitelcomm.github.io/bench, concurrency sweep
        (LLAMA, "H100", Load(4, 512, 128), 6.59),
        (LLAMA, "H100", Load(16, 512, 128), 10.94),
        (MISTRAL, "RTX 4090", Load(4, 384, 128), 4e3 / 210),  # vLLM: mushfiqrahman.dev, with its prompts' share of the time
        (MISTRAL, "RTX 4090", Load(8, 384, 128), 8e3 / 377),
        (MISTRAL, "RTX 4090", Load(16, 384, 128), 16e3 / 644),
    ],
)
def test_tokens_come_as_fast_as_others_measured(model: Candidate, there: str, load: Load, milliseconds: float) -> None:
    """The first two fix the two constants; nothing was fitted to the others. The H100's prompts are not stated: 384 tokens."""
    said = serving(model.shape, gpu(there), "bf16", load).token * 1e3
    assert milliseconds / FACTOR < said < milliseconds * FACTOR


def test_a_first_token_comes_as_fast_as_others_measured() -> None:
    """Mistral 7B on an RTX 4090, prompts of 256 tokens, four users: 53 ms in the median."""
    said = serving(MISTRAL.shape, gpu("RTX 4090"), "bf16", Load(4, 384, 128)).first * 1e3
    assert 53 / FACTOR < said < 53 * FACTOR


def test_a_training_on_a_gpu_of_the_table_takes_what_was_recorded() -> None:
    """docs/benchmarks.md: Qwen3-0.6B's shape on an H200, LoRA, 12 steps of 32 rows with 67,152 tokens in all, in 3.26 s."""
    planned = advice.usual()
    lengths = np.full(384, 175)
    recipe = estimate.offers.changed(planned.recipe, {"training.per_device_train_batch_size": 32})
    batches = estimate.work(recipe, lengths, 0.583)
    assert batches.steps == 12
    need = estimate.estimate(recipe, MODELS["Qwen/Qwen3-0.6B"].shape, batches, gpu("H200").machine)
    assert need.uncorrected_seconds == pytest.approx(3.26, rel=0.3)
    slower = estimate.estimate(recipe, MODELS["Qwen/Qwen3-32B"].shape, batches, gpu("A100").machine)
    faster = estimate.estimate(recipe, MODELS["Qwen/Qwen3-32B"].shape, batches, gpu("H100").machine)
    assert slower.uncorrected_seconds > 2 * faster.uncorrected_seconds, "312 and 989 TFLOP/s"


def test_each_thing_that_is_asked_moves_what_it_should() -> None:
    shape, there = LLAMA.shape, gpu("H100")
    one = serving(shape, there, "bf16", Load(1, 4096, 256))
    assert one.weights == 2 * shape.parameters
    assert one.cache == 4096 * 32 * 2 * 1024 * 2, "layers, keys and values, 8 heads of 128, two bytes"
    eight = serving(shape, there, "bf16", Load(8, 4096, 256))
    assert eight.cache == 8 * one.cache
    assert one.token < eight.token < 2 * one.token, "all read the weights once"
    assert eight.tokens_per_second > 4 * one.tokens_per_second
    half, quarter = (serving(shape, there, name, Load(1, 4096, 256)) for name in ("fp8", "w4a16"))
    assert quarter.weights < half.weights < one.weights
    assert quarter.token < half.token < one.token
    assert half.first < 0.75 * one.first, "twice the products a second"
    old = gpu("A100")
    assert serving(shape, old, "fp8", Load(1, 4096, 256)).first == pytest.approx(
        serving(shape, old, "bf16", Load(1, 4096, 256)).first, rel=0.01
    ), "Ampere multiplies no eight-bit floats"
    assert "fp8" not in precisions(here())


def test_a_window_bounds_the_cache() -> None:
    """Gemma 3 27B: ten layers of 62 keep all, the others 1,024 tokens."""
    model = MODELS["google/gemma-3-27b-it"]
    said = serving(model.shape, gpu("H200"), "bf16", Load(1, 32768, 256)).cache
    assert said == 2 * 2 * 16 * 128 * (10 * 32768 + 52 * 1024)


def test_a_mixture_reads_the_experts_that_its_users_reach() -> None:
    model, there = MODELS["Qwen/Qwen3-30B-A3B"], gpu("H100")
    alone, many = (serving(model.shape, there, "bf16", Load(users, 1024, 256)).token for users in (1, 64))
    assert alone < serving(MODELS["Qwen/Qwen3-8B"].shape, there, "bf16", Load(1, 1024, 256)).token
    assert many > 4 * alone, "64 users reach nearly all of them"


def test_what_fits_fits_and_what_does_not_says_what_is_missing() -> None:
    there, load = gpu("RTX 4090"), Load(4, 4096, 256)
    options, time, memory = advice.advise(catalogue.every(), there, load, advice.usual())
    assert time is None and memory is None, "another machine's runs say nothing"
    assert len(options) == 40 * 3 * 4
    for option in options:
        if option.fits:
            assert option.peak <= there.memory and option.answers.peak <= there.memory
        else:
            assert option.lack > 0 or "reads at most" in option.missing[0]
    best = advice.by_model(options, there)
    assert [option.fits for option in best] == sorted((option.fits for option in best), reverse=True)
    assert sorted(option.model.name for option in best) == sorted(MODELS)
    heavy = {option.model.name: option for option in best}
    assert heavy["meta-llama/Llama-3.1-70B"].missing[0].startswith("training lacks")
    assert (heavy["Qwen/Qwen3-4B"].method, heavy["Qwen/Qwen3-4B"].answers.precision) == ("lora", "bf16")
    assert (heavy["Qwen/Qwen3-14B"].method, heavy["Qwen/Qwen3-14B"].answers.precision) == ("qlora", "fp8")
    small = advice.by_model(advice.advise(catalogue.every(), gpu("RTX 3080"), load, advice.usual())[0], gpu("RTX 3080"))
    larger = {option.model.name for option in best if option.fits}
    assert {option.model.name for option in small if option.fits} < larger


def test_limits_are_kept_and_named() -> None:
    models = [MODELS["Qwen/Qwen3-0.6B"], MODELS["Qwen/Qwen3-8B"]]
    limits = advice.Ceiling(token=0.1, first=1.0, hours=10.0)
    options, _, _ = advice.advise(models, here(), Load(), advice.usual(), limits=limits)
    best = {option.model.name: option for option in advice.by_model(options, here())}
    said = " ".join(best["Qwen/Qwen3-8B"].missing)
    assert "ms a token" in said and "ms to the first token" in said and " h" in said
    assert not any("lacks" in words for option in options for words in option.missing if option.lack == 0)


def test_the_settings_that_are_named_load_and_are_what_was_estimated() -> None:
    planned = advice.usual()
    options, _, _ = advice.advise([MODELS["Qwen/Qwen3-8B"]], gpu("RTX 4090"), Load(), planned)
    seen = {option.method: option for option in options}
    assert seen["lora"].settings, "it does not fit as it stands"
    for option in seen.values():
        from llmbench import recipe

        said = [word for word in advice.overrides(option, planned) if not word.startswith("model.")]
        loaded = recipe.load("recipes/sft-lora.yaml", recipe.TrainRecipe, said)
        assert loaded.adapts == (option.method != "full")
        assert (loaded.quantization is not None) == (option.method == "qlora")
        assert loaded.training.learning_rate == rates.start("sft", adapts=loaded.adapts)
        if "training.gradient_checkpointing" in option.settings:
            assert loaded.training.gradient_checkpointing
    assert seen["qlora"].need.memory["weights"] < seen["lora"].need.memory["weights"] / 2


def test_newer_and_larger_comes_first() -> None:
    options, _, _ = advice.advise(catalogue.every(), gpu("H200"), Load(), advice.usual())
    weights = [option.weight for option in advice.by_model(options, gpu("H200")) if option.fits]
    assert weights == sorted(weights, reverse=True)
    by_name = {option.model.name: option.weight for option in options}
    assert by_name["Qwen/Qwen3-14B"] > by_name["Qwen/Qwen3-8B"] > by_name["Qwen/Qwen2.5-7B"]
    assert by_name["Qwen/Qwen3-32B"] > by_name["Qwen/Qwen3-30B-A3B"], "a mixture counts as the mean of all and active"


def test_finished_runs_here_correct_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    planned, models = advice.usual(), [MODELS["Qwen/Qwen3-0.6B"]]
    roomy = here(memory=256 * GIB)
    before, none, _ = advice.advise(models, roomy, Load(), planned)
    assert none is None
    for number, took in enumerate((10.0, 20.0, 30.0)):
        run = runs.create(estimate.offers.changed(planned.recipe, {}).model_copy(update={"name": f"run-{number}"}))
        run.write_lock({"hardware": {"device": "cpu", "cores": 2}})
        with run.writing():
            said = {"seconds": 10.0, "uncorrected_seconds": 10.0, "peak_memory": 2 * GIB}
            run.mark("finished", seconds=took + 4, startup_seconds=4.0, step=20, peak_memory=3 * GIB, estimate=said)
    after, time, memory = advice.advise(models, roomy, Load(), planned)
    assert time is not None and (time.median, time.least, time.most, time.runs) == (2.0, 1.0, 3.0, 3)
    assert memory is not None and memory.median == 1.5
    first, second = (next(one for one in found if one.method == "lora") for found in (before, after))
    assert first.settings == second.settings == {}
    assert second.peak == pytest.approx(1.5 * first.peak, rel=0.001)
    assert second.need.seconds - 3 == pytest.approx(2 * (first.need.seconds - 3))


def test_this_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(measure, "_SECONDS", 0.01)
    first = measure.this()
    assert first.measured and first.device in ("cpu", "cuda")
    assert first.bandwidth > 1e8 and first.bf16 > 1e8 and first.float32 is not None and first.float32 > 1e8
    assert measure.this().bandwidth == first.bandwidth, "kept"
    assert measure.this(again=True).bandwidth != first.bandwidth, "measured again"
    kept = next((tmp_path / "home").rglob("hardware.json"))
    for damage in ("{", "[]", '{"a": 1}'):
        kept.write_text(damage, encoding="utf-8")
        assert measure.this().bandwidth > 1e8


def test_a_gpu_here_has_its_makers_rates_and_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Machine("cuda", 16, 128 * GIB, bfloat16=True, gpu="NVIDIA H100 80GB HBM3", gpu_memory=60 * GIB)
    monkeypatch.setattr(hardware, "machine", lambda: there)
    found = measure.this()
    assert (found.name, found.memory, found.bf16) == ("NVIDIA H100 80GB HBM3", 60 * GIB, 989e12)
    assert found.here and not found.measured and found.machine is there


def test_a_recipe_that_does_not_go_is_refused_with_what_to_leave_out() -> None:
    planned = advice.usual()
    with pytest.raises(LlmbenchError, match="no estimate for method: grpo"):
        advice.refuse_unknown(planned.recipe.model_copy(update={"method": "grpo"}))
    lora = planned.recipe.lora
    assert lora is not None
    pissa = planned.recipe.model_copy(update={"lora": lora.model_copy(update={"init_lora_weights": "pissa"})})
    strange = advice.Task(pissa, planned.lengths, 0.5)
    models = [MODELS["Qwen/Qwen3-0.6B"]]
    with pytest.raises(LlmbenchError, match=r"not with qlora: .*PiSSA.* Leave it out: --method lora --method full"):
        advice.advise(models, gpu("H100"), Load(), strange)
    assert len(advice.advise(models, gpu("H100"), Load(), strange, methods=["lora", "full"])[0]) == 8


def test_a_recipe_of_a_new_model_is_advised_for_published_ones() -> None:
    """pretrain-tiny makes a model of its own; the advice is about models that are downloaded."""
    from llmbench import recipe

    document = recipe.load("recipes/pretrain-tiny.yaml", recipe.TrainRecipe)
    assert document.model.config is not None
    options, _, _ = advice.advise(
        [MODELS["Qwen/Qwen3-0.6B"]], gpu("H100"), Load(), advice.Task(document, np.full(100, 64), 1.0)
    )
    assert {option.method for option in options} == {"lora", "qlora", "full"}
