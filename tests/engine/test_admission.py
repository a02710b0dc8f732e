"""Which adapters may be served, and what the others are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench import provenance, runs
from llmbench.engine import admit, admit_all
from llmbench.errors import EngineError, LlmbenchError
from llmbench.recipe import ServeRecipe

BASE = "llmbench/tiny"


@pytest.fixture
def mine(lora: Path, tmp_path: Path) -> Path:
    """A copy of the adapter to spoil."""
    return Path(shutil.copytree(lora, tmp_path / "mine"))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_is_copied_to_a_place_named_by_its_content(mine: Path, tiny: Path, home: Path) -> None:
    first = admit(str(mine), BASE, tiny)
    assert first.folder == home / "adapters" / first.id
    assert sorted(p.name for p in first.folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert first.rank == 8
    again = admit(str(mine), BASE, tiny)
    assert again.folder == first.folder
    configure(mine, lora_alpha=99)
    assert admit(str(mine), BASE, tiny).folder != first.folder
    assert json.loads((first.folder / "adapter_config.json").read_text())["lora_alpha"] == 16


def test_nothing_half_copied_stays_in_the_store(mine: Path, tiny: Path, home: Path) -> None:
    admit(str(mine), BASE, tiny)
    admit(str(mine), BASE, tiny)
    assert len(list((home / "adapters").iterdir())) == 1


def test_a_store_that_cannot_be_written_is_named_in_one_line(mine: Path, tiny: Path, home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "adapters").write_text("")
    with pytest.raises(EngineError, match=r"adapters: the adapter cannot be copied there \(File exists\)\. Set LLMBENCH_HOME"):
        admit(str(mine), BASE, tiny)


@pytest.mark.parametrize(
    ("noted", "stops"), [([2, 7], (2, 7)), ([], ()), (None, ()), ("2", ()), ([-1], ()), ([True], ()), (list(range(99)), ())]
)
def test_the_stop_tokens_that_a_training_noted_come_along(mine: Path, tiny: Path, home: Path, noted: Any, stops: Any) -> None:
    (mine / "llmbench.json").write_text(
        json.dumps({"base_fingerprint": None} | ({"stop_token_ids": noted} if noted is not None else {}))
    )
    assert admit(str(mine), BASE, tiny).stops == stops


def test_a_runs_name_stands_for_its_adapter(mine: Path, tiny: Path, home: Path) -> None:
    run = runs.Run(home / "runs" / "my-run")
    run.mark("finished")
    shutil.copytree(mine, run.adapter)
    assert admit("my-run", BASE, tiny).source == "my-run"


def test_an_unfinished_run_has_no_adapter(tiny: Path, home: Path) -> None:
    runs.Run(home / "runs" / "my-run").mark("stopped")
    with pytest.raises(EngineError, match=r"run my-run has no adapter \(it is stopped\)"):
        admit("my-run", BASE, tiny)


def test_a_name_that_is_nothing_lists_the_runs(tiny: Path) -> None:
    with pytest.raises(EngineError, match="neither a folder nor a run"):
        admit("nobody", BASE, tiny)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "bias"),
        ({"r": 1024}, "rank 1024"),
        ({"r": 8, "rank_pattern": {"q_proj": 600}}, "rank 600"),
        ({"r": 0}, "r must be a whole number"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"alora_invocation_tokens": [1]}, "activated"),
        ({"trainable_token_indices": [5]}, "trained tokens"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_by_name(mine: Path, tiny: Path, changes: dict[str, Any], words: str) -> None:
    configure(mine, **changes)
    with pytest.raises(EngineError, match=words):
        admit(str(mine), BASE, tiny)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank_pattern": [1]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"q_proj": "8"}}, "q_proj must be a whole number above 0, not '8'"),
        ({"alpha_pattern": "x"}, "alpha_pattern must be an object"),
        ({"alpha_pattern": {"(": 8}}, "'(' is not a regular expression"),
        ({"target_modules": 5}, "target_modules must be a text or a list of texts"),
        ({"target_modules": ".*("}, "'.*(' is not a regular expression"),
        ({"target_parameters": [1]}, "target_parameters must be a list of texts"),
        ({"peft_type": ["LORA"]}, "peft_type must be a text"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"r": True}, "r must be a whole number"),
        ({"r": 4}, "has rank 8, but adapter_config.json says 4"),
        ({"r": 16}, "has rank 8, but adapter_config.json says 16"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number"),
    ],
)
def test_a_configuration_that_nobody_can_read_is_refused_in_one_line(
    mine: Path, tiny: Path, changes: dict[str, Any], words: str
) -> None:
    configure(mine, **changes)
    with pytest.raises(EngineError) as caught:
        admit(str(mine), BASE, tiny)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules"])
def test_a_configuration_without_what_vllm_needs_is_refused(mine: Path, tiny: Path, key: str) -> None:
    path = mine / "adapter_config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(EngineError, match=key):
        admit(str(mine), BASE, tiny)


def test_json_nested_without_end_is_refused(mine: Path, tiny: Path) -> None:
    for name in ("llmbench.json", "adapter_config.json"):
        (mine / name).write_text("[" * 100_000)
        with pytest.raises(EngineError, match=f"{name} cannot be read"):
            admit(str(mine), BASE, tiny)


def test_what_a_trainer_leaves_in_a_checkpoint_is_in_nobodys_way(mine: Path, tiny: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"):
        (mine / name).write_bytes(b"cos\nsystem\n")
    assert admit(str(mine), BASE, tiny).rank == 8


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "extra.pkl"])
def test_a_pickle_is_refused_without_being_opened(mine: Path, tiny: Path, name: str) -> None:
    (mine / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(EngineError, match=f"{name}, a pickle"):
        admit(str(mine), BASE, tiny)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(mine: Path, tiny: Path, name: str) -> None:
    (mine / name).unlink()
    with pytest.raises(EngineError, match=f"has no {name}"):
        admit(str(mine), BASE, tiny)


def test_a_cut_off_file_is_noticed(mine: Path, tiny: Path) -> None:
    weights = mine / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LlmbenchError, match="cut off"):
        admit(str(mine), BASE, tiny)


def test_weights_with_another_prefix_would_be_ignored_by_vllm(mine: Path, tiny: Path) -> None:
    weights = mine / "adapter_model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b"base_model.model.", b"other_prefix.abc.")
    weights.write_bytes(data[:8] + header + data[8 + length :])
    with pytest.raises(EngineError, match="does not start with base_model"):
        admit(str(mine), BASE, tiny)


def rewrite(folder: Path, change: Any) -> None:
    """Changes the tensors of an adapter: a function of name -> array."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = {name: np.array(array) for name, array in load_file(path).items()}
    save_file(change(tensors), path)


