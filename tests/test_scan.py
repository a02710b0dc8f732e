"""Files that are cut off, as after a broken download: which one, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llmbench import scan
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError


@pytest.fixture
def cut(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "cut"))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_weights_that_are_cut_off_are_named_with_the_bytes_they_must_have(cut: Path) -> None:
    whole = (cut / "model.safetensors").stat().st_size
    halve(cut / "model.safetensors")
    with pytest.raises(
        LlmbenchError, match=rf"model.safetensors: is cut off: it has {whole // 2:,} bytes of {whole:,}. Download it"
    ):
        scan.folder(cut)


def test_weights_with_more_than_their_header_says_are_refused(cut: Path) -> None:
    with (cut / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(LlmbenchError, match=r"bytes and its header describes"):
        scan.folder(cut)


def test_a_shard_that_is_missing_is_named(cut: Path) -> None:
    (cut / "model.safetensors").rename(cut / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (cut / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        LlmbenchError, match=r"model-00002-of-00002.safetensors is missing, although model.safetensors.index.json"
    ):
        scan.folder(cut)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_check_refuses_what_train_would(cut: Path, tmp_path: Path, home: Path, name: str) -> None:
    halve(cut / name)
    result = checked(tmp_path, model_name_or_path=str(cut))
    assert result[0] == 2, result[1]
    assert name in result[1].replace(" ", "") and "Download it again" in result[1]


def test_check_refuses_an_encoder_decoder_and_an_attention_that_is_not_there(cut: Path, tmp_path: Path, home: Path) -> None:
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps(config | {"model_type": "t5", "is_encoder_decoder": True}))
    code, said = checked(tmp_path, model_name_or_path=str(cut))
    assert code == 2 and "t5 is an encoder-decoder" in said
    (cut / "config.json").write_text(json.dumps(config | {"model_type": "bloom"}))
    code, said = checked(tmp_path, model_name_or_path=str(cut), attn_implementation="sdpa")
    assert code == 2 and "BloomForCausalLM has no sdpa" in said


def test_an_adapter_named_as_the_base_is_told_from_a_model(tmp_path: Path, home: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "llmbench/tiny"}'
    )
    code, said = checked(tmp_path, model_name_or_path=str(tmp_path / "adapter"))
    assert code == 2 and "is an adapter, not a model. Set model.model_name_or_path to its base (llmbench/tiny)" in said


def checked(folder: Path, **model: str) -> tuple[int, str]:
    """The exit code of `llmbench check`, and all that it says, in one line."""
    row = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    recipe = folder / "mine.yaml"
    recipe.write_text(yaml.safe_dump({"name": "mine", "model": model, "data": {"train": [{"path": "rows.jsonl"}]}}))
    result = CliRunner().invoke(cli, ["check", str(recipe)])
    code = 2 if isinstance(result.exception, LlmbenchError) else result.exit_code
    return code, " ".join(f"{result.output} {result.exception}".split())
