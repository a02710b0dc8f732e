"""What single values mean, variables of the environment, and documents that include others."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from llmbench import recipe
from llmbench.errors import RecipeError
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe, SweepRecipe, TrainRecipe
from llmbench.recipe.faults import _sections
from llmbench.recipe.scalars import as_field, plain

ROWS = "data: {train: [{path: rows.jsonl}]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def load(folder: Path, text: str, *overrides: str) -> TrainRecipe:
    path = folder / "r.yaml"
    path.write_text(text if "data:" in text or "include:" in text else text + ROWS)
    return recipe.load(path, TrainRecipe, overrides)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0512", 512), ("512", 512), ("0o17", 15), ("0x1F", 31), ("1_000", 1000), ("-3", -3), ("+3", 3), ("1e-4", 1e-4),
        ("7e1", 70.0), ("1.", 1.0), (".5", 0.5), ("1_0.5", 10.5), ("true", True), ("FALSE", False), ("null", None), ("~", None),
        ("yes", "yes"), ("no", "no"), ("NO", "NO"), ("on", "on"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("1e", "1e"),
        ("e1", "e1"), ("tRue", "tRue"), (".inf", math.inf), ("-.inf", -math.inf), ("0b1", "0b1"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_a_plain_scalar_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = plain(text)
    assert found == value and isinstance(found, type(value))


@pytest.mark.parametrize("written", ["'7e1'", '"7e1"', "7e1", "!!str 7e1"])
def test_a_text_that_looks_like_a_number_stays_text_where_text_is_meant(folder: Path, written: str) -> None:
    read = load(folder, f"name: {written}\nmodel: {{model_name_or_path: a/b, revision: {written}}}\n")
    assert (read.name, read.model.revision) == ("7e1", "7e1")


@pytest.mark.parametrize("commit", ["8e12345", "1234567", "0123456", "1_2"])
def test_a_commit_of_digits_is_a_revision(folder: Path, commit: str) -> None:
    assert load(folder, f"name: a\nmodel: {{model_name_or_path: a/b, revision: {commit}}}\n").model.revision == commit
    assert load(folder, "name: a\n", "model.model_name_or_path=a/b", f"model.revision={commit}").model.revision == commit


def test_numbers_are_numbers_where_numbers_are_meant(folder: Path) -> None:
    read = load(folder, "name: a\ntraining: {learning_rate: 3e-4, max_steps: 1e1, seed: 007}\n" + ROWS, "lora.lora_alpha=3.2e1")
    assert (read.training.learning_rate, read.training.max_steps, read.training.seed) == (3e-4, 10, 7)
    assert read.lora is not None and read.lora.lora_alpha == 32
    assert yaml.safe_load(yaml.safe_dump(read.model_dump(mode="json")))["training"]["max_steps"] == 10


def test_a_leading_zero_is_no_octal(folder: Path) -> None:
    assert load(folder, "name: a\ndata: {train: [{path: rows.jsonl}], max_length: 0512}\n").data.max_length == 512


@pytest.mark.parametrize("wrong", ["1:30", "2024-01-01", "1e", "٣"])
def test_what_only_yaml_1_1_takes_for_a_number_is_refused_with_its_line(folder: Path, wrong: str) -> None:
    with pytest.raises(RecipeError, match=rf"r.yaml:2: training.seed should be a whole number, not '{wrong}'"):
        load(folder, f"name: a\ntraining: {{seed: {wrong}}}\n")


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
@pytest.mark.parametrize("field", ["training.seed"])
def test_a_seed_is_one_that_every_library_takes(folder: Path, field: str, seed: float) -> None:
    with pytest.raises(RecipeError, match=rf"{re.escape(field)}={seed}: {re.escape(field)} should be "):
        load(folder, "name: a\n", f"{field}={seed}")


def test_words_for_true_are_words_in_values_of_any_kind(folder: Path) -> None:
    read = load(folder, "name: a\ndata: {train: [{path: rows.jsonl}], chat_template_kwargs: {country: NO, thinking: false}}\n")
    assert read.data.chat_template_kwargs == {"country": "NO", "thinking": False}
    assert load(folder, "name: a\ntraining: {padding_free: no}\n").training.padding_free is False


def test_a_variable_of_the_environment_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE", "2e-5")
    monkeypatch.setenv("WHO", "me")
    text = "name: ${env:WHO}-${env:N,1}\ntraining:\n  learning_rate: ${env:RATE}\n  seed: ${env:SEED,3}\n"
    read = load(folder, text, "lora.r=${env:RANK,4}")
    assert (read.name, read.training.learning_rate, read.training.seed) == ("me-1", 2e-5, 3)
    assert read.lora is not None and read.lora.r == 4


def test_a_variable_that_is_not_set_is_named_with_its_line(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"r.yaml:2: .*the environment variable NOT_THERE is not set"):
        load(folder, "name: a\nmodel: {revision: '${env:NOT_THERE}'}\n")


def test_text_in_dollars_and_braces_is_text(folder: Path) -> None:
    path = folder / "p.yaml"
    path.write_text("name: a\ndocuments: [rows.jsonl]\nsystem: 'Pay ${amount} or $HOME, never {env:X}'\n")
    assert recipe.load(path, RagRecipe).system == "Pay ${amount} or $HOME, never {env:X}"


def test_a_document_says_what_the_included_one_does_not(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "own.jsonl").write_text("{}\n")
    (folder / "deep" / "base.yaml").write_text(
        "name: base\ndata: {train: [{path: own.jsonl}], max_length: 64}\ntraining: {seed: 1, max_steps: 5}\nlora: {r: 8}\n"
    )
    (folder / "more.yaml").write_text("training: {seed: 2}\n")
    read = load(folder, "include: [deep/base.yaml, more.yaml]\nname: mine\ntraining: {max_steps: 7}\n", "lora.r=2")
    assert (read.name, read.training.seed, read.training.max_steps, read.data.max_length) == ("mine", 2, 7, 64)
    assert read.data.train[0].path == folder / "deep" / "own.jsonl"
    assert read.lora is not None and read.lora.r == 2


def test_a_fault_of_an_included_file_is_told_with_its_own_line(folder: Path) -> None:
    (folder / "base.yaml").write_text("\n\ntraining:\n  seed: x\n  learning_rat: 1\n")
    with pytest.raises(RecipeError, match=r"base.yaml:4: training.seed should be") as raised:
        load(folder, "include: base.yaml\nname: mine\nlora: {r: many}\n" + ROWS)
    assert "base.yaml:5: training.learning_rat is not a field. Did you mean learning_rate?" in str(raised.value)
    assert "r.yaml:3: lora.r should be" in str(raised.value)


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ("r.yaml", "includes itself"), ("none.yaml", "include: no such file none.yaml"), ("3", "include should be"),
        ("[{a: b}]", "include should be"), ("rows", "no such file rows"),
    ],
)  # fmt: skip
def test_an_include_that_leads_nowhere_is_one_line(folder: Path, include: str, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"r.yaml:1: .*{said}"):
        load(folder, f"include: {include}\nname: a\n")


def test_a_bundled_recipe_can_be_included(folder: Path) -> None:
    read = load(folder, "include: bundled://recipes/sft-lora.yaml\nname: mine\ntraining: {max_steps: 1}\n")
    assert (read.name, read.training.max_steps) == ("mine", 1)
    assert read.data.train[0].path is not None and read.data.train[0].path.name == "train.jsonl"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.max_steps=true", "training.max_steps should be a whole number, not true"),
        ("training.learning_rate=true", "training.learning_rate should be a number, not true"),
        ("training.seed=false", "training.seed should be a whole number, not false"),
        ("training.warmup_steps=True", "training.warmup_steps should be a number, not true"),
        ("lora.r=true", "lora.r should be a whole number, not true"),
        ("lora.layers_to_transform=[true]", "should be a whole number, not true"),
        ("name=true", "name should be text (in quotes, if it looks like something else), not true"),
        ("training.max_steps=0", "training.max_steps should be 1 or more, or -1 to go by num_train_epochs, not 0"),
        ("training.max_steps=-2", "training.max_steps should be 1 or more, or -1 to go by num_train_epochs, not -2"),
    ],
)
def test_a_truth_value_is_no_number_and_steps_are_counted(folder: Path, override: str, says: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load(folder, "name: a\n", override)
    assert says in str(refused.value)


def test_a_truth_value_stays_where_one_is_meant(folder: Path) -> None:
    read = load(folder, "name: a\nlora: {init_lora_weights: true, use_dora: false}\n", "training.packing=true")
    assert read.lora is not None and read.lora.init_lora_weights is True and read.training.packing is True
    assert load(folder, "name: a\n", "data.chat_template_kwargs={thinking: true}").data.chat_template_kwargs == {
        "thinking": True
    }


def test_no_number_of_any_recipe_takes_a_truth_value() -> None:
    """Every field of every document: pydantic alone makes 1 of true."""
    seen = 0
    short = set()  # sections that may be written as `true`: with their defaults
    waiting: list[type[BaseModel]] = [TrainRecipe, RagRecipe, ServeRecipe, CompareRecipe, SweepRecipe]
    known: set[type[BaseModel]] = set()
    while waiting:
        section = waiting.pop()
        if section in known:
            continue
        known.add(section)
        for name, field in section.model_fields.items():
            waiting += _sections(field.annotation)
            if isinstance(as_field(True, field.annotation), bool):
                assert "bool" in str(field.annotation) or "Any" in str(field.annotation), f"{section.__name__}.{name}"
            elif any(isinstance(one, BeforeValidator) and one.func.__name__ == "true_or_field" for one in field.metadata):
                short.add(name)
            else:
                seen += 1
                with pytest.raises(ValidationError) as refused:
                    alone: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
                    TypeAdapter(alone).validate_python(as_field(True, field.annotation))
                assert refused.value.error_count(), f"{section.__name__}.{name}"
    assert seen > 150 and short <= {"access_log", "traces"}
