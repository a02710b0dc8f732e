"""Files and folders that are there and cannot be read: what was read of them before stays, and so is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import retrieval, workspace
from llmbench.cli.main import cli
from llmbench.errors import DataError
from llmbench.recipe import ColumnsSpec, RagRecipe, SourceSpec
from llmbench.retrieval.reading import children
from llmbench.retrieval.store.verify import verify

Rows = Callable[..., list[tuple[Any, ...]]]
Closed = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def built(recipe: RagRecipe, words: Any, pages: Path) -> None:
    """An index of three files, one of them in a folder."""
    (pages / "shop").mkdir()
    for name in ("alpha", "beta", "shop/gamma"):
        (pages / f"{name}.txt").write_text(f"the page of {name}")
    retrieval.build(recipe, embedder=words)


def sources(query: Rows) -> list[str]:
    return [source for (source,) in query("SELECT source FROM documents ORDER BY source")]


def test_a_file_that_may_not_be_read_keeps_what_was_read_of_it(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, ask: Any, folder: Path, closed: Closed
) -> None:
    (pages / "alpha.txt").write_text("other words")
    with closed(pages / "alpha.txt"):
        report = retrieval.build(recipe, embedder=words)
    assert report.kept == (("alpha.txt", "cannot be read (Permission denied)"),)
    assert (report.unchanged, report.changed, report.removed, report.skipped) == (3, 0, 0, ())
    assert "the page of alpha" in ask("alpha")
    report = retrieval.build(recipe, embedder=words)
    assert (report.changed, report.kept) == (1, ())
    assert "the page of alpha" not in ask("alpha") and verify(folder).faults == ()


def test_a_file_that_was_never_read_is_skipped_and_read_as_soon_as_it_can_be(
    recipe: RagRecipe, words: Any, pages: Path, closed: Closed
) -> None:
    (pages / "new.txt").write_text("delta")
    with closed(pages / "new.txt"):
        report = retrieval.build(recipe, embedder=words)
    assert (report.skipped, report.kept) == ((("new.txt", "cannot be read (Permission denied)"),), ())
    assert retrieval.build(recipe, embedder=words).added == 1


def test_a_folder_that_may_not_be_listed_keeps_its_files(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, closed: Closed
) -> None:
    with closed(pages / "shop"):
        report = retrieval.build(recipe, embedder=words)
    assert report.kept == (("shop/gamma.txt", "cannot be read (Permission denied)"),)
    assert len(sources(query)) == 3


def test_rows_and_parsed_files_are_kept_too(recipe: RagRecipe, words: Any, pages: Path, query: Rows, closed: Closed) -> None:
    (pages / "rows.jsonl").write_text("".join(json.dumps({"id": i, "text": f"row {i}"}) + "\n" for i in range(3)))
    (pages / "way.html").write_text("<p>the way")
    place = SourceSpec(path=pages, columns=ColumnsSpec())
    both = recipe.model_copy(update={"documents": [place]})
    retrieval.build(both, embedder=words)
    for name in ("rows.jsonl", "way.html"):
        (pages / name).write_text("{")
    with closed(pages / "rows.jsonl"), closed(pages / "way.html"):
        assert [source for source, _ in retrieval.build(both, embedder=words).kept] == ["rows.jsonl", "way.html"]
    assert len(sources(query)) == 7


def test_a_reader_that_is_too_slow_now_takes_nothing_away(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pages / "way.html").write_text("<p>the way")
    retrieval.build(recipe, embedder=words)
    (pages / "way.html").write_text("<p>another way")
    with monkeypatch.context() as patch:
        patch.setattr(children, "PATIENCE", 0)
        report = retrieval.build(recipe, embedder=words)
    assert report.kept == (("way.html", "not read within 0 seconds"),) and "way.html" in sources(query)
    assert retrieval.build(recipe, embedder=words).changed == 1


def test_what_was_read_and_holds_nothing_any_more_leaves(recipe: RagRecipe, words: Any, pages: Path, query: Rows) -> None:
    (pages / "alpha.txt").write_text("")
    (pages / "beta.txt").unlink()
    report = retrieval.build(recipe, embedder=words)
    assert (report.removed, report.skipped, report.kept) == (2, (("alpha.txt", "empty"),), ())
    assert sources(query) == ["shop/gamma.txt"]


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_root_that_is_gone_or_empty_is_an_error_and_takes_nothing_away(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, rebuild: bool, closed: Closed
) -> None:
    away = pages.rename(pages.with_name("away"))
    with pytest.raises(
        DataError, match=r"pages cannot be read \(No such file or directory\)\. Mount it or fix its permissions"
    ):
        retrieval.build(recipe, embedder=words, rebuild=rebuild)
    pages.mkdir()
    (pages / ".placeholder").touch()
    with pytest.raises(DataError, match=r"pages is empty, but the index has 3 files from it\. If it is a disk, mount it"):
        retrieval.build(recipe, embedder=words, rebuild=rebuild)
    with closed(pages), pytest.raises(DataError, match=r"pages cannot be read \(Permission denied\)"):
        retrieval.build(recipe, embedder=words, rebuild=rebuild)
    assert len(sources(query)) == 3
    shutil.rmtree(pages)
    away.rename(pages)
    assert retrieval.build(recipe, embedder=words).unchanged == 3


def test_one_empty_root_of_several_is_told(recipe: RagRecipe, words: Any, pages: Path, tmp_path: Path, query: Rows) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "delta.txt").write_text("delta")
    several = recipe.model_copy(update={"documents": [SourceSpec(path=pages), SourceSpec(path=tmp_path / "other")]})
    retrieval.build(several, embedder=words)
    (tmp_path / "other" / "delta.txt").unlink()
    with pytest.raises(DataError, match=r"other is empty, but the index has 1 file from it"):
        retrieval.build(several, embedder=words)
    with retrieval.Writer.open(several, embedder=words) as writer:
        writer.delete(sources=["other/delta.txt"])
    assert retrieval.build(several, embedder=words).removed == 0


def test_a_rebuild_takes_over_what_it_cannot_read(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, folder: Path, closed: Closed
) -> None:
    with closed(pages / "alpha.txt"):
        report = retrieval.build(recipe, embedder=words, rebuild=True)
    assert ([source for source, _ in report.kept], report.added, report.carried) == (["alpha.txt"], 2, 1)
    assert len(sources(query)) == 3 and verify(folder).faults == ()
    (pages / "alpha.txt").write_text("other words")
    assert retrieval.build(recipe, embedder=words).changed == 1


def test_the_verb_tells_what_it_kept(tmp_path: Path, closed: Closed) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "lamp.md"
    page.write_text("The lamp is red.")
    (tmp_path / "kept.yaml").write_text("name: kept\ndocuments: [docs]\n")
    command = ["index", str(tmp_path / "kept.yaml")]
    assert CliRunner().invoke(cli, command).exit_code == 0
    page.write_text("The lamp is blue.")
    with closed(page):
        result = CliRunner().invoke(cli, command)
        found = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert result.stdout.startswith("kept: 1 unchanged, 1 unreadable now and kept. ")
    assert "kept the indexed lamp.md: cannot be read (Permission denied)" in result.stderr
    assert found["kept"] == [{"source": "lamp.md", "reason": "cannot be read (Permission denied)"}]
    assert (workspace.indexes() / "kept").is_dir()
