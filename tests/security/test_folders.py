"""Folders of models, adapters and checkpoints that would run code, or lead out of themselves, are refused unopened."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe, runs, scan, training
from llmbench.engine import admission
from llmbench.errors import EngineError, LlmbenchError, RunError
from llmbench.recipe import EmbedderSpec, ServeRecipe, TrainRecipe
from llmbench.runs import checkpoints

from ..training.conftest import write_recipe
from ..training.test_resume import stopped_at
from .conftest import Bomb


def on(folder: Path, model: Path, *overrides: str) -> TrainRecipe:
    return write_recipe(folder, "hostile", f"model.model_name_or_path={model}", *overrides)


def change(path: Path, **values: Any) -> None:
    """Adds keys to a JSON file, which is made where it is not."""
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(document | values), encoding="utf-8")


def test_the_bomb_is_one(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    from .conftest import _Deed

    pickle.loads(pickle.dumps(_Deed(tmp_path / "loaded")))
    assert (tmp_path / "loaded").is_dir()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.pkl", "model.ckpt"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_model_of_pickled_weights_is_not_opened(tmp_path: Path, model: Path, bomb: Bomb, name: str, packed: bool) -> None:
    from llmbench.training.loading.model import load_model

    (model / "model.safetensors").unlink()
    (model / name).write_bytes(bomb.packed if packed else bomb.raw)
    with pytest.raises(LlmbenchError, match=f"{name}: is a pickle, which can run code"):
        load_model(on(tmp_path, model))


def test_pickles_beside_safetensors_are_left_alone(tmp_path: Path, model: Path, bomb: Bomb) -> None:
    from llmbench.training.loading.model import load_model

    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin", "model.pth"):
        (model / name).write_bytes(bomb.packed)
    assert load_model(on(tmp_path, model)).model.num_parameters() > 1_000_000


@pytest.mark.parametrize("packed", [True, False])
def test_a_pickle_under_the_name_of_safetensors_is_seen(tmp_path: Path, model: Path, bomb: Bomb, packed: bool) -> None:
    from llmbench.training.loading.model import load_model

    (model / "model.safetensors").write_bytes(bomb.packed if packed else bomb.raw)
    with pytest.raises(LlmbenchError, match=r"model\.safetensors: is not a safetensors file despite its name"):
        load_model(on(tmp_path, model))


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "x.pth", "x.pkl"])
def test_a_pickled_adapter_is_not_served(tmp_path: Path, lora: Path, tiny: Path, bomb: Bomb, name: str) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(lora, adapter)
    (adapter / name).write_bytes(bomb.packed)
    with pytest.raises(EngineError, match="a pickle that can run code"):
        admission.admit(str(adapter), "llmbench/tiny", tiny)
    (adapter / name).unlink()
    (adapter / "adapter_model.safetensors").write_bytes(bomb.packed)
    with pytest.raises(LlmbenchError, match="is not a safetensors file"):
        admission.admit(str(adapter), "llmbench/tiny", tiny)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The outputs of a run that was stopped at step 3, with a checkpoint at 2, and its recipe."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        document = write_recipe(folder, "hostile", "training.max_steps=5", "training.save_steps=2")
        stopped_at(document, 3)
    return folder / "outputs", document.source


PICKLED = (
    "rng_state.pth", "rng_state_0.pth", "optimizer.pt", "scheduler.pt", "scaler.pt", "training_args.bin", "pytorch_model.bin",
    "adapter_model.bin",
)  # fmt: skip


@pytest.mark.parametrize("listed", [True, False])
def test_no_pickle_of_a_checkpoint_is_opened(
    stopped: tuple[Path, Path], home: Path, bomb: Bomb, listed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the files that llmbench wrote, and in the manifest as if it had written them."""
    shutil.copytree(stopped[0], home)
    document = recipe.load(stopped[1], TrainRecipe, ["training.max_steps=5", "training.save_steps=2"])
    run = runs.open_run("hostile")
    for name in PICKLED:
        (run.checkpoints / "checkpoint-3" / name).write_bytes(bomb.packed)
    if listed:
        checkpoints.seal(run.checkpoints / "checkpoint-3")
    training.train(document, runs.resume(document), resume=True)
    assert "a pickle, which can run code when loaded" in capsys.readouterr().err
    assert run.state == "finished"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors", "random.safetensors"])
