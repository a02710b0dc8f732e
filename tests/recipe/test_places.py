"""Where a path in a document leads: to one place, whatever else has the same name."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench import assets, recipe, written
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe, TrainRecipe


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder; the working directory is another one, which has files of the same names."""
    for place in ("project", "elsewhere"):
        for name in (
            "docs/page.md",
            "rows.jsonl",
            "model/config.json",
            "q.jsonl",
            "t.jinja",
            "own.py",
            "adapter/adapter_config.json",
        ):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("def reward(row):\n    return 1\n" if name == "own.py" else '{"a": 1}\n')
    (tmp_path / "elsewhere" / "only-here.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def write(project: Path, text: str) -> Path:
    path = project / "r.yaml"
    path.write_text(text)
    return path


def test_a_path_in_a_document_starts_from_its_folder(project: Path) -> None:
    path = write(project, "name: a\ndata: {train: [{path: rows.jsonl, formatting: 'own.py:reward'}], chat_template: t.jinja}\n")
    read = recipe.load(path, TrainRecipe, ["model.model_name_or_path=x/y"])
    source = read.data.train[0]
    assert source.path == project / "rows.jsonl" and source.formatting == f"{project / 'own.py'}:reward"
    assert read.data.chat_template == str(project / "t.jinja")
    pipeline = recipe.load(write(project, "name: a\ndocuments: [docs]\nquestions: q.jsonl\n"), RagRecipe)
    assert pipeline.documents[0].path == project / "docs" and pipeline.questions == project / "q.jsonl"


def test_a_path_on_the_command_line_starts_from_the_working_directory(project: Path) -> None:
    path = write(project, "name: a\ndata: {train: [{path: rows.jsonl}]}\n")
    here = Path.cwd()
    for override in ("data.train.0.path=only-here.jsonl", "data.train=[{path: only-here.jsonl}]"):
        assert recipe.load(path, TrainRecipe, [override]).data.train[0].path == here / "only-here.jsonl"
    assert recipe.load(path, TrainRecipe, ["data.chat_template=t.jinja"]).data.chat_template == str(here / "t.jinja")
    assert recipe.load(path, TrainRecipe, ["model.model_name_or_path=./model"]).model.model_name_or_path == str(here / "model")


@pytest.mark.parametrize("pattern", ["only-*.jsonl", "only-here.jsonl"])
def test_a_file_that_is_missing_is_not_taken_from_the_working_directory(project: Path, pattern: str) -> None:
    path = write(project, f"name: a\ndata: {{train: [{{path: '{pattern}'}}]}}\n")
    with pytest.raises(RecipeError, match=r"\(looked in \S+/project\)"):
        recipe.load(path, TrainRecipe)


def test_the_message_names_the_file_of_that_name_elsewhere(project: Path) -> None:
    path = write(project, "name: a\ndata: {train: [{path: only-here.jsonl}]}\n")
    with pytest.raises(RecipeError, match=r"r.yaml:2: data.train\[0\].path: no such file only-here.jsonl") as raised:
        recipe.load(path, TrainRecipe)
    assert str(raised.value).endswith("It exists in the working directory: write ../elsewhere/only-here.jsonl")
    with pytest.raises(RecipeError, match=r"A file of this name is bundled: write bundled://rag/train.jsonl$"):
        recipe.load(write(project, "name: a\ndata: {train: [{path: rag/train.jsonl}]}\n"), TrainRecipe)


@pytest.mark.parametrize("name", ["docs", "README.md", "rag", "recipes", "app"])
def test_what_came_with_llmbench_takes_no_place_of_the_users(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"name: a\ndocuments: [{name}]\n")
    with pytest.raises(RecipeError, match=f"no such file {name}"):
        recipe.load(path, RagRecipe)
    path.write_text(f"name: a\ndocuments: ['bundled://{name}']\n")
    assert recipe.load(path, RagRecipe).documents[0].path == (assets.bundle() / name).resolve()


@pytest.mark.parametrize("name", ["bundled://nothing.jsonl", "bundled://../../../etc/passwd", "bundled:///etc/passwd"])
def test_a_bundled_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: a\ndata: {{train: [{{path: '{name}'}}]}}\n")
    with pytest.raises(RecipeError, match="llmbench has no bundled"):
        recipe.load(path, TrainRecipe)


def test_a_bundled_document_goes_by_its_name_where_no_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe.load("rag/handbook.yaml", RagRecipe).name == "handbook"
    assert recipe.load("bundled://rag/handbook.yaml", RagRecipe).origin == "bundled://rag/handbook.yaml"
    (tmp_path / "rag").mkdir()
    with pytest.raises(RecipeError, match=r"rag/handbook\.yaml: no such file"):
        recipe.load("rag/handbook.yaml", RagRecipe)


def test_a_bundled_template_goes_by_its_name_too(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: a\ndata: {train: [{path: r.yaml}], chat_template: recipes/tools.jinja}\n")
    assert recipe.load(path, TrainRecipe).data.chat_template == str((assets.bundle() / "recipes/tools.jinja").resolve())
    (tmp_path / "recipes").mkdir()
    with pytest.raises(RecipeError, match="chat_template: no such file"):
        recipe.load(path, TrainRecipe)


@pytest.mark.parametrize("name", ["./model", "model"])
def test_a_model_in_a_document_is_the_one_beside_it(project: Path, name: str) -> None:
    path = write(project, f"name: a\nmodel: {{model_name_or_path: {name}}}\ndata: {{train: [{{path: rows.jsonl}}]}}\n")
    assert recipe.load(path, TrainRecipe).model.model_name_or_path == str(project / "model")
    variants = f"variants: [{{name: a, adapter: ./adapter}}]\nmodel: {{model_name_or_path: {name}}}\n"
    served = recipe.load(write(project, variants), ServeRecipe)
    assert served.model.model_name_or_path == str(project / "model") and served.variants[0].adapter == str(project / "adapter")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "gpt2", "llmbench/tiny"])
