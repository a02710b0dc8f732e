"""`llmbench merge`: what is written answers as base and adapter did, or nothing is written."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import provenance, runs, training
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RunError
from llmbench.runs import Run

from .conftest import FEW, LORA, Kind, Write, logits_of

Kinds = Callable[[str], Kind]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rslora", "eva", "ia3", "rows", "oft", "vera", "whole-tied")]


@pytest.mark.parametrize("name", ["lora", "dora", "pissa", "whole", "tokens", *SLOW])
def test_a_merged_model_answers_as_base_and_adapter_did(kind: Kinds, tmp_path: Path, name: str) -> None:
    """The bundled model's embedding is its head too: `whole` parts them, `whole-tied` and `tokens` do not."""
    import torch

    from llmbench.training.loading.model import load_base
    from llmbench.training.merging.merge import merge

    made = kind(name)
    result = merge(made.run, output=tmp_path / "merged")
    assert result.trained.kl > 1e-6 and result.lost.kl < 1e-9 and result.greedy_same == result.texts
    model = load_base(made.recipe.model, result.folder, "cpu", torch.float32)
    assert torch.allclose(logits_of(model), made.logits, atol=1e-3)
    assert model.config.tie_word_embeddings == (name != "whole")


def test_a_merged_folder_is_a_model_to_train_and_to_serve(kind: Kinds, write: Write, tmp_path: Path) -> None:
    from llmbench.training.loading.model import load_model
    from llmbench.training.merging.merge import merge

    result = merge(kind("tokens").run, output=tmp_path / "merged")
    names = {path.name for path in result.folder.iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert wanted < names and not {name for name in names if name.endswith((".bin", ".pt"))}
    manifest = json.loads((result.folder / "llmbench.json").read_text())
    assert manifest["fingerprint"] == provenance.fingerprint(result.folder) and manifest["merged"]["lost"]["kl"] < 1e-9
    loaded = load_model(write("after", model={"model_name_or_path": str(result.folder)}, lora=LORA))
    assert loaded.tokenizer.encode("<<code>>") == [1024] and loaded.model.config.vocab_size == 1026


def test_a_merged_model_keeps_the_chat_template_that_the_recipe_names(write: Write, home: Path, tmp_path: Path) -> None:
    from llmbench import assets
    from llmbench.training.merging.merge import merge

    known = (Path(assets.model_folder(assets.TINY)) / "chat_template.jinja").read_text(encoding="utf-8")
    own = tmp_path / "own.jinja"
    own.write_text("{# the recipe's own #}" + known, encoding="utf-8")
    document = write("own", *FEW, f"data.chat_template={own}", model={"dtype": "float32"})
    run = runs.create(document)
    training.train(document, run)
    result = merge(run, output=tmp_path / "merged")
    assert (result.folder / "chat_template.jinja").read_text(encoding="utf-8") == own.read_text(encoding="utf-8")


def test_qlora_is_merged_onto_the_weights_that_it_was_trained_on(kind: Kinds, tmp_path: Path) -> None:
    """The base before it was rounded to four bits is another model: merged onto it, the adapter answers otherwise."""
    from llmbench.training.merging.merge import merge

    made = kind("qlora")
    result = merge(made.run, output=tmp_path / "merged")
    assert result.onto == "dequantized"
    assert result.candidates["dequantized"].kl < 1e-9 < 1e-3 < result.candidates["original"].kl
    config = json.loads((result.folder / "config.json").read_text())
    assert "quantization_config" not in config
    with pytest.raises(LlmbenchError, match=r"differs from base \+ adapter more than float32 explains .* --onto dequantized"):
        merge(made.run, output=tmp_path / "other", onto="original")
    assert not [path for path in tmp_path.iterdir() if "other" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("int8", 2e-2), ("qdora", 1e-9), ("qia3", 1e-3)])
def test_other_quantised_bases_are_merged_too(kind: Kinds, tmp_path: Path, name: str, limit: float) -> None:
    from llmbench.training.merging.merge import merge

    result = merge(kind(name).run, output=tmp_path / "merged")
    assert result.lost.kl < limit and set(result.candidates) == {"dequantized", "original"}


