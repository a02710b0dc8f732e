"""Formats in fewer bits: what calibrates them, the process that makes them, and the proof of what it made."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.exporting import compressor
from llmbench.exporting.compressor import Compressor

from .conftest import Make, copied

ROOT = Path(__file__).resolve().parents[2]
HERE = Compressor(Path(sys.executable), "0.14", "2")
"""This interpreter in place of llm-compressor's: it can ask, and cannot quantise."""


def there() -> str:
    """llm-compressor's Python; skips where there is none."""
    named = os.environ.get(compressor.VARIABLE) or str(ROOT / compressor.FOLDER / "bin" / "python")
    if not Path(named).is_file():
        pytest.skip(f"no environment of llm-compressor: run `make compress`, or set {compressor.VARIABLE}")
    return named


def test_calibration_rows_are_drawn_from_the_training_and_always_the_same(made: Make, home: Path) -> None:
    from llmbench import data
    from llmbench.exporting import calibration, source
    from llmbench.exporting.material import Material
    from llmbench.recipe import DataSpec

    run = made("lora")
    found = source.find(run)
    tokenizer = Material(found, home, lambda step: None).tokenizer
    drawn = calibration.drawn(found, tokenizer, 3)
    rows = data.load(DataSpec.model_validate(run.recipe["data"]), tokenizer, seed=run.recipe["training"]["seed"])
    assert rows.eval is not None
    trained, kept = ([list(ids) for ids in part["input_ids"]] for part in (rows.train, rows.eval))
    assert len(drawn.rows) == 3 and drawn.known == len(trained) and all(ids in trained for ids in drawn.rows)
    assert drawn == calibration.drawn(found, tokenizer, 3)
    assert [ids for ids, _ in drawn.held_out] == kept and all(-100 in labels for _, labels in drawn.held_out)
    assert len(calibration.drawn(found, tokenizer, 1000).rows) == len(trained)
    other = copied(run, home)
    recipe = (other.folder / "recipe.yaml").read_text()
    (other.folder / "recipe.yaml").write_text(re.sub(r"path: \S*rows\.jsonl", f"path: {home / 'gone.jsonl'}", recipe))
    gone = source.find(type(other)(other.folder))
    with pytest.raises(LlmbenchError, match=r"its training rows, .* cannot be read: .*gone\.jsonl.*take --format fp8"):
        calibration.drawn(gone, tokenizer, 3)
    assert calibration.drawn(gone, tokenizer, 0).held_out == []


