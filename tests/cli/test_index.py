"""The commands of `llmbench index`: what they print, exit with, and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import workspace
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError

pytestmark = pytest.mark.usefixtures("kept_embedder")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["index", *words])


@pytest.fixture
def pages(tmp_path: Path) -> tuple[str, Path]:
    """A pipeline with three indexed pages, and their folder."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("lamp", "pump", "kettle[1]", "kettle1"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nThe {name} is loud.\n")
    recipe = tmp_path / "kept.yaml"
    recipe.write_text("name: kept\ndocuments: [docs]\n")
    assert run(str(recipe)).exit_code == 0
    return str(recipe), folder


def facts(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_an_index_is_verified_damaged_and_repaired(pages: tuple[str, Path]) -> None:
    pipeline, _ = pages
    result = run("verify", pipeline, "--absent", "violin")
    assert result.exit_code == 0 and result.stdout.startswith("kept: 4 documents, 4 passages, ")
    assert "'violin' is in no file of the index." in result.stdout and "No problems found." in result.stdout
    assert "The term index holds no leftover word of 'violin'." in result.stdout
    held = run("verify", pipeline, "--absent", "is loud")
    assert held.exit_code == 1 and "is in 1/index.sqlite" in held.stdout
    path = workspace.indexes() / "kept" / "1" / "vectors.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x5a")
    damaged = run("verify", pipeline)
    assert damaged.exit_code == 1 and "problem: vectors.bin: 1 damaged record, the first at row" in damaged.stderr
    assert f"Repair it: llmbench index repair {pipeline}" in damaged.stderr
    found = facts("verify", pipeline)
    assert found["whole"] is False and found["faults"][0]["mend"] == "repair"
    assert "No problems found." in run("repair", pipeline).stdout
    assert facts("verify", pipeline)["whole"] is True


def test_a_report_counts_what_was_not_read(pages: tuple[str, Path], tmp_path: Path) -> None:
    pipeline, folder = pages
    assert run("report", pipeline, "--fail-under", "100").exit_code == 0
    for i in range(9):
        (folder / f"broken{i}.pdf").write_bytes(b"%PDF broken")
    assert run(pipeline).exit_code == 0
    short = run("report", pipeline, "--fail-under", "95")
    assert short.exit_code == 1 and "9 of 13 files were not read." in short.stdout
    assert "30.8 % of the files were read, less than --fail-under 95 %. Fix what was skipped" in short.stderr
    found = facts("report", pipeline)
    assert (found["files"], len(found["unread"]), found["unread"][0], found["share"]) == (13, 9, "broken0.pdf", 1.0)
    assert run("report", pipeline, "--fail-under", "30").exit_code == 0
    (tmp_path / "none").mkdir()
    (tmp_path / "none.yaml").write_text("name: none\ndocuments: [none]\n")
    assert run(str(tmp_path / "none.yaml")).exit_code == 1
    empty = run("report", str(tmp_path / "none.yaml"), "--fail-under", "0")
    assert empty.exit_code == 1 and empty.stderr.endswith("No document has any text.\n")


def test_a_report_leaves_the_index_as_it_is_and_counts_the_files_that_changed(pages: tuple[str, Path]) -> None:
    pipeline, folder = pages
    assert "Files changed" not in run("report", pipeline).stdout
    (folder / "lamp.md").write_text("# lamp\n\nThe lamp is quiet now.\n")
    (folder / "pump.md").unlink()
    (folder / "fan.md").write_text("# fan\n\nThe fan is loud.\n")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told = run("report", pipeline).stdout
    assert f"1 new, 1 changed, 1 removed. Run: llmbench index build {pipeline}" in told
    found = facts("report", pipeline)
    assert found["changes"] == {"added": ["fan.md"], "changed": ["lamp.md"], "removed": ["pump.md"]}
    assert (found["documents"], found["unread"]) == (4, ["photo.png"])
    assert run(pipeline).exit_code == 0
    assert facts("report", pipeline)["changes"] == {"added": [], "changed": [], "removed": []}


