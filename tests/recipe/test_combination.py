"""What does not go together is said when the recipe is read, and so is what vLLM will not load."""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbench import recipe
from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.recipe.servability import servability, unservable

FOUR, EIGHT = {"load_in_4bit": True}, {"load_in_8bit": True}
HEAD = ["q_proj", "lm_head"]


def load(folder: Path, *overrides: str, **sections: Any) -> TrainRecipe:
    (folder / "rows.jsonl").write_text("{}\n")
    document = {"name": "mine", "data": {"train": [{"path": "rows.jsonl"}]}} | sections
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return recipe.load(path, TrainRecipe, overrides)


def lora(**values: Any) -> dict[str, Any]:
    return {"lora": values}


@pytest.fixture
def base(tmp_path: Path, tiny: Path) -> Path:
    """The bundled model's config.json in a folder of its own, to be changed."""
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copyfile(tiny / "config.json", folder / "config.json")
    return folder


def configure(folder: Path, **changes: Any) -> dict[str, Any]:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return {"model": {"model_name_or_path": str(folder)}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # sections, the reason, the nearest that works
    (lora(init_lora_weights="pissa") | {"quantization": FOUR}, "PiSSA decomposes the base's weights", "use eva or true"),
    (lora(init_lora_weights="pissa_niter_4") | {"quantization": EIGHT}, "PiSSA decomposes", "or leave quantization out"),
    (lora(init_lora_weights="olora") | {"quantization": FOUR}, "OLoRA decomposes the base's weights", "use eva or true"),
    (lora(init_lora_weights="mica") | {"quantization": FOUR}, "MiCA reads", "use eva or true"),
    (lora(init_lora_weights="orthogonal") | {"quantization": FOUR}, "floating-point", "use eva or true"),
    (lora(init_lora_weights="loftq") | {"quantization": FOUR}, "LoftQ rounds the weights itself", "leave quantization out"),
    (lora(init_lora_weights="mica", use_dora=True), "PEFT does not support MiCA with DoRA", "use_dora: false"),
    (lora(init_lora_weights="pissa", use_dora=True), "cannot be undone", "init_lora_weights: eva"),
    (lora(init_lora_weights="olora", use_dora=True), "cannot be undone", "use_dora: false"),
    (lora(init_lora_weights="mica", loraplus_lr_ratio=16), "MiCA trains A alone", "leave it out"),
    (lora(loraplus_lr_ratio=16) | {"training": {"optim": "muon"}}, "is for AdamW, not for muon", "adamw_torch_fused"),
    (lora(layers_to_transform=[0]), "only with a list of target_modules", "target_modules: [q_proj"),
    (lora(target_modules=HEAD), "an adapter on lm_head would never be trained", "modules_to_save: [lm_head]"),
    (lora(target_modules=".*(q_proj|lm_head)"), "would never be trained", "modules_to_save: [lm_head]"),
    (lora(target_modules=["embed_tokens"]), "one matrix with the head", "modules_to_save: [embed_tokens], ensure_weight_tying: true"),
    (lora(trainable_token_indices=[5], modules_to_save=["embed_tokens"]), "trains the whole of embed_tokens", "leave one of them out"),
    (lora(trainable_token_indices=[5], modules_to_save=["lm_head"]), "together with single rows", "modules_to_save: [embed_tokens, lm_head]"),
    (lora(trainable_token_indices=[5], init_lora_weights="eva"), "EVA cannot read", "init_lora_weights: true"),
    (lora(init_lora_weights="eva") | {"tokenizer": {"add_tokens": ["<a>"]}}, "EVA cannot read", "init_lora_weights: true"),
    (lora(init_lora_weights=False), "random noise", "use true"),
    (lora(init_lora_weights="corda"), "needs a separate preparation step", "is eva"),
    (lora(loftq_config={"loftq_bits": 4}), "loftq_config is for", "init_lora_weights: loftq"),
    (lora(eva_config={"rho": 1.0}), "eva_config is for", "init_lora_weights: eva"),
    (lora(target_modules="(q_proj"), "and this is not a valid one", ""),
    ({"adapter": {"type": "vera", "target_modules": ["embed_tokens"]}}, "vera for linear layers only", "modules_to_save: [embed_tokens]"),
    ({"adapter": {"type": "ia3", "target_modules": ["embed_tokens"]}}, "ia3 for linear layers only", "modules_to_save: [embed_tokens]"),
    ({"adapter": {"type": "oft", "target_modules": ["embed_tokens"]}}, "one matrix with the head", "modules_to_save: [embed_tokens]"),
    ({"adapter": {"type": "oft", "target_modules": HEAD}}, "would never be trained", "modules_to_save: [lm_head]"),
    ({"adapter": {"type": "oft", "oft_block_size": 48}}, "48 does not divide the model's width 256", "use 32"),
    ({"adapter": {"type": "oft"}, "tokenizer": {"add_tokens": ["<a>"]}}, "would not be trained", "modules_to_save: [embed_tokens, lm_head]"),
    ({"adapter": {"type": "prompt_tuning"}, "training": {"torch_compile": True}, "data": {"train": [{"path": "rows.jsonl"}], "max_length": 64}}, "bypasses the compiled layers", "use lora"),
    ({"adapter": {"type": "prompt_tuning"}, "data": {"train": [{"path": "rows.jsonl"}], "max_length": 1020}}, "more than the 1,024", "data.max_length: 1004"),
    ({"adapter": {"type": "prompt_tuning", "prompt_tuning_init": "TEXT"}}, "go together", ""),
    ({"adapter": {"type": "oft"}, "lora": {"r": 4}}, "choose one", "lora=null"),
    ({"lora": {"r": 4}, "freeze": {"layers": 1}}, "freezes the base already", "write `lora: null`"),
    ({"lora": None, "quantization": FOUR}, "nothing is left to train", "add a lora section"),
    ({"quantization": FOUR | EIGHT}, "load_in_4bit and load_in_8bit", "choose one"),
    ({"tokenizer": {"add_tokens": ["<a>", "<a>"]}}, "twice", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "reason", "nearest"), REFUSED)