def test_without_its_environment_there_is_one_line_with_the_command(
    made: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(made("lora"), home)
    monkeypatch.delenv(compressor.VARIABLE, raising=False)
    for arguments, said in (
        (["-f", "int8"], f"which is not there yet. Run: {sys.executable} -m venv {home.parent / '.venv-compress'} && "),
        (["-f", "fp8", "--calibration-rows", "4"], "--calibration-rows is for int8, w4a16, awq. Leave it out for --format fp8"),
        (["-f", "merged", "--compressor", "python"], "--compressor is for int8, w4a16, awq, fp8. Leave it out"),
        (["-f", "awq", "--compressor", str(home / "gone")], "gone: cannot be run as Python"),
        (["-f", "awq", "--compressor", "/bin/true"], "/bin/true: has no llm-compressor. Run: /bin/true -m pip install"),
        (["-f", "awq", "--compressor", sys.executable], f"has no llm-compressor. Run: {sys.executable} -m pip install"),
    ):
        seen = CliRunner().invoke(cli, ["export", "lora", *arguments])
        assert isinstance(seen.exception, LlmbenchError) and said in str(seen.exception)
        assert "\n" not in str(seen.exception)
    assert not (home / "exports").exists()


def test_the_program_tells_what_a_folder_says(home: Path, tmp_path: Path) -> None:
    """The real program, in this interpreter, which has all that asking needs: of the bundled model, and of one with a fault."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from llmbench import assets

    steps: list[str] = []
    tiny, ids = assets.model_folder(assets.TINY), list(range(5, 29))
    spoilt = Path(shutil.copytree(tiny, tmp_path / "spoilt"))
    tensors = load_file(spoilt / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] *= 2
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "of-spoilt").mkdir()
    request = {
        "folders": [[tiny, str(tmp_path)], [str(spoilt), str(tmp_path / "of-spoilt")]], "dtype": "float32",
        "sequences": [ids], "prompts": [20], "new_tokens": 3,
        "texts": [["a b", True]], "held_out": [[ids, [-100] * 20 + ids[20:]]], "trust_remote_code": False,
    }  # fmt: skip
    compressor.run(HERE, "ask", request, tmp_path, steps.append)
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)(torch.tensor([ids])).logits[0]
    logits = np.load(tmp_path / "logits-0.npy", allow_pickle=False)
    assert np.abs(logits - wanted.numpy()).max() < 1e-3
    found = json.loads((tmp_path / "answers.json").read_text())
    assert found["greedy"][0][0] == int(wanted[19].argmax()) and len(found["greedy"][0]) <= 3
    loss = torch.nn.functional.cross_entropy(wanted[19:23], torch.tensor(ids[20:]))
    assert found["loss"] == pytest.approx(float(loss), abs=1e-3)
    assert found["layers"] == {}
    layers = json.loads((tmp_path / "of-spoilt" / "answers.json").read_text())["layers"]
    assert layers.pop("1.mlp") == pytest.approx(1, abs=1e-3)
    assert len(layers) == 7 and max(layers.values()) < 1e-3
    assert found["stops"] == [2] and found["template"] and steps == ["Asking the merged model and the quantised one"]


def test_a_program_that_fails_is_one_line_with_its_log(home: Path, tmp_path: Path) -> None:
    with pytest.raises(LlmbenchError, match=r"llm-compressor failed \(.*invalid choice: 'squeeze'.*Its log: ") as failed:
        compressor.run(HERE, "squeeze", {}, tmp_path, lambda step: None)
    log = Path(str(failed.value).rpartition("Its log: ")[2])
    assert log.parent == home / "logs" and "usage:" in log.read_text()


def test_its_process_ends_with_an_export_that_is_stopped(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho 'llmbench: Sleeping'\nsleep 60\n")
    program.chmod(0o755)

    def stop(step: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compressor.run(Compressor(program, "0.14", "2"), "quantise", {}, tmp_path, stop)
    assert time.monotonic() - began < 50
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(("width", "group"), [(256, 128), (192, 64), (96, 32), (80, None)])
def test_as_many_weights_share_a_scale_as_divide_each_row(tmp_path: Path, width: int, group: int | None) -> None:
    import torch
    from safetensors.torch import save_file

    from llmbench.exporting import quantised

    tensors = {"model.layers.0.up.weight": torch.zeros(8, width), "model.embed_tokens.weight": torch.zeros(3, 5)}
    save_file(tensors, tmp_path / "model.safetensors")
    if group is None:
        with pytest.raises(LlmbenchError, match=r"layers\.0\.up\.weight has rows of 80 weights.*Take --format int8 or fp8"):
            quantised.group_of(tmp_path)
        return
    assert quantised.group_of(tmp_path) == group
    assert quantised.bytes_of(tmp_path, bits=8) == 8 * width + 8 * 2 + 30
    assert quantised.bytes_of(tmp_path, bits=4, group=group) == 4 * width + 8 * width // group * 2 + 30


def test_what_vllm_names_gives_a_divergence_that_is_never_more_than_the_whole() -> None:
    import torch

    from llmbench.exporting.served import divergence

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        p, q = (torch.randn(50, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1) for _ in range(2))
        named = {int(token): float(q[token]) for token in q.topk(20).indices}
        whole = float((p.exp() * (p - q)).sum())
        assert 0 < divergence(p, named) <= whole
        assert divergence(p, {int(token): float(p[token]) for token in p.topk(20).indices}) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w4a16", "int8", "fp8", "awq"])
def test_a_quantised_export_is_proven_by_transformers_and_by_vllm(made: Make, home: Path, name: str) -> None:
    python = there()
    copied(made("lora"), home)
    rows = [] if name == "fp8" else ["--calibration-rows", "4"]
    seen = CliRunner().invoke(cli, ["export", "lora", "-f", name, "--compressor", python, *rows, "--json"])
    assert seen.exit_code == 0, seen.output
    proof = json.loads(seen.stdout)
    checks = {check["name"]: check["holds"] for check in proof["checks"]}
    assert all(checks[name] for name in ("served", "logits", "layers", "size", "tied"))
    figures = proof["figures"]
    assert 0 < figures["lost"]["kl"] < 0.2 and figures["calibration"]["rows"] == (0 if name == "fp8" else 4)
    assert figures["held_out"]["exported"] == pytest.approx(figures["held_out"]["merged"], rel=0.1)
    assert figures["answers"][0].keys() == {"prompt", "trained", "merged", "exported", "served"}
    config = json.loads((home / "exports" / f"lora-{name}-bfloat16" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    card = (home / "exports" / f"lora-{name}-bfloat16" / "README.md").read_text()
    assert "library_name: transformers" in card and f"vllm serve lora-{name}-bfloat16" in card


@pytest.mark.slow
def test_scales_of_one_layer_that_are_wrong_fail_the_proof(made: Make, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    python, run = there(), compressor.run

    def spoilt(there: Compressor, task: str, request: dict[str, Any], *more: Any) -> None:
        run(there, task, request, *more)
        if task == "quantise":
            path = Path(request["output"]) / "model.safetensors"
            tensors = load_file(path)
            tensors["model.layers.1.mlp.down_proj.weight_scale"] *= 2
            save_file(tensors, path, metadata={"format": "pt"})

    monkeypatch.setattr(compressor, "run", spoilt)
    copied(made("lora"), home)
    seen = CliRunner().invoke(cli, ["export", "lora", "-f", "fp8", "--compressor", python, "--json"])
    assert seen.exit_code == 3, seen.output
    failed = {check["name"] for check in json.loads(seen.stdout)["checks"] if check["holds"] is False}
    assert "layers" in failed
    assert [path.name for path in (home / "exports").iterdir()] == ["lora-fp8-bfloat16.failed-proof"]


@pytest.mark.slow
def test_weights_in_8_bits_by_torchao(made: Make, home: Path) -> None:
    pytest.importorskip("torchao", reason="needs llmbench[torchao]")
    copied(made("lora"), home)
    seen = CliRunner().invoke(cli, ["export", "lora", "-f", "torchao-int8", "--json"])
    assert seen.exit_code == 0, seen.output
    assert {c["name"]: c["holds"] for c in json.loads(seen.stdout)["checks"]}["served"] is True


def test_a_missing_kernel_is_told_from_a_folder_that_vllm_does_not_know() -> None:
    from llmbench.exporting import served

    assert served._no_kernel("NotImplementedError: fp8 is not supported on this CPU")
    assert not served._no_kernel("ValueError: Model architectures ['XForCausalLM'] are not supported for now.")