def test_a_pipeline_named_like_a_command_is_named_with_the_command_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "list").write_text("name: listed\ndocuments: [docs]\n")
    with pytest.raises(LlmbenchError, match=r"index listed is not built\. Run: llmbench index build list$"):
        CliRunner().invoke(cli, ["index", "verify", "list"], catch_exceptions=False)


def test_documents_are_deleted_by_name_and_by_filter(pages: tuple[str, Path]) -> None:
    pipeline, _ = pages
    assert run("delete", pipeline, "--source", "kettle[1].md").stdout.startswith("kept: 1 document deleted.")
    found = facts("verify", pipeline, "--absent", "kettle[1]")
    assert (found["absent"], found["absent_words"]) == ({"kettle[1]": []}, {"kettle[1]": {}})
    assert run("delete", pipeline, "--source", "k*").stdout.startswith("kept: 1 document deleted.")
    assert run("delete", pipeline, "--where", '{"title": "pump"}').stdout.startswith("kept: 1 document deleted.")
    assert run("delete", pipeline, "--source", "never").stdout == "kept: 0 documents deleted.\n"
    assert facts("verify", pipeline)["documents"] == 1
    assert run("verify", pipeline).stdout.startswith("kept: 1 document, 1 passage, ")
    assert facts(pipeline)["added"] == 3  # the files are there still
    for wrong in ("{", '{"$x": 1}'):
        with pytest.raises(LlmbenchError, match=r"--where is not JSON|\$x is not an operator"):
            CliRunner().invoke(cli, ["index", "delete", pipeline, "--where", wrong], catch_exceptions=False)


def test_generations_are_kept_switched_and_removed(pages: tuple[str, Path]) -> None:
    pipeline, folder = pages
    (folder / "lamp.md").unlink()
    assert f"llmbench index use {pipeline} 2" in run(pipeline, "--rebuild", "--stay").stdout
    assert facts("verify", pipeline)["documents"] == 4
    assert "searches now use generation 2 (3 documents" in run("use", pipeline, "2", "--wait", "1").stdout
    assert run("prune", pipeline).stdout == "kept: 1 generation removed.\n"
    assert run("compact", pipeline).stdout.startswith("kept: compacted from ")
    assert facts("verify", pipeline)["generations"] == [3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "PIPELINE", "--stay"], r"--stay needs --rebuild\. Run: llmbench index build .+ --rebuild --stay$"),
        (["use", "PIPELINE", "9"], r"has no generation 9\. Available: 1\."),
        (["verfy", "PIPELINE"], r"verfy is neither a command nor a file\. Did you mean: llmbench index verify$"),
        (["delete", "PIPELINE"], r"Nothing to delete\. Name documents with --source SOURCE or --where JSON"),
        (["delete", "PIPELINE", "a b.md"], r"'a b\.md' is not an override .+: llmbench index delete .+ --source 'a b\.md'$"),
    ],
)
def test_what_cannot_be_done_is_one_line(pages: tuple[str, Path], words: list[str], message: str) -> None:
    given = [pages[0] if word == "PIPELINE" else word for word in words]
    with pytest.raises(LlmbenchError, match=message):
        CliRunner().invoke(cli, ["index", *given], catch_exceptions=False)


def test_what_keeps_an_index_prints_json_too(pages: tuple[str, Path]) -> None:
    pipeline, _ = pages
    assert facts("delete", pipeline, "--source", "kettle1.md") == {"pipeline": "kept", "deleted": 1, "erased": True}
    packed = facts("compact", pipeline)
    assert packed["pipeline"] == "kept" and 0 < packed["bytes"] <= packed["bytes_before"]
    assert run(pipeline, "--rebuild", "--stay").exit_code == 0
    old, new = 2, 3
    used = facts("use", pipeline, str(new))
    assert used == {"pipeline": "kept", "generation": new, "documents": 4, "chunks": 4, "others": [old]}
    assert facts("prune", pipeline) == {"pipeline": "kept", "removed": [old]}


