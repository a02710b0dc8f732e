"""Bases in few bits: what trains beside them on this machine, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmbench import runs, training
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import ModelSpec, QuantizationSpec

from .conftest import FEW, IDS, LORA, Write, logits_of

if TYPE_CHECKING:
    import torch

FOUR = {"load_in_4bit": True}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    import torch

    model.train()
    ids = torch.tensor([IDS], device=model.device)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_a_four_bit_base_hands_gradients_down_after_an_evaluation(write: Write) -> None:
    """bitsandbytes packs the weights of a CPU with AVX512-BF16 in the first evaluation, and then cuts every gradient."""
    import torch

    from llmbench.training.loading.model import load_model

    model = load_model(write("cut", model={"dtype": "bfloat16", "device": "cpu"}, lora=LORA, quantization=FOUR)).model
    before = gradients(model)
    logits_of(model)
    after = gradients(model)
    assert set(before) == set(after) and len(before) > 50
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("values", [FOUR, FOUR | {"bnb_4bit_quant_type": "fp4"}, {"load_in_8bit": True}])
def test_dequantized_weights_answer_as_the_quantised_ones(tiny: Path, values: dict[str, Any]) -> None:
    import torch

    from llmbench.training.loading import quantized
    from llmbench.training.loading.model import load_base

    config = quantized.config(QuantizationSpec.model_validate(values), torch.float32)
    model = load_base(ModelSpec(), tiny, "cpu", torch.float32, config)
    before = logits_of(model)
    plain = quantized.dequantize(model, torch.float32)
    scale = float(before.abs().max())
    limit = 0.02 if "load_in_8bit" in values else 1e-5  # int8 rounds activations too
    assert float((logits_of(plain) - before).abs().max()) < limit * scale
    assert not quantized.is_quantized(plain) and type(plain.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_what_the_kernels_of_this_machine_cannot_do_is_known_before_the_data(write: Write) -> None:
    """DoRA asks for the weights' lengths, and bitsandbytes hides int8 weights on a CPU after their first use."""
    from llmbench.training.loading.model import load_model

    with pytest.raises(RecipeError, match=r"lora: cannot be trained on this quantised base on cpu .*; use plain LoRA"):
        load_model(write("dora8", "model.device=cpu", lora=LORA | {"use_dora": True}, quantization={"load_in_8bit": True}))


@pytest.mark.parametrize("adapter", [LORA | {"use_dora": True}, {"type": "oft"}, {"type": "ia3"}, {"type": "prompt_tuning"}])
def test_other_kinds_train_beside_four_bits(write: Write, adapter: dict[str, Any]) -> None:
    from llmbench.training.loading.model import load_model

    sections: dict[str, Any] = {"lora": None, "adapter": adapter} if "type" in adapter else {"lora": adapter}
    model = load_model(write("beside", quantization=FOUR, **sections)).model
    assert all(grad.isfinite().all() for grad in gradients(model).values())


@pytest.fixture(scope="module")
def prequantized(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as somebody would publish it in four bits."""
    import torch

    from llmbench.training.loading import quantized
    from llmbench.training.loading.model import load_base

    folder = tmp_path_factory.mktemp("published") / "tiny-4bit"
    config = quantized.config(QuantizationSpec.model_validate(FOUR), torch.float32)
    load_base(ModelSpec(), tiny, "cpu", torch.float32, config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny / name, folder / name)
    return folder


def test_a_base_that_comes_quantised_is_trained_on_and_merged(write: Write, prequantized: Path, tmp_path: Path) -> None:
    from llmbench.training.merging.merge import merge

    document = write("published", *FEW, model={"model_name_or_path": str(prequantized), "dtype": "float32"}, lora=LORA)
    run = runs.create(document)
    training.train(document, run)
    result = merge(run, output=tmp_path / "merged")
    assert result.onto == "dequantized" and result.lost.kl < 1e-9
    with pytest.raises(LlmbenchError, match=r"was published quantised, so there are no original weights"):
        merge(run, output=tmp_path / "other", onto="original")


@pytest.mark.parametrize(("method", "package"), [("gptq", "gptqmodel"), ("torchao", "torchao")])
def test_a_missing_package_is_named(write: Write, tiny: Path, tmp_path: Path, method: str, package: str) -> None:
    from llmbench.training.loading.model import load_model

    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(LlmbenchError, match=f"is quantised with {method}, which needs {package}. Run: pip install {package}"):
        load_model(write("missing", model={"model_name_or_path": str(base)}))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_gptq_and_awq_are_loaded_with_kernels_that_hand_gradients_down(tiny: Path, tmp_path: Path, method: str) -> None:
    from llmbench.training.loading import quantized

    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    given = {"quantization_config": {"quant_method": method, "bits": 4, "backend": "auto"}}
    (base / "config.json").write_text(json.dumps(config | given))
    loaded = quantized.trainable(base, trust_remote_code=False)["config"]
    assert loaded.quantization_config == given["quantization_config"] | {"backend": "auto_trainable"}
    assert quantized.trainable(tiny, trust_remote_code=False) == {}


def test_all_linear_takes_layers_that_are_not_torchs() -> None:
    import torch

    from llmbench.training.loading import quantized

    layer = torch.nn.Module()
    layer.register_buffer("qweight", torch.zeros(2))
    assert quantized.is_quantized_linear(layer) and not quantized.is_quantized_linear(torch.nn.Linear(2, 2))


def test_an_adapter_beside_a_quantised_base_keeps_its_digits(write: Write) -> None:
    """TRL rounds it to bfloat16 when its trainer is made."""
    import torch

    from llmbench.runs import Run
    from llmbench.training import methods
    from llmbench.training.loop.record import Recorder, Stop

    document = write("digits", lora=LORA, quantization=FOUR)
    job = training.prepare(document)
    trained = {name: p for name, p in job.loaded.model.named_parameters() if p.requires_grad}
    for parameter in trained.values():  # as one that is trained further
        parameter.data += torch.randn_like(parameter) * 1e-3
    before = {name: p.detach().clone() for name, p in trained.items()}
    trainer = methods.of(job.recipe.method).trainer(job, runs.create(document), Recorder(Run(Path("unused")), Stop()))
    after = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert any(not torch.equal(p, p.bfloat16().float()) for p in before.values())