def test_a_checkpoint_of_disguised_pickles_is_not_opened(stopped: tuple[Path, Path], home: Path, bomb: Bomb, name: str) -> None:
    """Every checkpoint has them, and each manifest vouches for them."""
    shutil.copytree(stopped[0], home)
    document = recipe.load(stopped[1], TrainRecipe, ["training.max_steps=5", "training.save_steps=2"])
    run = runs.open_run("hostile")
    for folder in checkpoints.every(run.checkpoints):
        (folder / name).write_bytes(bomb.packed)
        checkpoints.seal(folder)
    with pytest.raises(RunError, match="is not a safetensors file"):
        training.train(document, runs.resume(document), resume=True)


KEYS: list[tuple[str, dict[str, Any], str]] = [
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}, "auto_map"),
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "somebody/else--evil.Evil"}}, "auto_map"),
    ("config.json", {"text_config": {"auto_map": {"AutoConfig": "evil.Evil"}}}, r"text_config\.auto_map"),
    ("config.json", {"a": [{"b": {"trust_remote_code": True}}]}, r"a\[0\]\.b\.trust_remote_code"),
    ("config.json", {"keypoint_detector_config": {"trust_remote_code": "yes"}}, "trust_remote_code"),
    ("config.json", {"_attn_implementation_internal": "somebody/kernel"}, "_attn_implementation_internal"),
    ("config.json", {"text_config": {"_experts_implementation_internal": "x"}}, "_experts_implementation_internal"),
    ("config.json", {"attn_implementation": "somebody/kernel"}, "attn_implementation"),
    ("config.json", {"_attn_implementation": {"": "sdpa", "text_config": "a/b@main:f"}}, "_attn_implementation"),
    ("config.json", {"kernel_config": {"RMSNorm": "somebody/kernel"}}, "kernel_config"),
    ("config.json", {"use_kernels": True}, "use_kernels"),
    ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Evil"}}}, "custom_pipelines"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}, "auto_map"),
    ("tokenizer_config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ("generation_config.json", {"auto_map": {"x": "evil.Evil"}}, "auto_map"),
    ("generation_config.json", {"custom_generate": "somebody/else"}, "custom_generate"),
    ("adapter_config.json", {"auto_mapping": {"base_model_class": "E", "parent_library": "evil"}}, "auto_mapping"),
    ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Evil"}}, "auto_map"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "values", "place"), KEYS)
def test_a_model_that_asks_for_code_is_refused_before_it_is_loaded(
    tmp_path: Path, model: Path, bomb: Bomb, file: str, values: dict[str, Any], place: str
) -> None:
    from llmbench.training.loading.model import load_model

    (model / "evil.py").write_text(bomb.code, encoding="utf-8")
    change(model / file, **values)
    with pytest.raises(LlmbenchError, match=rf"{file}: \S*{place} asks for code to be loaded .*trust_remote_code: true"):
        load_model(on(tmp_path, model))
    serving = tmp_path / "serve.yaml"
    serving.write_text(json.dumps({"model": {"model_name_or_path": str(model)}, "variants": [{"name": "base"}]}))
    with pytest.raises(EngineError, match=f"serve.yaml: .*{file}: .*asks for code"):
        admission.admit_all(recipe.load(serving, ServeRecipe))
    scan.folder(model, trust_remote_code=True)  # with a pinned revision this is the one way


@pytest.mark.parametrize("values", [{"auto_map": None}, {"auto_map": {}}, {"trust_remote_code": False}, {"use_kernels": False}])
def test_keys_that_ask_for_nothing_pass(model: Path, values: dict[str, Any]) -> None:
    change(model / "config.json", **values)
    scan.folder(model)


def test_an_adapter_that_asks_for_code_is_not_served(tmp_path: Path, lora: Path, tiny: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(lora, adapter)
    change(adapter / "adapter_config.json", corda_config={"auto_map": {"x": "evil.Evil"}})
    with pytest.raises(LlmbenchError, match=r"adapter_config\.json: corda_config\.auto_map asks for code"):
        admission.admit(str(adapter), "llmbench/tiny", tiny)


def test_a_tokenizer_of_its_own_is_looked_through_too(tmp_path: Path, model: Path) -> None:
    from llmbench.training.loading.model import load_model

    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(LlmbenchError, match=r"tokenizer_config\.json: auto_map asks for code"):
        load_model(on(tmp_path, Path("llmbench/tiny"), f"model.tokenizer={model}"))


@pytest.mark.parametrize("kind", ["evil.Evil", "os.system", "sentence_transformers_evil.Evil", "sentence_transformers", None])
def test_an_embedder_whose_modules_are_foreign_code_is_refused(tmp_path: Path, bomb: Bomb, kind: str | None) -> None:
    from llmbench.retrieval.embedding import Embedder, locate

    folder = tmp_path / "embedder"
    shutil.copytree(locate("all-MiniLM-L6-v2"), folder)
    (folder / "evil.py").write_text(bomb.code, encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(LlmbenchError, match=r"modules\.json: \[0\]\.type names code outside sentence_transformers"):
        Embedder(EmbedderSpec(model_name_or_path=str(folder)))


def _weights_elsewhere(model: Path, outside: Path) -> None:
    shutil.move(model / "model.safetensors", outside / "model.safetensors")
    (model / "model.safetensors").symlink_to(outside / "model.safetensors")


def _folder_elsewhere(model: Path, outside: Path) -> None:
    (model / "more").symlink_to(outside)


def _by_dots(model: Path, outside: Path) -> None:
    (model / "notes.txt").symlink_to("../../../../../../../etc/passwd")


def _prefix_sibling(model: Path, outside: Path) -> None:
    sibling = model.with_name(f"{model.name}-evil")
    sibling.mkdir()
    (sibling / "x").write_text("x")
    (model / "x").symlink_to(sibling / "x")


@pytest.mark.parametrize("leave", [_weights_elsewhere, _folder_elsewhere, _by_dots, _prefix_sibling])
def test_a_link_out_of_a_model_is_refused(tmp_path: Path, model: Path, leave: Callable[[Path, Path], None]) -> None:
    from llmbench.training.loading.model import load_model

    outside = tmp_path / "outside"
    outside.mkdir()
    leave(model, outside)
    with pytest.raises(LlmbenchError, match=r"links to outside .*copy it there"):
        load_model(on(tmp_path, model))


def test_links_of_the_hubs_cache_are_no_way_out(tmp_path: Path, model: Path) -> None:
    cached = tmp_path / "models--somebody--model"
    snapshot = cached / "snapshots" / ("a" * 40)
    shutil.move(model, cached / "blobs")
    snapshot.mkdir(parents=True)
    for blob in (cached / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(Path(os.path.relpath(blob, snapshot)))
    scan.folder(snapshot)
    inside = snapshot / "same.json"
    inside.symlink_to("config.json")
    scan.folder(snapshot)
    (snapshot / "config2.json").symlink_to("/etc/hostname")
    with pytest.raises(LlmbenchError, match="links to outside"):
        scan.folder(snapshot)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "pytorch_model.bin", "a/b.safetensors"])
def test_an_index_names_files_of_its_own_folder_only(model: Path, name: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}), encoding="utf-8")
    with pytest.raises(LlmbenchError, match=r"only safetensors files of the same folder are allowed"):
        scan.folder(model)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested too deeply"),
        ('{"a": "' + "x" * 16_000_000 + '"}', "too large for a configuration"),
        ("{", "cannot be read as JSON"),
        ('{"a": ' + "1" * 5000 + "}", "cannot be read as JSON"),
    ],
)
def test_a_configuration_that_is_no_reasonable_json_is_refused(model: Path, text: str, says: str) -> None:
    (model / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(LlmbenchError, match=says):
        scan.folder(model)
