"""Nothing that llmbench did not write is removed or replaced: the rule, and each command that could break it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench import recipe, runs, written
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RunError
from llmbench.recipe import CompareRecipe, TrainRecipe
from llmbench.runs import checkpoints

pytestmark = pytest.mark.usefixtures("kept_embedder")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text, links as what they lead to, empty folders too."""
    found = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        ends = [name for name in folders if (here / name).is_symlink() or not any((here / name).iterdir())]
        for path in (here / name for name in (*names, *ends)):
            key = path.relative_to(folder).as_posix()
            found[key] = "-> " + str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else "/"
    return found


@pytest.fixture
def thesis(tmp_path: Path) -> Callable[[Path], Path]:
    """Puts a user's own work at a place, and returns the place."""

    def put(place: Path) -> Path:
        (place / "figures").mkdir(parents=True)
        (place / "chapter1.txt").write_text("years of work")
        (place / "figures" / "one.svg").write_text("<svg/>")
        (place / "2024").mkdir()
        (place / "2024" / "notes.txt").write_text("of that year")
        (place / "shards").mkdir()
        (place / "shards" / "pot.txt").write_text("a find")
        return place

    return put


@pytest.fixture
def document(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text("name: thesis\ndata: {train: [{path: rows.jsonl}]}\n", encoding="utf-8")
    return path


def load(document: Path, *overrides: str) -> TrainRecipe:
    return recipe.load(document, TrainRecipe, overrides)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_cleared(
    document: Path, home: Path, thesis: Callable[[Path], Path], overwrite: bool
) -> None:
    folder = thesis(home / "runs" / "thesis")
    before = tree(folder)
    for ask in (runs.check, runs.create):
        with pytest.raises(LlmbenchError, match=r"is not an llmbench run: it contains 2024, chapter1.txt, figures and 1 more"):
            ask(load(document), overwrite=overwrite)
    assert tree(folder) == before


def test_a_link_to_a_folder_that_is_no_run_is_not_followed(
    document: Path, home: Path, tmp_path: Path, thesis: Callable[[Path], Path]
) -> None:
    folder = thesis(tmp_path / "elsewhere")
    (home / "runs").mkdir(parents=True)
    (home / "runs" / "thesis").symlink_to(folder)
    before = tree(folder)
    with pytest.raises(LlmbenchError, match="is not an llmbench run"):
        runs.create(load(document))
    assert tree(folder) == before


@pytest.mark.parametrize("text", ["{}", "[1]", '{"state": "Bavaria", "created": 1806}', "no json"])
def test_a_state_json_of_somebody_else_makes_no_run(document: Path, home: Path, text: str) -> None:
    folder = home / "runs" / "thesis"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(text)
    with pytest.raises(LlmbenchError, match="is not an llmbench run"):
        runs.create(load(document), overwrite=True)
    assert runs.every() == []
    with pytest.raises(RunError, match="There is no run thesis"):
        runs.open_run("thesis")


def test_overwrite_replaces_what_the_run_wrote_and_nothing_else(document: Path) -> None:
    run = runs.create(load(document))
    run.log({"step": 1})
    (run.folder / "notes.txt").write_text("mine")
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "a.svg").write_text("mine too")
    checkpoint = run.checkpoints / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.safetensors").write_text("state")
    checkpoints.seal(checkpoint)
    written.publish(written.begin(run.folder / ".adapter.part"), run.adapter)
    again = runs.create(load(document), overwrite=True)
    assert sorted(tree(again.folder)) == [".llmbench.json", ".lock", "figures/a.svg", "notes.txt", "recipe.yaml", "state.json"]


