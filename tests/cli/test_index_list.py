"""`llmbench index list`: every index of the workspace, in whatever state."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import workspace
from llmbench.cli.main import cli
from llmbench.retrieval.store import WritableIndex

pytestmark = pytest.mark.usefixtures("kept_embedder")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["index", *words])


def entries() -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout)}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two pipelines, `tools` and `pages`, both indexed."""
    (tmp_path / "docs").mkdir()
    for name in ("lamp", "pump"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name}\n\nThe {name} is loud.\n")
    monkeypatch.chdir(tmp_path)
    for name in ("tools", "pages"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ndocuments: [docs]\n")
        assert run(f"{name}.yaml").exit_code == 0
    return tmp_path


def changed(name: str, **facts: Any) -> None:
    """Notes facts about an index as a writer would."""
    index = WritableIndex(workspace.indexes() / name / "1")
    index.set(**facts)
    index.close()


def test_nothing_indexed_says_how_to_begin() -> None:
    assert run("list").stdout == "No indexes yet. Make one: llmbench index rag/handbook.yaml\n"
    assert run("list", "--json").stdout == "[]\n"


def test_every_index_is_a_line(project: Path) -> None:
    os.utime(workspace.indexes() / "pages" / "1" / "vectors.bin", (0, 2_000_000_000))
    written = f"{datetime.fromtimestamp(2_000_000_000):%Y-%m-%d %H:%M}"
    heading, *lines = run("list").stdout.splitlines()
    assert heading.split() == ["index", "pipeline", "documents", "passages", "size", "built", "state"]
    first, second = (line.split() for line in lines)
    assert first[:4] == ["pages", "pages.yaml", "2", "2"] and first[5:] == ["MiB", *written.split(), "ready"]
    assert second[:4] == ["tools", "tools.yaml", "2", "2"]


def test_json_holds_what_a_script_needs(project: Path) -> None:
    assert run("tools.yaml", "--rebuild", "--stay").exit_code == 0
    folder = workspace.indexes() / "tools"
    found = entries()["tools"]
    assert found.pop("bytes") == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert found.pop("built") == max((folder / "1" / name).stat().st_mtime for name in ("index.sqlite", "vectors.bin"))
    assert found == {
        "name": "tools", "pipeline": str(project / "tools.yaml"), "state": "ready", "reason": "", "documents": 2, "chunks": 2,
        "generation": 1, "generations": [1, 2], "folder": str(folder),
    }  # fmt: skip


def test_states_are_told_apart_and_come_with_what_to_do(project: Path) -> None:
    changed("pages", complete=False)
    with (workspace.indexes() / "tools" / "index.json").open("w") as file:
        file.write("{")
    shown = run("list")
    assert [line.split()[-1] for line in shown.stdout.splitlines()[1:]] == ["incomplete", "unusable"]
    assert "pages: its build was interrupted. Run: llmbench index build pages.yaml\n" in shown.stderr
    assert f"tools: {workspace.indexes() / 'tools' / 'index.json'} is broken" in shown.stderr
    with workspace.lock(workspace.indexes() / "tools", "index"), workspace.lock(workspace.indexes() / "pages", "index"):
        assert {entry["state"] for entry in entries().values()} == {"writing"}
    changed("pages", complete=True, contract={"embedder": {}, "chunking": {}})
    assert entries()["pages"]["state"] == "unusable"


def test_an_index_of_an_earlier_version_is_outdated(project: Path) -> None:
    index = WritableIndex(workspace.indexes() / "pages" / "1")
    contract = index.contract.to_json()
    index.set(contract={**contract, "chunking": {**contract["chunking"], "version": "0.0"}})
    index.close()
    shown = run("list")
    assert shown.stdout.splitlines()[1].split()[-1] == "outdated"
    assert "pages: it was built by an earlier version of llmbench. Run: llmbench index build pages.yaml\n" in shown.stderr
    assert run("pages.yaml").exit_code == 0 and entries()["pages"]["state"] == "ready"


def test_a_generation_that_is_gone_and_folders_of_others(project: Path) -> None:
    for path in (workspace.indexes() / "pages" / "1").iterdir():
        path.unlink()
    (workspace.indexes() / "pages" / "1").rmdir()
    (workspace.indexes() / "mine").mkdir()
    (workspace.indexes() / "mine" / "thesis.txt").write_text("mine")
    (workspace.indexes() / "notes.txt").write_text("mine")
    found = entries()
    assert sorted(found) == ["pages", "tools"]
    assert (found["pages"]["state"], found["pages"]["documents"], found["pages"]["built"]) == ("not built", None, None)


def test_listing_writes_nothing(project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in workspace.home().rglob("*") if path.is_file()}
    assert run("list").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in workspace.home().rglob("*") if path.is_file()} == before