NORM = "base_model.model.model.norm"
HALF_A, HALF_B = (f"base_model.model.model.layers.0.mlp.down_proj.lora_{half}.weight" for half in "AB")


def poisoned(value: float, kind: str) -> Any:
    def change(tensors: dict[str, Any]) -> dict[str, Any]:
        last = sorted(tensors)[-1]
        tensors[last].flat[-1] = value
        return {name: array.astype(kind) for name, array in tensors.items()}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if "lora_A" in k}, "lacks its other half (lora_B)"),
        (lambda t: {k: v for k, v in t.items() if "lora_B" in k}, "lacks its other half (lora_A)"),
        (lambda t: {k: v for i, (k, v) in enumerate(sorted(t.items())) if i}, "lacks its other half (lora_A)"),
        (lambda t: {k.replace("layers.0.", "layers.99."): v for k, v in t.items()}, "layers.99.mlp.down_proj is adapted"),
        (lambda t: {k.replace("self_attn", "attention"): v for k, v in t.items()}, "layers.0.attention.k_proj is adapted"),
        (lambda t: {k.replace("layers.1.mlp", "blocks.1.mlp"): v for k, v in t.items()}, "no such layer"),
        (lambda t: t | {f"{NORM}.lora_A.weight": t[HALF_A], f"{NORM}.lora_B.weight": t[HALF_B]}, "is not a linear layer"),
        (lambda t: t | {HALF_B: t[HALF_B][:, :4]}, "has rank 8, but its other half has 4"),
        (lambda t: t | {HALF_A: t[HALF_A][0]}, "is not a matrix (its shape is"),
        (lambda t: t | {HALF_A: t[HALF_A].astype("int8")}, "is stored as I8"),
        (lambda t: t | {"base_model.model.lm_head.weight": t[HALF_A]}, "is not a LoRA matrix"),
        (lambda t: {k.replace(".weight", ".default.weight"): v for k, v in t.items()}, "is not a LoRA matrix"),
        (lambda t: t | {"base_model.model.a\n.lora_A.weight": t[HALF_A]}, "a\\n.lora_A.weight"),
        (poisoned(3e38, "float32"), "beyond 65,504"),
        (poisoned(65536, "float64"), "beyond 65,504"),
        (poisoned(float("nan"), "float32"), "holds NaN or infinity"),
        (poisoned(float("-inf"), "float16"), "holds NaN or infinity"),
        (poisoned(float("inf"), "float64"), "holds NaN or infinity"),
    ],
)
def test_weights_that_vllm_would_die_of_or_answer_nothing_with_are_refused(
    mine: Path, tiny: Path, change: Any, words: str
) -> None:
    rewrite(mine, change)
    with pytest.raises(EngineError) as caught:
        admit(str(mine), BASE, tiny)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_alpha": 1e30}, "multiplies the adapter by 1.25e\\+29"),
        ({"lora_alpha": -1e6}, "multiplies the adapter by 125000"),
        ({"lora_alpha": "16"}, "must be a number, not '16'"),
        ({"lora_alpha": float("nan")}, "must be a number"),
        ({"alpha_pattern": {"q_proj": 1e9}}, "q_proj 1e\\+09"),
        ({"use_rslora": True, "lora_alpha": 1e4}, "multiplies the adapter by 3535"),
    ],
)
def test_a_scale_that_drowns_the_base_is_refused(mine: Path, tiny: Path, changes: dict[str, Any], words: str) -> None:
    configure(mine, **changes)
    with pytest.raises(EngineError, match=words):
        admit(str(mine), BASE, tiny)


