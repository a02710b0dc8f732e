"""`llmbench advise` as typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from llmbench import recipe
from llmbench.cli import advise, check
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["advise", *arguments])


def test_it_says_what_to_try_first_and_lists_the_rest() -> None:
    result = typed("--hardware", "RTX 4090", "--users", "4", "--family", "qwen3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Hardware  RTX 4090, 24.0 GiB; 1,008 GB/s") and "stated by the maker" in lines[0]
    first = next(line for line in lines if line.startswith("Try first: "))
    name = first.split()[2]
    command = next(line for line in lines if line.strip().startswith("llmbench train"))
    assert f"model.model_name_or_path={name}" in command
    rows = [line for line in lines if line.startswith("Qwen/")]
    assert len(rows) == 9 and rows[0].startswith(name)
    assert "training lacks" in rows[-1], "what does not fit comes last, with what is missing"


def test_json_has_every_option_in_bytes_and_seconds() -> None:
    said = json.loads(typed("--hardware", "h100", "--licence", "mit", "--method", "lora", "--json").stdout)
    assert said["schema"] == "llmbench.advise/1"
    assert said["hardware"]["bf16"] == 989e12 and not said["hardware"]["measured"]
    assert {one["licence"] for one in said["options"]} == {"mit"}
    assert {one["method"] for one in said["options"]} == {"lora"}
    assert len(said["options"]) == 3 * 4 and len(said["best"]) == 3
    assert said["first"]["model"] == said["best"][0]["model"] and said["first"]["fits"]
    assert f"model.model_name_or_path={said['first']['model']}" in said["first"]["overrides"]


def test_nothing_fits_is_said_with_what_is_nearest() -> None:
    result = typed("--hardware", "RTX 3080", "--family", "llama", "--users", "512", "--context", "8192")
    assert result.exit_code == 0
    assert "No model fits. The nearest is meta-llama/Llama-3.2-1B" in result.stdout
    said = json.loads(
        typed("--hardware", "RTX 3080", "--family", "llama", "--users", "512", "--context", "8192", "--json").stdout
    )
    assert said["first"] is None


def test_a_recipe_gives_rows_and_settings(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i} " * 20} for i in range(64)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "mine.yaml"
    document = {"name": "mine", "data": {"train": [{"path": "rows.jsonl"}]}, "training": {"num_train_epochs": 3}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    result = typed("--hardware", "L4", "--task", str(path), "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["task"]["recipe"] == str(path)
    lengths, _ = check.row_lengths(recipe.load(path, recipe.TrainRecipe))
    assert said["task"]["tokens"] == pytest.approx(3 * lengths.sum(), rel=0.01), "three epochs"
    assert said["first"]["train_seconds"] < 3600


@pytest.mark.parametrize("words", [["--hardware", "L4", "--max-latency", "1"], ["--hardware", "L4", "--max-hours", "0.01"]])
def test_limits_filter(words: list[str]) -> None:
    free = json.loads(typed("--hardware", "L4", "--json").stdout)
    strict = json.loads(typed(*words, "--json").stdout)
    assert sum(one["fits"] for one in strict["options"]) < sum(one["fits"] for one in free["options"])


def test_the_shell_completes_names() -> None:
    assert "RTX 4090" in advise._hardware("rtx") and advise._hardware("th") == ["this"]
    assert advise._families("qwen") == ["qwen2.5", "qwen3"]
    assert advise._licences("a") == ["apache-2.0"]
    assert advise._methods("q") == ["qlora"]


def test_another_hardware_is_not_measured() -> None:
    result = typed("--hardware", "H100", "--measure")
    assert isinstance(result.exception, LlmbenchError) and not result.stdout
    assert "--measure measures this machine" in str(result.exception)


def test_a_recipe_of_the_same_name_in_this_folder_is_not_taken_for_the_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = typed("--hardware", "L4", "--family", "phi", "--json").stdout
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "sft-lora.yaml").write_text("name: [", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert typed("--hardware", "L4", "--family", "phi", "--json").stdout == before


def test_a_narrow_terminal_shows_whole_names_and_memory_and_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")  # which gets no bold headings
    monkeypatch.setenv("COLUMNS", "80")
    advise.advise(hardware="RTX 4090", family=["qwen3", "mistral"])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("model "))
    table = lines[start : lines.index("", start)]
    assert len(table) > 12 and max(map(len, table)) <= 80 and not any("…" in line for line in table)
    assert table[0].split() == ["model", "train", "GiB", "time", "serve", "GiB", "ms/token"]
    assert any(line.startswith("mistralai/Mistral-Nemo-Base-2407 ") for line in table)
    assert any(line.startswith("Qwen/Qwen3-235B-A22B does not fit: training lacks") for line in table)
    monkeypatch.setenv("COLUMNS", "200")
    advise.advise(hardware="RTX 4090", family=["qwen3", "mistral"])
    assert "first ms" in capsys.readouterr().out
