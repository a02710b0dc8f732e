"""Every kind of adapter, trained for two steps on the bundled model: what is saved, what is loaded, and what may be served."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import assets, runs, training
from llmbench.engine import admit
from llmbench.errors import EngineError, RecipeError
from llmbench.recipe import ModelSpec
from llmbench.recipe.servability import servability

from .conftest import FEW, KINDS, LORA, Kind, Write, logits_of

Kinds = Callable[[str], Kind]


def reloaded(made: Kind) -> Any:
    """Base and adapter as anyone would load them."""
    import warnings

    import torch
    from peft import PeftConfig, PeftModel

    from llmbench.training.loading.model import load_base, load_tokenizer, resize

    adapter, spec = made.run.adapter, made.recipe.model
    base = Path(assets.model_folder(spec.model_name_or_path))
    model = load_base(spec, base, "cpu", torch.float32)
    resize(model, load_tokenizer(adapter if (adapter / "tokenizer.json").exists() else base, spec))
    config = PeftConfig.from_pretrained(str(adapter))
    config.base_model_name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, str(adapter), config=config)


EXACT = ["lora", "rslora", "dora", "eva", "whole", "whole-tied", "tokens", "rows", "oft", "vera", "ia3", "prompt"]


@pytest.mark.parametrize("name", EXACT)
def test_a_saved_adapter_answers_bit_by_bit_as_the_trained_one(kind: Kinds, name: str) -> None:
    import torch
    from safetensors.torch import load_file

    made = kind(name)
    assert torch.equal(logits_of(reloaded(made)), made.logits)
    assert {tensor.dtype for tensor in load_file(made.run.adapter / "adapter_model.safetensors").values()} == {torch.float32}


def test_an_adapter_that_changed_its_base_is_saved_for_the_untouched_one(kind: Kinds) -> None:
    """PiSSA with random subspaces: what PEFT saves by itself answers otherwise after every load."""
    import torch

    made = kind("pissa")
    assert torch.allclose(logits_of(reloaded(made)), made.logits, atol=1e-3)
    config = json.loads((made.run.adapter / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["r"], config["lora_alpha"]) == (True, 8, pytest.approx(8 * 2**0.5))
    assert servability(made.recipe) == []


SERVED = ["lora", "rslora", "pissa", "eva", "qlora"]
UNSERVED = ["dora", "whole", "tokens", "rows", "rank", "oft", "vera", "ia3", "prompt"]


@pytest.mark.parametrize("name", SERVED)
def test_what_was_promised_to_be_served_is_admitted(kind: Kinds, tiny: Path, name: str) -> None:
    made = kind(name)
    assert servability(made.recipe) == []
    assert admit(str(made.run.adapter), "llmbench/tiny", tiny).folder.is_dir()


@pytest.mark.parametrize("name", UNSERVED)
def test_what_was_said_not_to_be_served_is_refused_with_the_same_remedy(kind: Kinds, tiny: Path, name: str) -> None:
    made = kind(name)
    [told] = servability(made.recipe)
    with pytest.raises(EngineError) as refused:
        admit(str(made.run.adapter), "llmbench/tiny", tiny)
    reason, _, remedy = told.removeprefix("vLLM cannot load this adapter: it ").partition(". ")
    assert reason.split(" (")[0] in str(refused.value)
    assert str(refused.value).endswith(remedy)
    assert (f"llmbench merge {name}" in remedy) == (name != "prompt")


def test_new_tokens_are_learned_and_travel_with_the_adapter(kind: Kinds) -> None:
    from safetensors.torch import load_file

    from llmbench.training.loading.model import load_tokenizer

    made = kind("tokens")
    tokenizer = load_tokenizer(made.run.adapter, made.recipe.model)
    assert tokenizer.encode("<<code>>") == [1024] and tokenizer.encode("<<end>>") == [1025]
    state = load_file(made.run.adapter / "adapter_model.safetensors")
    [rows] = [tensor for name, tensor in state.items() if "lora" not in name]
    assert rows.shape == (2, 256)


def test_an_adapter_is_trained_further_from_where_it_was(kind: Kinds, write: Write) -> None:
    import torch

    first = kind("lora")
    document = write("further", *FEW, adapter_name_or_path=str(first.run.adapter), lora={}, model={"dtype": "float32"})
    job = training.prepare(document)
    assert torch.equal(logits_of(job.loaded.model), first.logits)
    run = runs.create(document)
    training.train(job, run)
    assert not torch.equal(logits_of(job.loaded.model), first.logits)
    assert json.loads((run.adapter / "adapter_config.json").read_text())["r"] == 4


def test_new_tokens_are_there_when_their_adapter_is_trained_further(kind: Kinds, write: Write) -> None:
    import torch

    from llmbench.training.loading.model import load_model

    first = kind("tokens")
    document = write("further", adapter_name_or_path=str(first.run.adapter), lora={}, model={"dtype": "float32"})
    loaded = load_model(document)
    assert loaded.grown and torch.equal(logits_of(loaded.model), first.logits)


def test_an_adapter_of_another_base_is_not_trained_further(kind: Kinds, write: Write, tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from llmbench.training.loading.model import load_model

    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    state = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in state.items()}, other / "model.safetensors", metadata={"format": "pt"})
    document = write(
        "further", adapter_name_or_path=str(kind("lora").run.adapter), lora={}, model={"model_name_or_path": str(other)}
    )
    with pytest.raises(RecipeError, match=r"was trained on another base"):
        load_model(document)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (
            {"target_modules": ["q_proj", "nonesuch"]},
            r"lora\.target_modules: no module .* is named nonesuch; available: down_proj",
        ),
        ({"target_modules": "nonesuch.*"}, r"lora\.target_modules: Target modules nonesuch"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0, 9]}, r"there is no layer 9"),
        ({"rank_pattern": {"nonesuch": 2}}, r"lora\.rank_pattern: no module"),
        ({"modules_to_save": ["nonesuch"]}, r"lora\.modules_to_save: no module"),
        ({"bias": "all"}, r"lora\.bias: all, but no layer that is adapted has a bias"),
        ({"init_lora_weights": "loftq"}, r"PEFT needs an NVIDIA GPU for LoftQ"),
    ],
)
def test_a_name_that_means_nothing_in_the_model_is_an_error(write: Write, lora: dict[str, Any], says: str) -> None:
    """PEFT passes over it as long as another name matches, and trains less than was asked for."""
    import torch

    from llmbench.training.loading.model import load_model

    if lora.get("init_lora_weights") == "loftq" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RecipeError, match=says):
        load_model(write("nothing", "model.device=cpu", lora=LORA | lora))


def test_tokens_that_are_there_already_are_not_added(write: Write, tiny: Path) -> None:
    from llmbench.training.loading.model import load_model, load_tokenizer

    there = load_tokenizer(tiny, ModelSpec()).eos_token
    document = write("there", tokenizer={"add_tokens": ["<new>", there]})
    with pytest.raises(RecipeError, match=rf"'{re.escape(there)}' already is token \d+; .*lora\.trainable_token_indices"):
        load_model(document)


def test_frozen_layers_and_embeddings_stay_as_they_are(write: Write) -> None:
    import torch

    document = write("frozen", *FEW, lora=None, freeze={"layers": 2, "embeddings": True}, model={"dtype": "float32"})
    run, job = runs.create(document), training.prepare(document)
    before = {name: p.detach().clone() for name, p in job.loaded.model.named_parameters()}
    training.train(job, run)
    changed = {name for name, p in job.loaded.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(name.startswith(("model.layers.2.", "model.layers.3.", "model.norm")) for name in changed)
    assert run.model.is_dir()


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        ({"layers": 4}, "every layer of this model"),
        ({"layers": "nonesuch"}, "matches no parameter"),
        ({"layers": ".*"}, "left to train"),
    ],
)
def test_freezing_nothing_or_everything_is_an_error(write: Write, freeze: dict[str, Any], says: str) -> None:
    from llmbench.training.loading.model import load_model

    with pytest.raises(RecipeError, match=says):
        load_model(write("frozen", lora=None, freeze=freeze))


def test_lora_plus_gives_b_its_own_rate(write: Write) -> None:
    from llmbench.training.loading.model import load_model
    from llmbench.training.loop.optimizer import own_optimizer

    document = write("plus", lora=LORA | {"loraplus_lr_ratio": 8})
    model = load_model(document).model
    optimizer = own_optimizer(model, document)
    assert optimizer is not None
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(5e-3 * (8 if "lora_B" in name else 1))


def test_an_adapter_is_saved_in_the_dtype_that_was_asked_for(write: Write) -> None:
    import torch
    from safetensors.torch import load_file

    document = write("small", *FEW, "training.max_steps=1", lora=LORA | {"save_dtype": "bfloat16"})
    run = runs.create(document)
    training.train(document, run)
    assert {tensor.dtype for tensor in load_file(run.adapter / "adapter_model.safetensors").values()} == {torch.bfloat16}


def test_eva_needs_batches_with_enough_tokens(write: Write) -> None:
    """PEFT would look for directions in batches that are too small for ever."""
    document = write("eva", "training.per_device_train_batch_size=1", lora={"r": 128, "init_lora_weights": "eva"})
    with pytest.raises(RecipeError, match=r"eva needs 256 directions, but no batch has that many tokens"):
        training.prepare(document)


def test_a_bias_is_trained_saved_and_merged(write: Write, tiny: Path, tmp_path: Path) -> None:
    import torch

    base = biased(tiny, tmp_path / "biased")
    document = write("bias", *FEW, lora=LORA | {"bias": "all"}, model={"model_name_or_path": str(base), "dtype": "float32"})
    run, job = runs.create(document), training.prepare(document)
    training.train(job, run)
    made = Kind(run, document, logits_of(job.loaded.model))
    assert torch.equal(logits_of(reloaded(made)), made.logits)
    [told] = servability(document)
    with pytest.raises(EngineError, match=r"contains bias terms"):
        admit(str(run.adapter), str(base), base)
    from llmbench.training.merging.merge import merge

    assert "contains bias terms" in told and merge(run).lost.kl < 1e-9


def test_lora_on_an_untied_embedding_is_merged_and_not_served(write: Write, tiny: Path, tmp_path: Path) -> None:
    base = biased(tiny, tmp_path / "untied")
    lora = LORA | {"target_modules": ["q_proj", "embed_tokens"]}
    document = write("embedding", *FEW, lora=lora, model={"model_name_or_path": str(base), "dtype": "float32"})
    run = runs.create(document)
    training.train(document, run)
    [told] = servability(document)
    assert "changes the embedding or the head (embed_tokens)" in told
    with pytest.raises(EngineError, match=r"changes the embedding or the head .* llmbench merge embedding"):
        admit(str(run.adapter), str(base), base)
    from llmbench.training.merging.merge import merge

    assert merge(run).lost.kl < 1e-9


def biased(tiny: Path, folder: Path) -> Path:
    """A random Qwen2, whose queries, keys and values have biases, with the bundled tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3 if name.endswith("bias") else 0.1)
    model.save_pretrained(folder)
    for path in tiny.glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(tiny / "chat_template.jinja", folder / "chat_template.jinja")
    return folder


def test_every_kind_has_a_test() -> None:
    assert set(KINDS) == {*EXACT, *SERVED, *UNSERVED, "int8", "qdora", "qia3"}


@pytest.mark.parametrize("name", ["pissa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("eva", "tokens", "plus"))])
def test_a_resumed_adapter_ends_as_if_it_had_never_stopped(write: Write, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the start took out of the base, ranks that followed from the data, and new rows are there again."""
    from llmbench.training.loop import record

    sections = KINDS[name] if name in KINDS else {"lora": LORA | {"loraplus_lr_ratio": 4}}
    steps = "training.max_steps=4"
    straight = write("straight", steps, **sections)
    training.train(straight, runs.create(straight))
    document = write("stopped", steps, **sections)
    run = runs.create(document)

    def stop(recorder: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        recorder.stop.asked = state.global_step == 1

    with monkeypatch.context() as patch:
        patch.setattr(record.Recorder, "on_step_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(document, run)
    training.train(document, runs.resume(document), resume=True)
    ours, theirs = (r.adapter / "adapter_model.safetensors" for r in (run, runs.open_run("straight")))
    assert ours.read_bytes() == theirs.read_bytes()
