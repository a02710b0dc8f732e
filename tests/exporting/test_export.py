"""`llmbench export`: what is written is what was trained and says so, or is kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RunError

from .conftest import Make, copied


@pytest.mark.parametrize("name", ["lora", "dora", "rslora", "whole", "tokens", "qlora", "full"])
def test_a_merged_export_is_proven(made: Make, tmp_path: Path, name: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "merged", precision="float32", output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    assert done.folder == tmp_path / "out" and proof.read(done.folder) == done.proof
    found = {check.name: check for check in done.proof.checks}
    assert found.keys() >= {"tokens", "logits", "agreement", "effect", "greedy", "stops", "template", "tied", "size"}
    assert done.proof.figures["lost"]["kl"] < 1e-8 < done.proof.figures["trained"]["kl"]
    assert ("its own" in found["tied"].found) == (name == "whole")
    assert done.proof.reference["onto"] == ({"qlora": "dequantized", "full": None}.get(name, "base"))
    assert proof.changed(done.proof, done.folder) == []
    (done.folder / "config.json").write_text("{}")
    assert proof.changed(done.proof, done.folder) == ["config.json"]


@pytest.mark.parametrize("name", ["lora", "dora", "tokens", "prompt"])
def test_an_adapter_is_what_peft_alone_loads(made: Make, tmp_path: Path, name: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "adapter", output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    assert done.proof.figures["lost"]["kl"] < 1e-9
    names = {path.name for path in done.folder.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "proof.json"}


def test_half_precision_is_within_what_it_may_round(made: Make, tmp_path: Path) -> None:
    from llmbench.exporting import job

    done = job.export(made("lora"), "merged", output=tmp_path / "out")
    assert done.proof.holds and done.proof.precision == "bfloat16" and 1e-7 < done.proof.figures["lost"]["kl"] < 1e-2


def test_a_checkpoint_is_exported_in_place_of_the_result(made: Make, home: Path) -> None:
    copied(made("stopped"), home)
    folders = {}
    for wanted in ("1", "last", "best"):
        arguments = ["export", "stopped", "-f", "merged", "--precision", "float32", "--checkpoint", wanted, "--json"]
        seen = CliRunner().invoke(cli, [*arguments, "-o", str(home / wanted)])
        assert seen.exit_code == 0, seen.output
        found = json.loads(seen.stdout)
        folders[wanted] = found
        assert found["holds"] and found["source"]["step"] == {"1": 1, "last": 2, "best": 2}[wanted]
    assert folders["1"]["files"]["model.safetensors"] != folders["last"]["files"]["model.safetensors"]
    assert folders["best"]["files"]["model.safetensors"] == folders["last"]["files"]["model.safetensors"]


def test_an_export_that_lost_the_adapter_is_kept_apart_and_ends_with_3(
    made: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an export that writes the untouched base."""
    from llmbench.training.merging import weights

    run = copied(made("lora"), home)
    monkeypatch.setattr(weights, "merged", lambda model, dtype: model.unload())
    seen = CliRunner().invoke(cli, ["export", "lora", "-f", "merged", "--precision", "float32"])
    assert seen.exit_code == 3, seen.output
    kept = home / "exports" / "lora-merged-float32.failed-proof"
    assert seen.stdout.startswith(f"NOT PROVEN, kept apart: {kept} (merged, float32)")
    assert {path.name for path in kept.parent.iterdir()} == {kept.name}
    proof = json.loads((kept / "proof.json").read_text())
    assert not proof["holds"] and {c["name"] for c in proof["checks"] if c["holds"] is False} >= {"logits", "effect"}
    monkeypatch.undo()
    monkeypatch.setenv("LLMBENCH_HOME", str(home))
    again = CliRunner().invoke(cli, ["export", run.name, "-f", "merged", "--precision", "float32"])
    assert again.exit_code == 0 and (home / "exports" / "lora-merged-float32").is_dir()


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(made: Make, home: Path) -> None:
    from llmbench.exporting import job

    lora, full, prompt, pissa = (copied(made(name), home) for name in ("lora", "full", "prompt", "pissa"))
    for run, name, more, said in (
        (full, "adapter", {}, "trained all parameters, so there is no adapter. Use --format merged"),
        (prompt, "merged", {}, "is prompt tuning, which puts vectors before the prompt"),
        (pissa, "merged", {"checkpoint": "last"}, "only the end of a training restores them"),
        (lora, "merge", {}, "no such format. Did you mean merged"),
        (lora, "merged", {"precision": "q8_0"}, "Available: bfloat16, float16, float32"),
        (lora, "merged", {"checkpoint": "7"}, r"no checkpoint of step 7 \(available: 3\)"),
        (lora, "merged", {"checkpoint": "newest"}, "say best, last, or the step of a checkpoint"),
        (lora, "merged", {"output": home}, "already exists. Replace it with --overwrite"),
        (lora, "merged", {"output": home, "overwrite": True}, "is not an export of llmbench"),
    ):
        with pytest.raises(LlmbenchError, match=said):
            job.export(run, name, **more)
    stopped = copied(made("stopped"), home)
    with pytest.raises(RunError, match=r"Run stopped is stopped, so it has no result yet. .* --checkpoint last"):
        job.export(stopped, "merged")
    assert not (home / "exports").exists()


def test_the_disk_is_looked_at_first(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    from llmbench.exporting import job

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(LlmbenchError, match=r"the export needs about 0\.0 GB, and 0\.0 GB are free"):
        job.export(made("lora"), "merged", output=tmp_path / "at" / "out")
    assert not (tmp_path / "at").exists()


def test_an_interrupted_export_leaves_nothing(made: Make, tmp_path: Path) -> None:
    from llmbench.exporting import job

    def stop(step: str) -> None:
        if step == "Reading it back":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.export(made("lora"), "merged", output=tmp_path / "at" / "out", say=stop)
    assert list((tmp_path / "at").iterdir()) == []