def test_what_does_not_go_together_is_one_line_with_what_does(
    tmp_path: Path, sections: dict[str, Any], reason: str, nearest: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, **sections)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and re.match(r"\S*mine\.yaml:\d+: ", text)
    assert reason in text and nearest in text


def test_the_line_is_that_of_the_field_at_fault(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.yaml:7: lora\.layers_to_transform: "):
        load(tmp_path, lora={"r": 4, "layers_to_transform": 1})
    with pytest.raises(RecipeError, match=r"^lora\.use_dora=true: pissa "):
        load(tmp_path, "lora.use_dora=true", lora={"init_lora_weights": "pissa"})


def test_a_typo_in_an_adapter_names_the_field_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"adapter\.oft_block_sise is not a field\. Did you mean oft_block_size\?"):
        load(tmp_path, adapter={"type": "oft", "oft_block_sise": 32})
    with pytest.raises(
        RecipeError, match=r"adapter\.type is missing or unknown: it is one of 'oft', 'vera', 'ia3', 'prompt_tuning'"
    ):
        load(tmp_path, adapter={"type": "oftt"})


def test_an_untied_base_takes_an_adapter_on_its_embedding(tmp_path: Path, base: Path) -> None:
    model = configure(base, tie_word_embeddings=False)
    assert load(tmp_path, **model, **lora(target_modules=["embed_tokens"])).lora is not None


@pytest.mark.parametrize(
    ("method", "sections", "says"),
    [
        ("gptq", {"quantization": FOUR}, "is already quantised (gptq); leave the section out"),
        ("bitsandbytes", {"quantization": FOUR}, "is already quantised (bitsandbytes)"),
        ("awq", {"lora": None}, "are quantised (awq); add a lora section"),
        ("aqlm", {"adapter": {"type": "vera"}}, "not for aqlm; use lora"),
        ("hqq", {}, "is quantised with hqq, on which no adapter can be trained; use the unquantised model"),
        ("torchao", {"lora": {"init_lora_weights": "pissa"}}, "which a quantised base does not have"),
        ("fp8", {}, "is quantised with fp8, on which no adapter can be trained; use the unquantised model"),
    ],
)
def test_a_base_that_comes_quantised_is_known_from_its_config(
    tmp_path: Path, base: Path, method: str, sections: dict[str, Any], says: str
) -> None:
    model = configure(base, quantization_config={"quant_method": method})
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, **model, **sections)
    assert says in str(caught.value)


def test_adapter_or_freeze_alone_mean_that_there_is_no_lora(tmp_path: Path) -> None:
    assert load(tmp_path, adapter={"type": "ia3"}).lora is None
    assert load(tmp_path, freeze={"layers": 1}).lora is None
    assert load(tmp_path).lora is not None