def test_a_rounded_merge_is_within_its_tolerance(kind: Kinds, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from llmbench.training.merging.merge import merge

    result = merge(kind("lora").run, output=tmp_path / "merged", dtype="bfloat16")
    assert 0 < result.lost.kl < result.tolerance.kl
    assert {tensor.dtype for tensor in load_file(result.folder / "model.safetensors").values()} == {torch.bfloat16}


def copied(made: Kind, home: Path) -> Run:
    """The run in the test's own outputs folder, to spoil."""
    return Run(Path(shutil.copytree(made.run.folder, home / "runs" / made.run.name)))


def scaled(run: Run, factor: float) -> None:
    """Multiplies the adapter's B."""
    from safetensors.torch import load_file, save_file

    path = run.adapter / "adapter_model.safetensors"
    state = {name: tensor * factor if "lora_B" in name else tensor for name, tensor in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


def test_an_untrained_adapter_is_the_base_and_that_is_an_error(kind: Kinds, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    run = copied(kind("lora"), home)
    scaled(run, 0.0)
    with pytest.raises(
        LlmbenchError, match=r"the adapter changes nothing .* so the merged model would equal the base. Train for longer"
    ):
        merge(run)
    assert not (run.folder / "merged").exists()


def test_what_rounding_would_wipe_out_is_not_written(kind: Kinds, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    run = copied(kind("lora"), home)
    scaled(run, 0.01)
    with pytest.raises(LlmbenchError, match=r"bfloat16 rounds away what was trained .* --dtype float32"):
        merge(run, dtype="bfloat16")
    assert not [path for path in run.folder.iterdir() if "merged" in path.name]


def test_a_merge_that_lost_the_adapter_is_an_error(kind: Kinds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an export that writes the untouched base."""
    from llmbench.training.merging import weights
    from llmbench.training.merging.merge import merge

    made = kind("lora")
    monkeypatch.setattr(weights, "merged", lambda model, dtype: model.unload())
    with pytest.raises(
        LlmbenchError, match=r"the merged model equals the base: the merge lost the adapter, and nothing was written"
    ):
        merge(made.run, output=tmp_path / "merged")
    assert list(tmp_path.glob("*merged*")) == []


def test_a_damaged_merge_is_an_error(kind: Kinds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by one that ties a head to an embedding which was trained apart from it."""
    from llmbench.training.merging import weights
    from llmbench.training.merging.merge import merge

    write_whole = weights.write

    def tied(model: Any, plan: Any, part: Path) -> None:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
        write_whole(model, plan, part)

    monkeypatch.setattr(weights, "write", tied)
    with pytest.raises(LlmbenchError, match=r"differs from base \+ adapter more than float32 explains"):
        merge(kind("whole").run, output=tmp_path / "merged")
    assert list(tmp_path.glob("*merged*")) == []


def test_prompt_tuning_cannot_be_merged(kind: Kinds, tmp_path: Path) -> None:
    from llmbench.training.merging.merge import merge

    with pytest.raises(LlmbenchError, match=r"is prompt tuning: .* Prompt tuning cannot be merged"):
        merge(kind("prompt").run, output=tmp_path / "merged")


def test_an_unfinished_run_is_not_merged(kind: Kinds, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    run = copied(kind("lora"), home)
    run.mark("stopped", "interrupted")
    with pytest.raises(RunError, match=r"Run lora is stopped, so there is nothing to merge yet"):
        merge(run)


def test_a_run_of_all_parameters_has_nothing_to_merge(write: Write) -> None:
    from llmbench.training.merging.merge import merge

    document = write("whole-model", *FEW, "training.max_steps=1", lora=None)
    run = runs.create(document)
    training.train(document, run)
    with pytest.raises(RunError, match=r"trained all parameters: .* is already the complete model"):
        merge(run)


def test_a_base_that_changed_since_is_refused(kind: Kinds, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    run = copied(kind("lora"), home)
    path = run.adapter / "llmbench.json"
    manifest = json.loads(path.read_text())
    manifest["base_fingerprint"]["weights"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(
        LlmbenchError, match=r"llmbench/tiny: its weights changed since run lora was trained \(000000000000 then"
    ):
        merge(run)


def test_a_folder_that_is_there_is_kept_unless_told(kind: Kinds, tmp_path: Path) -> None:
    from llmbench.training.merging.merge import merge

    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").write_text("keep")
    with pytest.raises(LlmbenchError, match=r"already exists. Replace it with --overwrite"):
        merge(kind("lora").run, output=tmp_path / "merged")
    assert (tmp_path / "merged" / "mine").read_text() == "keep"


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow past 1 MB: the tokenizer fits, the weights do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_leaves_nothing(kind: Kinds, tmp_path: Path, small_disk: None) -> None:
    from llmbench.training.merging.merge import merge

    with pytest.raises(LlmbenchError, match=r"merged: cannot be written \(disk full\)"):
        merge(kind("lora").run, output=tmp_path / "merged")
    assert list(tmp_path.glob("*merged*")) == []


def test_the_verb_prints_the_proof(kind: Kinds, home: Path, tmp_path: Path) -> None:
    run = copied(kind("lora"), home)
    result = CliRunner().invoke(cli, ["merge", "lora", "--json"])
    assert result.exit_code == 0, result.output
    proof = json.loads(result.stdout)
    assert proof["folder"] == str(run.folder / "merged") and proof["lost"]["kl"] < 1e-9 and proof["rows"] == 4
    shutil.rmtree(run.folder / "merged")
    for source in run.recipe["data"]["train"]:  # its data is gone: fixed texts still tell
        Path(source["path"]).rename(tmp_path / "away.jsonl")
    try:
        lines = CliRunner().invoke(cli, ["merge", "lora"]).stdout.splitlines()
    finally:
        (tmp_path / "away.jsonl").rename(run.recipe["data"]["train"][0]["path"])
    assert lines[0].startswith(f"Merged: {run.folder / 'merged'} (float32, onto the base)")
    assert "0 of the texts are from its training data" in lines[3]
    assert lines[-1] == f"Next: serve it (in a serving recipe, model.model_name_or_path: {run.folder / 'merged'})"


def test_an_unknown_run_is_one_line(home: Path) -> None:
    result = CliRunner().invoke(cli, ["merge", "nonesuch"])
    assert isinstance(result.exception, RunError) and "There is no run nonesuch" in str(result.exception)