@pytest.mark.parametrize("place", ["adapter", "model", "merged", "checkpoints/checkpoint-5"])
def test_overwrite_is_refused_where_a_file_of_the_users_would_go_with_it(document: Path, place: str) -> None:
    run = runs.create(load(document))
    folder = run.folder / place
    folder.mkdir(parents=True)
    (folder / "evaluation.xlsx").write_text("mine")
    before = tree(run.folder)
    with pytest.raises(LlmbenchError, match=r"contains files that llmbench did not write \(evaluation.xlsx\)"):
        runs.create(load(document), overwrite=True)
    assert tree(run.folder) == before


def test_a_resumed_run_says_before_it_trains_that_a_file_stands_in_its_way(document: Path) -> None:
    run = runs.create(load(document))
    run.adapter.mkdir()
    (run.adapter / "evaluation.xlsx").write_text("mine")
    with pytest.raises(LlmbenchError, match=r"did not write \(evaluation.xlsx\)"):
        runs.resume(load(document))


def test_what_is_published_takes_the_place_of_what_was_published_there(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    for text in ("old", "new"):
        part = written.begin(tmp_path / ".adapter.part")
        (part / f"{text}.json").write_text(text)
        (part / "inner").mkdir()
        (part / "inner" / "same.json").write_text(text)
        written.publish(part, target)
    assert {name: text for name, text in tree(target).items() if name != written.RECORD} == {
        "inner/same.json": "new", "new.json": "new",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert written.foreign(target) == []
    (target / "mine.txt").write_text("mine")
    (target / "inner" / "link").symlink_to(tmp_path)
    assert written.foreign(target) == ["inner/link", "mine.txt"]
    part = written.begin(tmp_path / ".adapter.part")
    with pytest.raises(LlmbenchError, match=r"did not write \(inner/link, mine.txt\)"):
        written.publish(part, target)
    written.remove(target)
    assert sorted(tree(target)) == ["inner/link", "mine.txt"]


def test_what_is_published_may_be_read_by_whom_the_umask_says(tmp_path: Path) -> None:
    part = written.begin(tmp_path / ".adapter.part")
    (part / "weights").write_bytes(b"x")
    (part / "weights").chmod(0o600)
    usual = tmp_path / "usual"
    usual.touch()
    written.publish(part, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "weights").stat().st_mode == usual.stat().st_mode


def test_what_an_interrupted_attempt_left_goes_and_nothing_that_only_looks_like_it(tmp_path: Path) -> None:
    part = tmp_path / ".adapter.part"
    (written.begin(part) / "half").write_text("")
    assert list(written.begin(part).iterdir()) == [part / written.RECORD]
    written.drop(part)
    assert not part.exists()
    for text in (None, "{", '{"files": ["adapter.json"]}'):  # killed at once, and just before the folder got its name
        part.mkdir()
        if text is not None:
            (part / written.RECORD).write_text(text)
        assert list(written.begin(part).iterdir()) == [part / written.RECORD]
        shutil.rmtree(part)
    part.mkdir()
    (part / "mine").write_text("")
    with pytest.raises(LlmbenchError, match="was not written by llmbench"):
        written.begin(part)
    written.drop(part)
    assert (part / "mine").exists()
    shutil.rmtree(part)
    part.symlink_to(tmp_path)
    with pytest.raises(LlmbenchError, match="was not written by llmbench"):
        written.begin(part)


def test_a_file_is_never_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    part = written.begin(tmp_path / ".model.part")
    with pytest.raises(LlmbenchError, match=r"model is a file\. Nothing was changed"):
        written.publish(part, tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_a_merge_replaces_no_folder_of_the_users(document: Path, tmp_path: Path, thesis: Callable[[Path], Path]) -> None:
    from llmbench.training.merging.merge import merge

    run, folder = runs.create(load(document)), thesis(tmp_path / "mine")
    before = tree(folder)
    with pytest.raises(LlmbenchError, match="already exists"):
        merge(run, output=folder)
    with pytest.raises(LlmbenchError, match="contains files that llmbench did not write"):
        merge(run, output=folder, overwrite=True)
    assert tree(folder) == before


@pytest.mark.parametrize("options", [[], ["--rebuild"]])
def test_an_index_takes_no_folder_of_the_users(
    home: Path, tmp_path: Path, thesis: Callable[[Path], Path], options: list[str]
) -> None:
    folder = thesis(home / "indexes" / "mine")
    before = tree(folder)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\nA page.\n")
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text("name: mine\ndocuments: [docs]\n")
    result = CliRunner().invoke(cli, ["index", str(pipeline), *options])
    assert result.exit_code != 0 and "is not an llmbench index" in str(result.exception)
    assert tree(folder) == before


def test_a_folder_of_the_users_inside_an_index_outlives_all_that_removes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\nA page.\n")
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text("name: kept\ndocuments: [docs]\n")

    def index(command: str, *options: str) -> None:
        result = CliRunner().invoke(cli, ["index", command, str(pipeline), *options])
        assert result.exit_code == 0, result.output

    index("build")
    folder = home / "indexes" / "kept"
    (folder / "2024").mkdir()
    (folder / "2024" / "notes.txt").write_text("mine")
    (folder / "1" / "postings-of-my-own.txt").write_text("mine")
    index("build", "--rebuild")
    index("compact")
    index("prune")
    assert (folder / "2024" / "notes.txt").exists() and (folder / "1" / "postings-of-my-own.txt").exists()
    assert not (folder / "1" / "index.sqlite").exists()
    index("verify")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_comparison_takes_no_folder_of_the_users(
    home: Path, tmp_path: Path, thesis: Callable[[Path], Path], fresh: bool
) -> None:
    from llmbench import compare

    folder = thesis(home / "comparisons" / "mine")
    (folder / "answers.jsonl").write_text("mine")
    before = tree(folder)
    (tmp_path / "q.jsonl").write_text('{"id": "1", "question": "Why?", "value": "so"}\n')
    path = tmp_path / "c.yaml"
    path.write_text("name: mine\nquestions: {path: q.jsonl}\nvariants: [a]\nendpoint: {base_url: 'http://127.0.0.1:9/v1'}\n")
    with pytest.raises(LlmbenchError, match="is not an llmbench comparison"):
        compare.run(recipe.load(path, CompareRecipe), fresh=fresh)
    assert tree(folder) == before


def test_files_that_the_user_names_are_replaced_only_where_llmbench_wrote_them(tmp_path: Path) -> None:
    from llmbench.data import page
    from llmbench.retrieval import evaluation

    ranking = tmp_path / "run.txt"
    evaluation.write_run(ranking, {"q1": ["a", "b"]}, "tag")
    evaluation.write_run(ranking, {"q1": ["b", "a"]}, "tag")
    assert ranking.read_text().startswith("q1 Q0 b 1 ")
    ranking.write_text("q1 Q0 a 1 17.25 bm25\n")
    with pytest.raises(LlmbenchError, match="was not written by llmbench"):
        evaluation.write_run(ranking, {"q1": ["a"]}, "tag")
    mine = tmp_path / "thesis.html"
    mine.write_text("<!doctype html><title>Thesis</title>")
    for path, mark in ((mine, page.MARK), (tmp_path / "folder", page.MARK)):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(LlmbenchError, match=r"thesis\.html already exists|folder cannot be written"):
            written.check_file(path, mark)
    written.check_file(tmp_path / "none.html", page.MARK)


def test_check_replaces_its_own_page_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "Hi", "completion": "Hello"}) + "\n")
    document = tmp_path / "r.yaml"
    document.write_text("name: a\nmodel: {model_name_or_path: llmbench/tiny}\ndata: {train: [{path: rows.jsonl}]}\n")
    page = tmp_path / "page.html"
    for _ in range(2):
        assert CliRunner().invoke(cli, ["check", str(document), "--html", str(page)]).exit_code == 0
    page.write_text("mine")
    result = CliRunner().invoke(cli, ["check", str(document), "--html", str(page)])
    assert "was not written by llmbench" in str(result.exception) and page.read_text() == "mine"
