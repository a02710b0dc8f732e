"""Model folders whose files contradict each other, lack something, or hold more than text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import architecture
from llmbench.cli.check import _model
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe

from .conftest import Write


def config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def deeper(folder: Path, layers: int = 6) -> None:
    kinds = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("layer_types")
    config(folder, num_hidden_layers=layers, **({"layer_types": ["full_attention"] * layers} if kinds else {}))


def gguf(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "tiny.Q4_K_M.gguf").write_bytes(b"GGUF")


def gguf_alone(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "tiny.Q4_K_M.gguf").write_bytes(b"GGUF")


def shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    where = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            shards,
            "model-00002-of-00002.safetensors is missing, although model.safetensors.index.json lists it. Download it again.",
        ),
        (gguf, "has its weights only as GGUF (tiny.Q4_K_M.gguf), which are for inference. Get the model's safetensors"),
        (gguf_alone, "holds a GGUF (tiny.Q4_K_M.gguf), which is for inference. Name the folder or hub name of the model"),
        (deeper, "the weights have 4 layers and config.json says 6. Download both again."),
        (lambda f: deeper(f, 2), "the weights have 4 layers and config.json says 2. Download both again."),
        (
            lambda f: config(f, hidden_size=512),
            "(model.embed_tokens.weight) are 256 wide and config.json says 512. Download both again.",
        ),
        (lambda f: config(f, hidden_size="256"), "hidden_size should be a whole number above 0, not '256'. Download it again."),
        (lambda f: config(f, num_attention_heads=0), "num_attention_heads should be a whole number above 0, not 0."),
        (lambda f: config(f, vocab_size=True), "vocab_size should be a whole number above 0, not True."),
    ],
    ids=["shard", "gguf", "gguf-alone", "layers", "fewer-layers", "width", "text", "zero", "truth"],
)
def test_files_that_contradict_each_other_are_one_line_in_check_and_train(
    spoil: Callable[[Path], None], says: str, tiny: Path, tmp_path: Path, write: Write
) -> None:
    from llmbench.training.loading.model import load_model

    folder = Path(shutil.copytree(tiny, tmp_path / "odd"))
    spoil(folder)
    document = write("odd", f"model.model_name_or_path={folder}")
    assert says in str(_model(document))
    with pytest.raises(LlmbenchError) as refused:
        load_model(document)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_weight_that_is_missing_is_not_made_up(tiny: Path, tmp_path: Path, write: Write) -> None:
    """transformers fills it with random numbers and warns."""
    from safetensors.torch import load_file, save_file

    from llmbench.training.loading.model import load_model

    folder = Path(shutil.copytree(tiny, tmp_path / "odd"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LlmbenchError, match=r"its weights lack model\.layers\.1\.mlp\.up_proj\.weight, which would be random"):
        load_model(write("odd", f"model.model_name_or_path={folder}"))


def test_a_folder_without_a_tokenizer_is_named(tiny: Path, tmp_path: Path, write: Write) -> None:
    """transformers makes one of no words by the model's class, and then no row has anything to learn."""
    from llmbench.training.loading.model import load_model

    folder = Path(shutil.copytree(tiny, tmp_path / "odd"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(LlmbenchError, match=r"odd: has no tokenizer \(tokenizer\.json\)\. Download it again"):
        load_model(write("odd", f"model.model_name_or_path={folder}"))


@pytest.mark.parametrize("named", ["flash_attention_2", "some_attention"])
def test_an_attention_that_config_json_names_does_not_decide_for_this_machine(
    named: str, tiny: Path, tmp_path: Path, write: Write
) -> None:
    from llmbench.training.loading.model import load_model

    folder = Path(shutil.copytree(tiny, tmp_path / "odd"))
    config(folder, _attn_implementation=named)
    for wanted, taken in (("auto", "sdpa"), ("eager", "eager")):
        document = write("odd", f"model.model_name_or_path={folder}", f"model.attn_implementation={wanted}")
        assert load_model(document).model.config._attn_implementation == taken
    assert architecture.attention({"model_type": "bloom", "_attn_implementation": named}, "auto") == "eager"
    assert architecture.attention({"model_type": "qwen3"}, "auto") is None


@pytest.fixture(scope="module")
def seeing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of images and text with random weights, in the form of Gemma 3."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("seeing")
    widths = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = widths | {"vocab_size": 1024, "num_key_value_heads": 2, "head_dim": 8, "eos_token_id": 0}
    torch.manual_seed(0)
    made = transformers.Gemma3Config(
        text_config=text,
        vision_config=widths | {"num_hidden_layers": 1, "image_size": 16, "patch_size": 8},
        mm_tokens_per_image=4,
    )
    transformers.Gemma3ForConditionalGeneration(made).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def test_of_a_model_of_images_and_text_the_text_part_is_adapted(seeing: Path, write: Write) -> None:
    from llmbench.training.loading import targets
    from llmbench.training.loading.model import load_model, stop_at

    document: TrainRecipe = write("odd", f"model.model_name_or_path={seeing}")
    assert _model(document) is None
    loaded = load_model(document)
    trained = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 7 and all(".language_model." in name for name in trained)
    [left] = [one for one in loaded.left_out if one.reason.startswith("it processes images or audio")]
    assert left.count == 6 + 3, "a layer, and the pooling head"
    assert left.names == ("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj")
    stop_at(loaded.model, [2])
    assert loaded.model.config.get_text_config().eos_token_id == [0, 2]
    assert targets.linears(loaded.model.get_base_model(), lora=True)[0]
