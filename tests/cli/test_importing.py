"""`llmbench import` as typed: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.importing.facts import ROWS
from typer.testing import CliRunner, Result

from llmbench import recipe
from llmbench.cli.main import cli
from llmbench.recipe import TrainRecipe

AXOLOTL = (
    "base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\nlearning_rate: 1e-4\n"
    "datasets:\n  - path: rows.jsonl\n    type: chat_template\nloss_watchdog_patience: 3\nlora_rr: 4\n"
)
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "migrate.md"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["import", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.yml").write_text(AXOLOTL)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def test_a_recipe_is_written_and_loads(folder: Path) -> None:
    result = typed("theirs.yml", "-o", "deep/mine.yaml")
    assert result.exit_code == 0, result.output
    assert "Wrote deep/mine.yaml. Now run: llmbench check deep/mine.yaml" in result.stdout
    document = recipe.load(folder / "deep" / "mine.yaml", TrainRecipe)
    assert document.data.train[0].path == folder / "rows.jsonl"
    assert "path: ../rows.jsonl" in (folder / "deep" / "mine.yaml").read_text()


def test_the_table_has_a_row_for_each_setting_with_its_fate(folder: Path) -> None:
    lines = typed("theirs.yml", "-o", "mine.yaml").stdout.splitlines()
    assert any("lora_r=8" in line and "lora.r=8" in line and " kept" in line for line in lines)
    assert any("sequence_len=512" in line and "data.max_length=512" in line and "default written out" in line for line in lines)
    assert any("loss_watchdog_patience=3" in line and " dropped " in line for line in lines)
    assert any("lora_rr=4" in line and " refused " in line and "did you mean lora_r?" in line for line in lines)
    counted = next(line for line in lines if re.match(r"\d+ kept, \d+ defaults written out, \d+ dropped, 1 refused", line))
    assert counted


def test_without_an_output_the_recipe_alone_is_on_stdout(folder: Path) -> None:
    result = typed("theirs.yml")
    assert result.exit_code == 0 and result.stdout.startswith("# Imported from axolotl (theirs.yml): sft, LoRA, a/b.")
    assert "refused" in result.stderr and "default written out" in result.stderr
    (folder / "mine.yaml").write_text(result.stdout)
    assert recipe.load("mine.yaml", TrainRecipe).training.learning_rate == 1e-4


def test_json_says_the_same(folder: Path) -> None:
    told = json.loads(typed("theirs.yml", "--json").stdout)
    assert told["schema"] == "llmbench.import/1" and told["from"] == "axolotl" and told["loads"] is True
    assert told["output"] is None and told["missing"] == [] and told["unfit"] == []
    fates = [one["fate"] for one in told["settings"]]
    assert told["counts"] == {fate: fates.count(fate) for fate in ("kept", "default", "dropped", "refused")}
    [setting] = [one for one in told["settings"] if one["theirs"] == "lora_alpha"]
    assert (setting["ours"], setting["becomes"], setting["line"]) == ("lora.lora_alpha", 16, 4)
    guide = GUIDE.read_text(encoding="utf-8")
    assert [key for key in (*told, *setting) if f"`{key}`" not in guide] == []


def test_an_existing_file_is_kept_unless_told(folder: Path) -> None:
    (folder / "mine.yaml").write_text("mine\n")
    result = typed("theirs.yml", "-o", "mine.yaml")
    assert result.exit_code != 0 and "mine.yaml already exists" in str(result.exception)
    assert (folder / "mine.yaml").read_text() == "mine\n"
    assert typed("theirs.yml", "-o", "mine.yaml", "--force").exit_code == 0
    assert (folder / "mine.yaml").read_text().startswith("# Imported from axolotl")


def test_what_is_missing_is_named_and_the_recipe_is_written_anyway(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    result = typed("theirs.yml", "-o", "mine.yaml")
    assert result.exit_code == 0 and (folder / "mine.yaml").exists()
    assert "Missing: data.train[0].path: no such file rows.jsonl" in result.stdout
    assert "Put the missing files in place, then run: llmbench check mine.yaml" in result.stdout
    assert json.loads(typed("theirs.yml", "--json").stdout)["loads"] is False


def test_where_no_recipe_is_faithful_none_is_written(folder: Path) -> None:
    (folder / "theirs.yml").write_text(AXOLOTL + "rl: simpo\n")
    result = typed("theirs.yml", "-o", "deep/mine.yaml")
    assert str(result.exception) == "theirs.yml:12: rl=simpo: llmbench has no simpo"
    assert not (folder / "deep").exists()
    assert "refused, cannot be left out" in result.stdout
    told = typed("theirs.yml", "--json")
    assert told.exit_code == 2 and json.loads(told.stdout)["recipe"] is None


def test_from_says_whose_it_is_and_its_values_are_completed(folder: Path) -> None:
    (folder / "odd.yml").write_text("lora_r: 8\nlora_alpha: 8\n")
    assert "--from" in str(typed("odd.yml").exception)
    assert typed("odd.yml", "--from", "nobody").exit_code == 2
    assert "--dataset-info is for LLaMA-Factory" in str(typed("theirs.yml", "--dataset-info", "x").exception)


def test_the_guide_is_followed_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are written, its commands typed, and what it shows is what comes."""
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text(encoding="utf-8")
    for name, content in re.findall(r"<!-- file: (\S+) -->\n\n((?:    .*\n|\n(?=    ))+)", text):
        (tmp_path / name).write_text(re.sub(r"(?m)^    ", "", content), encoding="utf-8")
    commands = re.findall(r"(?m)^    llmbench (import .+?)(?:  +#.*)?$", text)
    assert len(commands) >= 4
    for command in commands:
        result = CliRunner().invoke(cli, command.split())
        assert result.exit_code == 0, (command, result.output, result.exception)
    shown = re.search(r"<!-- shows: (\S+) -->\n\n((?:    .*\n|\n(?=    ))+)", text)
    assert shown is not None
    assert re.sub(r"(?m)^    ", "", shown[2]).strip() == (tmp_path / shown[1]).read_text(encoding="utf-8").strip()
