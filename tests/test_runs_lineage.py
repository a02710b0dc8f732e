"""`llmbench runs lineage`: data and base above a run, and what was made with it below."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import provenance, recipe, runs, workspace
from llmbench.cli.main import cli
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run, made
from llmbench.runs.lineage import Node, lineage


@pytest.fixture
def make(tmp_path: Path, home: Path) -> Any:
    """Makes a finished run on rows.jsonl with an adapter; `model` is the name of its base."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "my.yaml").write_text("name: a\ndata: {train: [{path: rows.jsonl}]}\n", encoding="utf-8")

    def run(name: str, *overrides: str, model: str = "llmbench/tiny") -> Run:
        run = runs.create(recipe.load(tmp_path / "my.yaml", TrainRecipe, [f"name={name}", *overrides]))
        sha = provenance.file_hash(tmp_path / "rows.jsonl")
        source = {"path": str(tmp_path / "rows.jsonl"), "sha256": sha, "bytes": 1, "files": [{"name": "r", "sha256": sha}]}
        lock = {
            "data": {"train": [source], "eval": []},
            "model": {"name": model, "revision": None, "fingerprint": {"weights": "ee" * 32}},
        }
        run.write_lock(lock)
        run.adapter.mkdir()
        (run.adapter / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}), encoding="utf-8"
        )
        (run.adapter / "adapter_model.safetensors").write_bytes(name.encode())
        run.mark("finished")
        return run

    return run


def lines(nodes: tuple[Node, ...], indent: str = "") -> list[str]:
    return [line for one in nodes for line in (f"{indent}{one.kind} {one.name}", *lines(one.children, f"{indent}  "))]


def test_data_is_traced_to_the_verb_that_wrote_it_and_said_to_have_changed(make: Any, tmp_path: Path) -> None:
    made.record(tmp_path / "rows.jsonl", "raft", pipeline="bundled://rag/handbook.yaml", seed=0)
    run = make("a")
    origins, _ = lineage(run)
    assert lines(origins.children) == [f"data {tmp_path / 'rows.jsonl'}", "  made raft", "base llmbench/tiny"]
    [data, base] = origins.children
    assert data.facts["now"] == "unchanged" and data.children[0].facts["pipeline"] == "bundled://rag/handbook.yaml"
    assert base.facts["weights"] == "ee" * 32
    (tmp_path / "rows.jsonl").write_text("other", encoding="utf-8")
    assert lineage(run)[0].children[0].facts["now"] == "changed"
    (tmp_path / "rows.jsonl").unlink()
    assert lineage(run)[0].children[0].facts["now"] == "missing"


def test_a_base_and_an_adapter_that_were_trained_here_lead_to_their_runs(make: Any) -> None:
    first = make("first")
    second = make("second", "adapter_name_or_path=first")
    third = make("third", model=str(second.folder / "merged"))
    origins, _ = lineage(third)
    tree = lines(origins.children)
    assert [line for line in tree if "run " in line] == ["  run second", "      run first"]
    assert [child.name for child in lineage(first)[1].children if child.kind == "run"] == ["second"]
    assert lineage(first)[1].children[1].facts["started_from_its"] == "adapter"


def test_what_was_made_with_an_adapter_is_found_by_its_content(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("a")
    id = provenance.adapter_id(run.adapter)
    (workspace.home() / "adapters" / id).mkdir(parents=True)
    card = {"adapter": {"name": "a", "id": id, "rank": 8}, "rag": "handbook"}
    for name, listing in (("mine", {"tuned": card, "base": {"adapter": None}}), ("other", {"base": {"adapter": None}})):
        (workspace.comparisons() / name).mkdir(parents=True)
        summary = {"listing": listing, "verdict": "tuned is better"}
        (workspace.comparisons() / name / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (run.folder / "merged").mkdir()
    workspace.write_json(run.folder / "merged" / "llmbench.json", {"merged": {"dtype": "float32", "onto": "base"}})
    workspace.write_json(make("a-replay").folder / "replay.json", {"of": "a", "verdict": "same bits"})
    monkeypatch.chdir(tmp_path)
    serving = "model: {model_name_or_path: llmbench/tiny}\nvariants: [{name: support, adapter: a}, {name: plain}]\n"
    (tmp_path / "serve.yaml").write_text(serving, encoding="utf-8")
    (tmp_path / "another-tools.yaml").write_text("variants: 3\n", encoding="utf-8")
    [adapter, merged, replay, variant] = lineage(run)[1].children
    assert adapter.facts["id"] == id
    assert [(child.kind, child.name) for child in adapter.children] == [
        ("copy", str(workspace.home() / "adapters" / id)), ("comparison", "mine"),
    ]  # fmt: skip
    assert adapter.children[1].facts == {"variant": "tuned", "rag": "handbook", "verdict": "tuned is better"}
    assert merged.facts == {"dtype": "float32", "onto": "base"}
    assert (replay.name, replay.facts) == ("a-replay", {"replays": "a", "verdict": "same bits"})
    assert (variant.kind, variant.name) == ("variant", "serve.yaml: support")
    assert lineage(runs.open_run("a-replay"))[0].children[-1].facts == {"replayed": True}


def test_a_run_of_an_earlier_version_without_a_lock_has_a_lineage(make: Any) -> None:
    run = make("a")
    (run.folder / "lock.json").unlink()
    origins, uses = lineage(run)
    assert lines(origins.children) == ["base llmbench/tiny"] and origins.children[0].facts["weights"] == "not recorded"
    assert uses.children[0].kind == "adapter"


def test_the_tree_and_its_json(make: Any, tmp_path: Path) -> None:
    make("a")
    shown = CliRunner().invoke(cli, ["runs", "lineage", "a"]).stdout.splitlines()
    assert shown[0].startswith("run a (finished, sft, created ")
    assert shown[1:3] == ["made from", f"├── data {tmp_path / 'rows.jsonl'} (train, sha256 "
                          f"{provenance.file_hash(tmp_path / 'rows.jsonl')[:12]}, unchanged)"]  # fmt: skip
    assert shown[3] == "└── base llmbench/tiny (weights eeeeeeeeeeee)"
    found = json.loads(CliRunner().invoke(cli, ["runs", "lineage", "a", "--json"]).stdout)
    assert [child["kind"] for child in found["made_from"]["children"]] == ["data", "base"]
    assert found["made_with_it"][0]["id"] == provenance.adapter_id(runs.open_run("a").adapter)