def test_the_name_of_a_hub_stays_a_name(project: Path, name: str) -> None:
    path = write(project, f"name: a\nmodel: {{model_name_or_path: {name}}}\ndata: {{train: [{{path: rows.jsonl}}]}}\n")
    assert recipe.load(path, TrainRecipe).model.model_name_or_path == name


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.train.0.path=~nobody.of.this.name/a.jsonl", r"no such file ~nobody.of.this.name/a.jsonl \(looked in"),
        (f"data.train.0.path={'x' * 300}", "no such file xxx"),
        ("model.model_name_or_path=bundled://mine", "llmbench has no bundled mine"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(project: Path, override: str, said: str) -> None:
    path = write(project, "name: a\ndata: {train: [{path: rows.jsonl}]}\n")
    with pytest.raises(RecipeError, match=said):
        recipe.load(path, TrainRecipe, [override])


def index(path: Path) -> str:
    result = CliRunner().invoke(cli, ["index", str(path)])
    return str(result.exception) if isinstance(result.exception, LlmbenchError) else result.output


def test_a_folder_of_documents_that_is_gone_leaves_the_index_as_it_is(project: Path, home: Path) -> None:
    path = write(project, "name: ours\ndocuments: [docs]\n")
    assert "1 added" in index(path)
    (project / "docs").rename(project / "unmounted")
    assert "no such file docs" in index(path)
    (project / "unmounted").rename(project / "docs")
    assert "1 unchanged" in index(path)


def test_two_pipelines_of_one_name_do_not_share_an_index(tmp_path: Path, home: Path) -> None:
    for project in ("a", "b"):
        (tmp_path / project / "notes").mkdir(parents=True)
        (tmp_path / project / "notes" / f"{project}.md").write_text(f"# {project}\n\nThe winch of project {project}.\n")
        (tmp_path / project / "p.yaml").write_text("name: notes\ndocuments: [notes]\n")
    first, second = tmp_path / "a" / "p.yaml", tmp_path / "b" / "p.yaml"
    assert "1 added" in index(first)
    said = index(second)
    assert said.startswith(f"{second}: index notes belongs to {first}. Nothing was changed.")
    assert "1 unchanged" in index(first)
    verify, delete = ["index", "verify", str(second)], ["index", "delete", str(second), "--source", "*"]
    for verb in (["search", str(second), "winch"], verify, delete):
        assert f"belongs to {first}" in str(CliRunner().invoke(cli, verb).exception)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert "1 unchanged" in index(tmp_path / "moved" / "p.yaml")


def test_two_comparisons_of_one_name_do_not_share_a_folder(tmp_path: Path, home: Path) -> None:
    from llmbench import compare

    for project in ("a", "b"):
        (tmp_path / project).mkdir()
        (tmp_path / project / "q.jsonl").write_text('{"id": "1", "question": "Why?", "value": "so"}\n')
        (tmp_path / project / "c.yaml").write_text(
            "name: c\nquestions: {path: q.jsonl}\nvariants: [a]\nendpoint: {base_url: 'http://127.0.0.1:9/v1'}\n"
        )
    with pytest.raises(LlmbenchError, match="No endpoint answers"):
        compare.run(recipe.load(tmp_path / "a" / "c.yaml", CompareRecipe))
    assert not (home / "comparisons" / "c" / written.RECORD).exists()  # nothing was asked
    written.claim(home / "comparisons" / "c", "comparison", by=str(tmp_path / "a" / "c.yaml"))  # as with the first answer
    with pytest.raises(LlmbenchError, match=r"comparison c belongs to .*/a/c\.yaml"):
        compare.run(recipe.load(tmp_path / "b" / "c.yaml", CompareRecipe))


def test_a_copy_is_called_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for target, name in (("my.yaml", "my"), ("Ünder weg.yaml", "nder-weg"), ("deep/sft-lora.yaml", "my-sft-lora")):
        assert CliRunner().invoke(cli, ["new", "sft-lora", target]).exit_code == 0
        assert recipe.load(target, TrainRecipe).name == name
