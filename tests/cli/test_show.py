"""`llmbench show`: every value that holds, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import recipe
from llmbench.cli.main import cli
from llmbench.recipe import resolution

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "rag").glob("*.yaml")])
SMALL = "name: small\ndata:\n  train:\n    - path: rows.jsonl\n"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["show", *arguments])


def origins(*arguments: str) -> dict[str, tuple[Any, str, str | None]]:
    """Field -> value, origin, where."""
    told = json.loads(typed(*arguments, "--json").stdout)
    return {one["field"]: (one["value"], one["origin"], one["where"]) for one in told["values"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "my.yaml").write_text(SMALL + "training:\n  learning_rate: 1e-3\n")
    return tmp_path


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_shown_is_the_document_and_loads_as_the_same(path: Path, tmp_path: Path) -> None:
    if "absence" in path.name or "cite" in path.name:
        pytest.skip("starts from a model that a run makes")
    result = typed(str(path))
    assert result.exit_code == 0, result.exception
    (tmp_path / "shown.yaml").write_text(result.stdout, encoding="utf-8")
    original = recipe.load_any(path)
    assert recipe.load_any(tmp_path / "shown.yaml").model_dump() == original.model_dump()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_line_of_a_file_that_sets_a_value_is_named(path: Path) -> None:
    found = resolution.resolve(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in found.values:
        if one.origin == "file":
            number = int(one.where.rpartition(":")[2])
            assert str(one.place[-1]) in lines[number - 1] or isinstance(one.place[-2], int), (one, lines[number - 1])


def test_file_override_default_and_what_is_chosen_later(folder: Path) -> None:
    found = origins("my.yaml", "training.seed=3", "lora.r=4")
    assert found["training.learning_rate"] == (1e-3, "file", "my.yaml:6")
    assert found["data.train[0].path"] == (str(folder / "rows.jsonl"), "file", "my.yaml:4")
    assert found["training.seed"] == (3, "override", "training.seed")
    assert found["lora.r"] == (4, "override", "lora.r") and found["lora.lora_alpha"] == (32, "default", None)
    assert found["training.gradient_checkpointing"] == (None, "default", "chosen when it runs")
    assert found["model.dtype"] == ("auto", "default", "chosen when it runs")
    assert found["model.revision"] == (None, "default", None)


def test_an_override_of_what_the_file_says_wins_in_both(folder: Path) -> None:
    found = origins("my.yaml", "training.learning_rate=5e-4", "data.train.0.limit=7")
    assert found["training.learning_rate"] == (5e-4, "override", "training.learning_rate")
    assert found["data.train[0].limit"] == (7, "override", "data.train.0.limit")
    assert found["data.train[0].path"][1] == "file"


@pytest.mark.parametrize(
    ("more", "field", "wanted"),
    [
        ("method: dpo\n", "training.learning_rate", (5e-5, "derived", "from method: dpo, for an adapter")),
        ("method: dpo\nlora: null\n", "training.learning_rate", (5e-6, "derived", "from method: dpo, for all parameters")),
        ("adapter: {type: ia3}\n", "lora", (None, "derived", "from adapter")),
        ("freeze: {layers: 2}\n", "lora", (None, "derived", "from freeze")),
        ("quantization: {bnb_4bit_quant_type: fp4}\n", "quantization.load_in_4bit",
         (True, "derived", "from quantization without load_in_8bit")),
    ],
)  # fmt: skip
def test_what_follows_from_other_values_says_from_which(
    more: str, field: str, wanted: tuple[Any, str, str], folder: Path
) -> None:
    (folder / "my.yaml").write_text(SMALL + more)
    assert origins("my.yaml")[field] == wanted


def test_the_settings_of_an_adapter_that_is_continued(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 5, "lora_alpha": 9, "target_modules": ["q_proj"]}'
    )
    (folder / "my.yaml").write_text(SMALL + "adapter_name_or_path: old\n")
    assert origins("my.yaml")["lora.r"] == (5, "derived", "from the adapter that it continues")


def test_lines_of_an_included_file_are_its_own(folder: Path) -> None:
    (folder / "base.yaml").write_text(SMALL + "training:\n  seed: 9\n")
    (folder / "my.yaml").write_text("include: base.yaml\nname: mine\n")
    found = origins("my.yaml")
    assert found["name"] == ("mine", "file", "my.yaml:2")
    assert found["training.seed"] == (9, "file", f"{folder / 'base.yaml'}:6")


def test_short_forms_are_values_of_the_file(folder: Path) -> None:
    (folder / "pages").mkdir()
    (folder / "my.yaml").write_text("name: a\ndocuments: pages\n")
    assert origins("my.yaml")["documents[0].path"] == (str(folder / "pages"), "file", "my.yaml:2")
    (folder / "my.yaml").write_text("variants:\n  - name: base\ngateway:\n  access_log: here.jsonl\n")
    assert origins("my.yaml")["gateway.access_log.path"] == (str(folder / "here.jsonl"), "file", "my.yaml:4")


def test_secrets_are_not_shown(folder: Path) -> None:
    (folder / "my.yaml").write_text(
        "variants:\n  - name: base\nengine:\n  api_key: hunter2\n"
        "gateway:\n  keys: true\n  limits_in: redis://me:hunter3@host:1/0\n"
    )
    for arguments in (["my.yaml", "gateway.api_key=hunter4"], ["my.yaml", "gateway.api_key=hunter4", "--json"]):
        result = typed(*arguments)
        assert result.exit_code == 0 and "hunter" not in result.output and result.output.count("***") == 3


def test_it_refuses_what_check_refuses_in_the_same_words(folder: Path) -> None:
    (folder / "my.yaml").write_text(SMALL + "training:\n  learning_rat: 1\n")
    said = [str(CliRunner().invoke(cli, [verb, "my.yaml"]).exception) for verb in ("show", "check")]
    assert said[0] == said[1] and "my.yaml:6: training.learning_rat is not a field" in said[0]


def test_json_and_text_count_alike_and_the_guide_names_the_keys(folder: Path) -> None:
    told = json.loads(typed("my.yaml", "--json").stdout)
    assert told["schema"] == "llmbench.show/1" and told["kind"] == "train"
    assert sum(told["counts"].values()) == len(told["values"])
    counts = told["counts"]
    assert typed("my.yaml").stdout.startswith(f"# my.yaml: {counts['file']} values from the file, 0 overridden, ")
    guide = (ROOT / "docs" / "guide" / "fine-tune.md").read_text(encoding="utf-8")
    named = [*told, *told["values"][0]]
    assert [key for key in named if key != "schema" and f"`{key}`" not in guide] == []
