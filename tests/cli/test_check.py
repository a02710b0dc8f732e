"""`llmbench check` as typed: what it prints, its exit codes, and that it stays light."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from llmbench import recipe as recipes
from llmbench.cli.main import cli
from llmbench.data import kept, vocabulary
from llmbench.errors import DataError, LlmbenchError, RecipeError

HEAVY = ["torch", "transformers", "trl", "peft", "accelerate", "matplotlib", "pandas", "datasets"]


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def write(folder: Path, *answers: str, **data: Any) -> Path:
    """A recipe over one question and its answers."""
    rows = [
        {"prompt": f"Question {i} of {'abcdefghij'[i % 10] * 5}?", "completion": answer} for i, answer in enumerate(answers)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "mine.yaml"
    document = {"name": "mine", "data": {"train": [{"path": "rows.jsonl"}], "max_length": 128} | data}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write(tmp_path, "one", "two", "three", "four")


def test_the_report_is_printed_section_by_section(mine: Path) -> None:
    result = typed(str(mine))
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles[0].startswith("mine  sft on llmbench/tiny, from")
    assert titles[1:] == [
        "Rows", "Tokens per row", "Learned", "Duplicates", "Secrets and personal data",
        "Memory and time (estimated)", "Tokenised preview", "Notes",
        "No problems found.",
    ]  # fmt: skip
    assert "⟦one<|im_end|>⟧↵" in result.stdout


def test_json_is_one_document_with_what_the_guide_promises(mine: Path) -> None:
    report = json.loads(typed(str(mine), "--json").stdout)
    assert report["schema"] == "llmbench.check/1"
    assert set(report) == {
        "schema", "recipe", "name", "method", "model", "hashes", "train", "eval", "duplicates", "secrets", "rendering", "notes",
        "sections",
    }  # fmt: skip
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "check.md").read_text(encoding="utf-8")
    told = [
        *report,
        *report["train"],
        *report["duplicates"],
        *report["hashes"],
        *report["train"]["lengths"],
        *report["train"]["limit"],
    ]
    assert [name for name in told if f"`{name}`" not in guide] == []


def test_nothing_is_left_but_the_cache(mine: Path, home: Path) -> None:
    typed(str(mine))
    assert [path.name for path in home.iterdir()] == ["cache"]
    assert sorted(path.name for path in mine.parent.iterdir()) == ["mine.yaml", "outputs", "rows.jsonl"]


def test_a_page_is_written_where_it_is_asked_for(mine: Path, tmp_path: Path) -> None:
    result = typed(str(mine), "--html", str(tmp_path / "deep" / "page.html"))
    assert result.stdout.splitlines()[-1] == f"Page: {tmp_path / 'deep' / 'page.html'}"
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_overrides_win(mine: Path) -> None:
    result = typed(str(mine), "data.max_length=8", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["train"]["limit"]["max_length"] == 8


def test_exit_codes_tell_of_the_gravest_note(tmp_path: Path) -> None:
    clean = write(tmp_path, "one", "two")
    assert typed(str(clean), "--strict").exit_code == 0
    warned = write(tmp_path, "one", "write to ada@lovelace.org")
    assert typed(str(warned), "--strict").exit_code == 0
    leaked = write(tmp_path, "one", "the key is AKIA" + "QZX7KM2PLW4TJ6VB")
    assert typed(str(leaked)).exit_code == 0
    assert typed(str(leaked), "--strict").exit_code == 1
    refused = write(tmp_path, "one", "two " * 200)
    assert typed(str(refused)).exit_code == 2
    assert typed(str(refused), "--strict").exit_code == 2


def test_a_row_longer_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "one", "two " * 900, max_length=8192)
    result = typed(str(path), "--json")
    assert result.exit_code == 2
    [note] = [note for note in json.loads(result.stdout)["notes"] if note["level"] == "refused"]
    assert note["where"] == "data.max_length" and "the model reads at most 1,024" in note["text"]


def test_a_tokenizer_of_its_own_says_nothing_of_the_model(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny / name, tmp_path / "tokenizer")
    path = write(tmp_path, "one", "two " * 900, max_length=8192)
    result = typed(str(path), f"model.tokenizer={tmp_path / 'tokenizer'}")
    assert result.exit_code == 2 and "the model reads at most 1,024" in " ".join(result.stdout.split())
    result = typed(str(write(tmp_path, "one", "two")), f"model.tokenizer={tmp_path / 'tokenizer'}")
    assert result.exit_code == 0 and "GiB on CPU" in result.stdout


def test_a_model_of_which_the_cache_has_no_weights_yet_is_not_refused(
    mine: Path, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub/models--org--small/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text("a" * 40)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny / name, snapshot)
    result = typed(str(mine), "model.model_name_or_path=org/small")
    assert result.exit_code == 0 and "No problems found." in result.stdout, result.output


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["data.max_lenght=3"], RecipeError, "Did you mean max_length?"),
        (["data.train.0.path=absent.jsonl"], RecipeError, "no such file absent.jsonl"),
        (["model.model_name_or_path=./absent"], LlmbenchError, "/absent. Name a model's folder"),
    ],
)
def test_what_cannot_be_read_is_one_line(mine: Path, arguments: list[str], kind: type[Exception], message: str) -> None:
    result = typed(str(mine), *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_data_without_a_usable_row_is_one_line(mine: Path) -> None:
    (mine.parent / "rows.jsonl").write_text("[]\n", encoding="utf-8")
    result = typed(str(mine))
    assert isinstance(result.exception, DataError)
    assert "rows.jsonl:1" in str(result.exception)


def document(path: Path) -> recipes.TrainRecipe:
    return recipes.load(path, recipes.TrainRecipe)


def never(spec: recipes.DataSpec) -> Any:
    raise AssertionError("the rows are prepared although the report is known")


def test_a_known_report_is_not_made_again(mine: Path, tiny: Path) -> None:
    first = json.loads(typed(str(mine), "--json").stdout)
    again = kept.report(document(mine), tiny, never, stops=vocabulary.stops(tiny))
    assert again.train.tokens == first["train"]["tokens"]


@pytest.mark.parametrize("change", ["rows", "shown", "threshold", "max_length", "batch"])
def test_whatever_changes_the_report_makes_a_new_one(mine: Path, tiny: Path, change: str) -> None:
    typed(str(mine))
    found = document(mine)
    settings: dict[str, Any] = {}
    match change:
        case "rows":
            with (mine.parent / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"prompt": "More?", "completion": "more"}) + "\n")
        case "shown":
            settings = {"shown": 4}
        case "threshold":
            settings = {"threshold": 0.5}
        case "max_length":
            found = recipes.load(mine, recipes.TrainRecipe, ["data.max_length=100"])
        case "batch":
            found = recipes.load(mine, recipes.TrainRecipe, ["training.per_device_train_batch_size=2"])
    with pytest.raises(AssertionError, match="prepared although"):
        kept.report(found, tiny, never, stops=vocabulary.stops(tiny), **settings)


def test_what_the_report_does_not_depend_on_makes_none(mine: Path, tiny: Path) -> None:
    typed(str(mine))
    found = recipes.load(mine, recipes.TrainRecipe, ["training.learning_rate=1e-5"])
    assert kept.report(found, tiny, never, stops=vocabulary.stops(tiny))


def test_a_broken_report_is_made_again(mine: Path, home: Path) -> None:
    first = typed(str(mine), "--json").stdout
    [path] = (home / "cache" / "reports").glob("*.json")
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    assert typed(str(mine), "--json").stdout == first


def test_a_second_look_loads_no_trainer(mine: Path) -> None:
    typed(str(mine))
    code = (
        "import json, sys\n"
        f"sys.argv = ['llmbench', 'check', {str(mine)!r}]\n"
        "from llmbench.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Tokenised preview" in done.stdout
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_the_bundled_recipe_comes_out_clean() -> None:
    result = typed("recipes/sft-lora.yaml", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {note["level"] for note in report["notes"]} <= {"note"}
    assert report["train"]["turns"] == report["train"]["turns_ended"] == report["train"]["rows"]


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("dpo", "pairs.jsonl:1 (chosen)", "trained in 172 of 172 answers"),
        ("kto", "marked.jsonl:47", "trained in 86 of 86 answers"),
        ("grpo", "prompts.jsonl:1", "generated by the model and scored by the reward functions"),
    ],
)
def test_rows_of_judged_answers_and_of_prompts_are_named_and_shown(name: str, place: str, said: str) -> None:
    result = typed(f"recipes/{name}.yaml", "--rows", "1")
    assert result.exit_code == 0, result.output
    assert f"  {place}: " in result.stdout
    assert said in result.stdout