@pytest.mark.parametrize("empty", ["{}", '{"$and": [{}]}'])
def test_an_empty_filter_deletes_nothing(pages: tuple[str, Path], empty: str) -> None:
    pipeline, _ = pages
    for words in (["--where", empty], ["--source", "lamp.md", "--where", empty]):
        refused = run("delete", pipeline, *words)
        assert isinstance(refused.exception, LlmbenchError)
        assert str(refused.exception).startswith(
            "--where: an empty filter matches every document. To delete all of them: --source '*'"
        )
    assert "kept: 4 documents" in run("verify", pipeline).stdout
    assert run("delete", pipeline, "--source", "*").stdout.startswith("kept: 4 documents deleted.")


def test_names_of_files_cannot_command_the_terminal(pages: tuple[str, Path]) -> None:
    pipeline, folder = pages
    (folder / "a\x1b[2J\nb.xyz").write_bytes(bytes(range(256)))  # no text: it is not read
    (folder / "c\x1b[2J\u202e.md").write_text("The violin is loud.\n")
    indexed = run(pipeline)
    assert r"skipped a\x1b[2J\nb.xyz: " in indexed.stderr
    found = CliRunner().invoke(cli, ["search", pipeline, "violin"])
    assert r"c\x1b[2J\u202e.md:1  c\x1b[2J" in found.stdout
    assert "\x1b[2J" not in indexed.output + found.output


def test_rows_of_a_wrong_column_leave_nothing_to_search_and_say_so(tmp_path: Path) -> None:
    recipe = tmp_path / "rows.yaml"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.jsonl").write_text('{"body": "x"}\n')
    (tmp_path / "docs" / "b.parquet").write_bytes(b"PAR1")
    recipe.write_text("name: rows\ndocuments: [{path: docs, columns: {text: txet}}]\n")
    result = run(str(recipe))
    assert result.exit_code == 1 and "Search it" not in result.stdout
    assert "1 row left out: line 1: no column txet (it has body)" in result.stderr
    assert result.stderr.rstrip().endswith("The index is empty. Check what was skipped, and `documents` in the pipeline.")
    assert run(str(recipe), "--json").exit_code == 1
    recipe.write_text("name: rows\ndocuments: [docs]\n")
    assert "b.parquet: .parquet files are read as rows: give their place `columns`" in run(str(recipe)).stderr


def test_a_pipeline_alone_is_short_for_build_with_options_on_either_side(pages: tuple[str, Path]) -> None:
    pipeline, _ = pages
    for words in (
        ["build", pipeline, "--json"],
        [pipeline, "--json"],
        ["--json", pipeline],
        ["--wait", "1", pipeline, "--json"],
    ):
        assert json.loads(run(*words).stdout)["unchanged"] == 4
    assert facts(pipeline, "name=other")["pipeline"] == "other"


def test_a_pipeline_called_like_a_command_is_reached(
    pages: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_text(Path(pages[0]).read_text())
    monkeypatch.chdir(tmp_path)
    for words in (["build", "list", "--json"], ["./list", "--json"], ["--json", "--", "list"]):
        assert json.loads(run(*words).stdout)["pipeline"] == "kept"
    assert [entry["name"] for entry in facts("list")] == ["kept"]
    assert facts("verify", "list")["whole"] is True


def test_a_command_takes_overrides(pages: tuple[str, Path]) -> None:
    pipeline, _ = pages
    assert facts(pipeline, "name=other")["added"] == 4
    assert facts("delete", pipeline, "name=other", "--source", "*") == {"pipeline": "other", "deleted": 4, "erased": True}
    assert facts("verify", pipeline)["documents"] == 4
    assert facts("use", pipeline, "1", "name=other")["documents"] == 0


def test_help_without_anything_names_every_command() -> None:
    shown = run()
    assert shown.exit_code == 2
    for command in ("build", "verify", "repair", "compact", "delete", "use", "prune", "report", "list"):
        assert f" {command} " in shown.output
        one = run(command, "--help")
        assert one.exit_code == 0 and f"Example: llmbench index {command}" in one.output
