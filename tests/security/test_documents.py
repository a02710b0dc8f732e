"""Recipes from strangers: YAML that runs code or exhausts the machine, names that lead elsewhere, options that load code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe, runs, workspace
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import CompareRecipe, Document, RagRecipe, ServeRecipe, SweepRecipe, TrainRecipe, load_any

from .conftest import Bomb

TRAIN = "name: mine\ndata: {train: [{path: rows.jsonl}]}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{other}'] * 10)}]\n" for other, one in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{mark}]", "!!python/object/new:os.mkdir [{mark}]", "!!python/name:os.mkdir",
        "!!python/module:os", "!!python/object:os.mkdir {{}}", "!!python/tuple [1]", "!!binary aGk=", "!custom x",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [{mark}]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["x: {}", "training:\n  lr_scheduler_kwargs: {{a: {}}}", "? {}\n: 1", "- {}"])
def test_a_tag_is_refused_and_runs_nothing(folder: Path, bomb: Bomb, tag: str, place: str) -> None:
    (folder / "my.yaml").write_text(place.format(tag.format(mark=bomb.mark)), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"my\.yaml:\d+: "):
        recipe.load("my.yaml", TrainRecipe)
    with pytest.raises(RecipeError, match=r"my\.yaml:\d+: "):
        load_any("my.yaml")


def test_a_tag_in_an_override_is_refused_and_runs_nothing(folder: Path, bomb: Bomb) -> None:
    (folder / "my.yaml").write_text(TRAIN, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"the tag !!python/object/apply:os\.mkdir is not allowed"):
        recipe.load("my.yaml", TrainRecipe, [f"training.seed=!!python/object/apply:os.mkdir [{bomb.mark}]"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "aliases that multiply are not allowed"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: &a {b: *a}", "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("a: " + "{a: " * 50_000, "nested too deeply"),
        ("a: &a {x: 1}\nb: {<<: *a}", "merging with << is not supported"),
        ("a: " + "x" * 400_000, "too large for a recipe"),
        ("name: 1" + ":10" * 50_000, r"name: '1:10[:10]+\.\.\.' is not allowed"),
        ("? 1" + ":10" * 50_000 + "\n: 1", r"1:10[:10]+\.\.\. is not a field"),
        ("a: " + "9" * 5_000, "a number of 5,000 characters is too long"),
        ("a: 0x" + "f" * 100_000, "is too long"),
        ("a: \x00", "is not allowed"),
    ],
)
def test_a_document_that_would_exhaust_the_machine_is_refused(folder: Path, text: str, says: str) -> None:
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=says):
        recipe.load("my.yaml", TrainRecipe)


def test_a_file_larger_than_memory_is_not_read(folder: Path) -> None:
    with (folder / "my.yaml").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on disk
    with pytest.raises(RecipeError, match=r"1,099,511,627,776 bytes is too large for a recipe"):
        recipe.load("my.yaml", TrainRecipe)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "my.yaml")
    with pytest.raises(RecipeError, match="is a device or a pipe"):
        recipe.load("my.yaml", TrainRecipe)


NAMES = [
    "../x",
    "..",
    ".",
    "/etc",
    "a/b",
    "a\\b",
    "A",
    "",
    "a\0b",
    "a b",
    "x" * 65,
    "-x",
    "%2e%2e",
    "a\n",
    "$(touch x)",
    "; touch x",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (TrainRecipe, "name: {name}\ndata: {{train: [{{path: rows.jsonl}}]}}\n"),
        (RagRecipe, "name: {name}\ndocuments: [rows.jsonl]\n"),
        (CompareRecipe, "name: {name}\nquestions: {{path: rows.jsonl}}\nvariants: [base]\n"),
        (SweepRecipe, "name: {name}\nrecipe: rows.jsonl\nspace: {{lora.r: [8]}}\n"),
        (ServeRecipe, "variants: [{{name: {name}}}]\n"),
    ],
)
def test_a_name_is_a_word_and_no_way_anywhere(folder: Path, name: str, kind: type[Document], text: str) -> None:
    import json

    (folder / "my.yaml").write_text(text.format(name=json.dumps(name)), encoding="utf-8")
    with pytest.raises(RecipeError, match="is not allowed: use up to 64 lower-case letters"):
        recipe.load("my.yaml", kind)
    with pytest.raises(LlmbenchError, match="is not allowed"):
        runs.open_run(name)
    assert not workspace.home().exists()


def test_an_adapter_is_a_run_or_a_folder_that_is_named_openly(folder: Path, tiny: Path) -> None:
    from llmbench.engine import admission

    for name in ("..", "../../etc", "/etc", "~", "run/../../x"):
        with pytest.raises(LlmbenchError):
            admission.admit(name, "llmbench/tiny", tiny, start=folder)
    assert not (workspace.home() / "adapters").exists()


@pytest.mark.parametrize(
    "override",
    [
        "model.attn_implementation=somebody/kernel",
        "model.attn_implementation=somebody/kernel@main:function",
        "model.attn_implementation='paged|somebody/kernel'",
        "model.trust_remote_code=true",
        "training.optim=os.system",
        "training.lr_scheduler_type=os.system",
        "method=os.system",
    ],
)
def test_no_field_of_a_recipe_chooses_code(folder: Path, override: str) -> None:
    (folder / "my.yaml").write_text(TRAIN, encoding="utf-8")
    with pytest.raises(RecipeError):
        recipe.load("my.yaml", TrainRecipe, [override])


@pytest.mark.parametrize(
    "more",
    [{"auto_map": {"AutoModelForCausalLM": "a/b--c.D"}}, {"_attn_implementation_internal": "a/b"}, {"use_kernels": True}],
)
def test_a_configuration_in_a_recipe_asks_for_no_code(folder: Path, more: dict[str, Any]) -> None:
    import json

    from llmbench.training.loading.model import load_model

    config = {"model_type": "qwen3", "hidden_size": 64} | more
    text = TRAIN + f"method: pretrain\nlora: null\nmodel: {{config: {json.dumps(config)}}}\n"
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LlmbenchError, match=r"model\.config: \S+ asks for code to be loaded"):
        load_model(recipe.load("my.yaml", TrainRecipe))


@pytest.mark.parametrize(
    "argument",
    [
        "--trust-remote-code", "--trust_remote_code", "--trust-remote-code=true", "--trust", "--middleware=evil.Evil",
        "--worker-cls", "--worker-extension-cls=evil.Evil", "--logits-processors=evil.Evil", "--tool-parser-plugin=evil.py",
        "--reasoning-parser-plugin=evil.py", "--hf-overrides={}", "--hf-overrides.auto_map.x=evil.Evil", "--config=evil.yaml",
        "--load-format=pt", "--enable-prompt-embeds", "--enable-prompt", "--allowed-local-media-path=/", "--host=0.0.0.0",
        "--port=1", "--uds=/tmp/x",
    ],
)  # fmt: skip
def test_no_extra_argument_of_the_engine_loads_code_or_opens_a_door(folder: Path, argument: str) -> None:
    import json

    text = f"variants: [{{name: base}}]\nengine: {{extra_args: [{json.dumps(argument)}]}}\n"
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"extra_args: \S+ is not allowed: "):
        recipe.load("my.yaml", ServeRecipe)


@pytest.mark.parametrize(
    "argument",
    ["--max-num-seqs=4", "4", "--", "--enable-prefix-caching", "--model-impl=vllm", "-O0", "--reasoning-parser=qwen3"],
)
def test_other_arguments_of_the_engine_are_passed_on(folder: Path, argument: str) -> None:
    import json

    text = f"variants: [{{name: base}}]\nengine: {{extra_args: [{json.dumps(argument)}]}}\n"
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    assert recipe.load("my.yaml", ServeRecipe).engine.extra_args == [argument]