REMEDY = "Merge it: llmbench merge mine, then serve that folder (model.model_name_or_path)"


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        (lora(use_dora=True), "is a DoRA adapter"),
        (lora(modules_to_save=["lm_head"]), "contains whole modules (modules_to_save: lm_head)"),
        (lora(bias="all"), "contains bias terms"),
        (lora(trainable_token_indices=[7]), "contains trained tokens"),
        ({"tokenizer": {"add_tokens": ["<a>"]}}, "contains trained tokens"),
        (lora(r=600), "has rank 600, above the limit of 512"),
        (lora(r=8, rank_pattern={"q_proj": 513}), "has rank 513"),
        (lora(r=300, init_lora_weights="pissa"), "has rank 600"),
        (lora(r=300, init_lora_weights="eva"), "has rank 600"),
        (lora(init_lora_weights="loftq"), "starts from loftq"),
        ({"adapter": {"type": "oft"}}, "is an OFT adapter, and only LoRA is served"),
        ({"adapter": {"type": "vera"}}, "is a VERA adapter"),
        ({"adapter": {"type": "ia3"}}, "is an IA3 adapter"),
    ],
)
def test_what_vllm_will_not_load_is_said_with_the_remedy(tmp_path: Path, sections: dict[str, Any], reason: str) -> None:
    [line] = servability(load(tmp_path, **sections))
    assert line.startswith("vLLM cannot load this adapter: it ") and reason in line and line.endswith(REMEDY)


def test_prompt_tuning_can_neither_be_served_nor_merged(tmp_path: Path) -> None:
    [line] = servability(load(tmp_path, "data.max_length=512", adapter={"type": "prompt_tuning"}))
    assert line.endswith("Prompt tuning cannot be merged either. Train a LoRA to serve it (`lora:` in place of `adapter:`)")


@pytest.mark.parametrize(
    "sections",
    [
        {}, lora(use_rslora=True), lora(r=512), lora(r=256, init_lora_weights="pissa"), lora(init_lora_weights="eva"),
        lora(loraplus_lr_ratio=16), {"lora": None}, {"quantization": FOUR}, lora(target_modules=["q_proj"], layers_to_transform=[0]),
    ],
)  # fmt: skip
def test_nothing_is_said_of_what_vllm_loads(tmp_path: Path, sections: dict[str, Any]) -> None:
    assert servability(load(tmp_path, **sections)) == []


def test_the_ranks_are_those_of_vllm() -> None:
    """Read from vLLM's source, which is not imported anywhere."""
    from importlib.util import find_spec

    from llmbench.engine.command import _RANKS

    found = find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed beside llmbench")
    text = (Path(found.origin).parent / "config" / "lora.py").read_text(encoding="utf-8")
    line = re.search(r"MaxLoRARanks = Literal\[([\d, ]+)\]", text)
    assert line is not None and tuple(map(int, line[1].split(","))) == _RANKS


def test_several_reasons_are_all_told() -> None:
    assert len(unservable({"peft_type": "LORA", "r": 8, "use_dora": True, "modules_to_save": ["lm_head"], "bias": "all"})) == 3


def adapter_config(folder: Path, **values: Any) -> str:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"], "bias": "none"} | values
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_recipe_that_goes_on_takes_the_adapters_own_settings(tmp_path: Path) -> None:
    start = adapter_config(tmp_path / "old", use_dora=True, init_lora_weights="eva")
    document = load(tmp_path, adapter_name_or_path=start, lora={"lora_dropout": 0.1})
    assert document.lora is not None
    assert (document.lora.r, document.lora.target_modules, document.lora.use_dora) == (4, ["q_proj", "v_proj"], True)
    assert (document.lora.init_lora_weights, document.lora.lora_dropout) == (True, 0.1)
    other = load(tmp_path, adapter_name_or_path=adapter_config(tmp_path / "oft", peft_type="OFT", oft_block_size=16))
    assert other.lora is None and other.adapter is not None and other.adapter.type == "oft"


@pytest.mark.parametrize(
    ("config", "sections", "says"),
    [
        ({}, {"lora": {"r": 16}}, "lora.r: 16, but the adapter it continues from has 4; leave it out"),
        ({}, {"adapter": {"type": "oft"}}, "is a LORA adapter; leave out the section adapter"),
        ({"peft_type": "LOHA"}, {}, "is a LOHA adapter, which llmbench does not train"),
        ({"lora_bias": True}, {}, "has lora_bias, which llmbench does not train"),
    ],
)
def test_a_recipe_may_not_contradict_the_adapter_it_goes_on_from(
    tmp_path: Path, config: dict[str, Any], sections: dict[str, Any], says: str
) -> None:
    start = adapter_config(tmp_path / "old", **config)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, adapter_name_or_path=start, **sections)
    assert says in str(caught.value)


def test_an_adapter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone is neither a run with an adapter nor a folder with adapter_config.json"):
        load(tmp_path, adapter_name_or_path="gone")
