"""Files that are no configuration, and values that no trainer would take: one line each, with the file and the line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.importing.facts import ROWS, imported, loaded

from llmbench.errors import RecipeError
from llmbench.importing import convert

AX = "base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\nlearning_rate: 1e-4\n"
DATA = "datasets: [{path: a/b, type: chat_template}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: [1, 2\nb: 3\n", r"theirs\.yaml:2: not valid YAML: "),
        (b"a: 1\n\tb: 2\n", r"theirs\.yaml:2: not valid YAML: "),
        (b"- base_model: a/b\n", r"theirs\.yaml:1: a configuration is lines of `key: value`, and this is a list"),
        (b"just words\n", r"theirs\.yaml:1: a configuration is lines of `key: value`, and this is a single value"),
        (b"seed: 1\nlr: 2\nseed: 3\n", r"theirs\.yaml:3: seed is given twice \(first on line 1\)"),
        (b"trl:\n  beta: 1\n  beta: 2\n", r"theirs\.yaml:3: trl\.beta is given twice \(first on line 2\)"),
        (b"a: 1\n---\nb: 2\n", r"theirs\.yaml:2: not valid YAML: a second document"),
        (b"a: !include other.yaml\n", r"theirs\.yaml:1: the tag !include is not read: write the value itself"),
        (b"a: !!python/object/apply:os.system [ls]\n", r"theirs\.yaml:1: the tag !!python/object/apply:os\.system is not read"),
        (b"? [a, b]\n: 1\n", r"theirs\.yaml:1: a key must be a word"),
        (b"\xff\xfe\x00", r"theirs\.yaml: not UTF-8 text \(byte 1\)"),
        (b"base_model: a\x00b\n", r"theirs\.yaml: is a binary file"),
        (b"a: " + b"[" * 40 + b"]" * 40 + b"\n", r"nested too deeply \(at most 24 levels\)"),
        (b"x" * 2_000_001, r"theirs\.yaml: 2,000,001 bytes is too large"),
        (b"a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", r"more than 100,000 values; aliases"),
        (b"a: &a\n  b: *a\n", r"nested too deeply|not valid YAML"),
        (b"", r"theirs\.yaml: not a configuration that llmbench knows"),
        (b"colour: blue\n", r"theirs\.yaml: not a configuration that llmbench knows\. .*--from: llamafactory"),
        (b"lora_r: 8\nlora_target_modules: [q_proj]\n", r"theirs\.yaml: could be for .*--from "),
        (b"name: mine\ndata:\n  train: []\n", r"theirs\.yaml: is a recipe of llmbench already\. Run: llmbench check"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_line(text: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_bytes(text)
    with pytest.raises(RecipeError, match=says) as caught:
        convert(tmp_path / "theirs.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("learning_rate: fast", r"theirs\.yaml:6: learning_rate should be a number, not fast"),
        ("micro_batch_size: 2.5", r"theirs\.yaml:7: micro_batch_size should be a whole number, not 2\.5"),
        ("sample_packing: maybe", r"theirs\.yaml:7: sample_packing should be true or false, not maybe"),
        ("base_model: [a]", r"theirs\.yaml:1: base_model should be text, not \['a'\]"),
        ("warmup_ratio: 10", r"theirs\.yaml:7: warmup_ratio is a share of all steps from 0 to below 1, not 10"),
        ("excess_length_strategy: cut", r"theirs\.yaml:7: excess_length_strategy is drop, truncate or raise"),
        ("lora_modules_to_save: {a: 1}", r"lora\.modules_to_save should be a list|theirs\.yaml"),
    ],
)
def test_a_wrong_type_is_a_line_with_its_place(line: str, says: str, tmp_path: Path) -> None:
    key = line.partition(":")[0]
    text = "".join(row for row in AX.splitlines(keepends=True) if not row.startswith(f"{key}:"))
    at = 0 if key == "base_model" else 5
    rows = text.splitlines(keepends=True)
    text = "".join([*rows[:at], f"{line}\n", *rows[at:]]) if key in AX else text + line + "\n"
    try:
        result = imported(tmp_path, text + DATA)
        assert result.recipe is None and re.search(says, "\n".join(result.unfit))
    except RecipeError as error:
        assert re.search(says, str(error)), error


def test_several_wrong_values_are_several_lines(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        imported(tmp_path, AX + DATA + "num_epochs: many\nsequence_len: long\n")
    assert len(str(caught.value).splitlines()) == 2


def test_anchors_and_merged_sections_are_read_as_the_peer_reads_them(tmp_path: Path) -> None:
    text = (
        "usual: &usual {type: chat_template, split: 'train[:9]'}\n" + AX
        + "datasets:\n  - path: a/b\n    <<: *usual\n  - path: c/d\n    <<: *usual\n    split: test\n"
    )  # fmt: skip
    sources = loaded(imported(tmp_path, text), tmp_path).data.train
    assert [(one.dataset, one.split) for one in sources] == [("a/b", "train[:9]"), ("c/d", "test")]


def test_numbers_without_a_dot_and_words_of_yaml_1_1_are_what_the_peer_makes_of_them(tmp_path: Path) -> None:
    document = loaded(
        imported(tmp_path, AX.replace("1e-4", "2e-5") + DATA + "sample_packing: yes\ntrain_on_inputs: on\n"), tmp_path
    )
    assert document.training.learning_rate == 2e-5 and document.training.packing and document.data.train_on == "all"


def test_json_is_read_too(tmp_path: Path) -> None:
    text = '{\n\t"model_name_or_path": "a/b",\n\t"stage": "sft",\n\t"dataset": "x",\n\t"learning_rate": 1e-5\n}\n'
    assert imported(tmp_path, text, "theirs.json").peer == "llamafactory"
    with pytest.raises(RecipeError, match=r"theirs\.json:1: not valid JSON"):
        imported(tmp_path, "{'a': 1}", "theirs.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo hello\n", "has no training command that llmbench knows"),
        ("trl sft --model_name_or_path a --dataset_name b\ntrl dpo --model_name_or_path a --dataset_name b\n",
         r"has 2 training commands \(lines 1, 2\)"),
        ("trl sft --config gone.yaml\n", r"run\.sh:1: no such file gone\.yaml"),
        ("axolotl train my.yml\n", r"run\.sh:1: axolotl train names its own configuration"),
        ("tune run lora_finetune_single_device --config llama3/8B_lora\n", "names its own configuration"),
        ("trl sft --dataset_name 'a\n", r"run\.sh:1: not a complete command"),
        ("trl sft stray --model_name_or_path a\n", r"run\.sh:1: stray is not an option"),
    ],
)  # fmt: skip
def test_a_script_without_one_command_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        imported(tmp_path, text, "run.sh")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_what_is_no_file_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no such file|is a folder"):
        convert(tmp_path / name)


def test_nothing_of_a_foreign_file_becomes_an_expression_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${env:...}` in a peer's file is a text there, and would be the environment's value in a recipe."""
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(RecipeError, match=r"\$\{env:"):
        imported(tmp_path, AX.replace("a/b", "'${env:SECRET}'") + DATA)


def test_a_recipe_is_valid_yaml_whatever_the_texts_are(tmp_path: Path) -> None:
    name = "a #b: 'c' \\ \"d\" ünï"
    text = AX.replace("a/b", "x/y") + f"datasets:\n  - {{path: rows.jsonl, type: chat_template, field_messages: {name!r}}}\n"
    document = loaded(imported(tmp_path, text.replace(repr(name), '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'),
                               rows_DOT_jsonl=ROWS), tmp_path)  # fmt: skip
    assert document.data.train[0].columns == {"messages": name}