@pytest.mark.parametrize("half", ["lora_A", "lora_B", "lora"])
def test_an_adapter_that_does_nothing_is_served_and_told(mine: Path, tiny: Path, half: str) -> None:
    assert admit(str(mine), BASE, tiny).note == ""
    rewrite(mine, lambda tensors: {name: array * (-0.0 if half in name else 1) for name, array in tensors.items()})
    assert "its answers are exactly those of its base" in admit(str(mine), BASE, tiny).note


def test_an_adapter_multiplied_with_zero_does_nothing(mine: Path, tiny: Path) -> None:
    configure(mine, lora_alpha=0)
    assert "its answers are exactly those of its base" in admit(str(mine), BASE, tiny).note


def test_numbers_in_bfloat16_are_looked_at_too(mine: Path, tiny: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = mine / "adapter_model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    assert admit(str(mine), BASE, tiny).note == ""
    tensors[sorted(tensors)[3]].view(-1)[5] = torch.nan
    save_file(tensors, path)
    with pytest.raises(EngineError, match="holds NaN"):
        admit(str(mine), BASE, tiny)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", 5), ("dtype", []), ("dtype", "F64"), ("shape", [-8, -64]), ("shape", [8, 1]), ("data_offsets", [0, 3]),
     ("data_offsets", [8, 0]), ("data_offsets", [0.0, 8.0])],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused(mine: Path, tiny: Path, key: str, value: Any) -> None:
    path = mine / "adapter_model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[HALF_A][key] = value
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])
    with pytest.raises(EngineError, match="not a complete safetensors file"):
        admit(str(mine), BASE, tiny)


def test_a_base_whose_weights_are_packed_is_no_other_base(mine: Path, tiny: Path, tmp_path: Path) -> None:
    """bitsandbytes stores four bits a number, all numbers of a matrix in one column."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    packed = {k: np.zeros((v.size // 2, 1), "uint8") if k.endswith("proj.weight") else v for k, v in weights.items()}
    save_file(packed, base / "model.safetensors")
    configure(mine, base_model_name_or_path=str(base))
    assert admit(str(mine), str(base), base).note == ""


def test_a_base_that_names_its_layers_otherwise_is_told(mine: Path, tiny: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    save_file({f"language_{name}": array for name, array in weights.items()}, base / "model.safetensors")
    configure(mine, base_model_name_or_path=str(base))
    assert "names none of the layers" in admit(str(mine), str(base), base).note


def test_an_adapter_of_another_base_is_refused_and_both_are_named(mine: Path, tiny: Path) -> None:
    configure(mine, base_model_name_or_path="org/other-7b")
    with pytest.raises(EngineError, match=r"trained on org/other-7b, but the recipe serves llmbench/tiny"):
        admit(str(mine), BASE, tiny)


def test_the_base_is_known_by_its_content_where_training_wrote_it_down(mine: Path, tiny: Path) -> None:
    configure(mine, base_model_name_or_path="somewhere/else")
    fingerprint = provenance.fingerprint(tiny)
    (mine / "llmbench.json").write_text(json.dumps({"base_fingerprint": fingerprint}))
    assert admit(str(mine), BASE, tiny).rank == 8
    for part, words in (("weights", "weights"), ("chat_template", "chat template")):
        (mine / "llmbench.json").write_text(json.dumps({"base_fingerprint": fingerprint | {part: "0" * 64}}))
        with pytest.raises(EngineError, match=words):
            admit(str(mine), BASE, tiny)


def test_a_base_of_other_width_is_noticed_by_its_shapes(mine: Path, tiny: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    weights = other / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b"[256,256]", b"[128,512]").ljust(length)
    weights.write_bytes(data[:8] + header + data[8 + length :])
    configure(mine, base_model_name_or_path=str(other))
    with pytest.raises(EngineError, match="does not fit"):
        admit(str(mine), str(other), other)


def test_the_recipe_and_the_variant_are_named_with_the_fault(mine: Path) -> None:
    configure(mine, use_dora=True)
    recipe = ServeRecipe.model_validate({"variants": [{"name": "mine", "adapter": str(mine)}]})
    with pytest.raises(EngineError, match=r"recipe\.yaml: variant mine: .*DoRA"):
        admit_all(recipe)
