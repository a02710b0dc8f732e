"""The documents as JSON Schema: every bundled one is valid, and the faults of one place are seen as `load` sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import recipe
from llmbench.cli.main import cli
from llmbench.errors import RecipeError
from llmbench.recipe import schema as schemas
from llmbench.recipe.yaml_lines import read

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "rag").glob("*.yaml"), *(ROOT / "examples").rglob("*.yaml")])
KINDS: tuple[schemas.Kind, ...] = ("train", "rag", "serve", "compare", "sweep")
TRAIN = "name: mine\ndata:\n  train:\n    - path: rows.jsonl\n"
RAG = "name: mine\ndocuments: [pages]\n"
SERVE = "variants:\n  - name: base\n"
COMPARE = "name: mine\nquestions: {path: questions.jsonl}\nvariants: [base]\n"
SWEEP = "name: mine\nrecipe: rows.jsonl\nspace: {lora.r: [8, 16]}\n"
TEXTS = {"train": TRAIN, "rag": RAG, "serve": SERVE, "compare": COMPARE, "sweep": SWEEP}


def faults(text: str, folder: Path, kind: schemas.Kind | None = None) -> list[str]:
    """What the schema says of a document, place by place."""
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    values, _ = read(folder / "mine.yaml")
    return [error.message for error in jsonschema.Draft202012Validator(schemas.schema(kind)).iter_errors(values)]


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_it_is_a_schema_of_its_dialect(kind: schemas.Kind | None) -> None:
    made = schemas.schema(kind)
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["$schema"] == schemas.DIALECT and json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_bundled_document_is_valid_by_its_kind_and_by_the_schema_of_all(path: Path) -> None:
    values, _ = read(path)
    kind = {
        "TrainRecipe": "train", "RagRecipe": "rag", "ServeRecipe": "serve", "CompareRecipe": "compare", "SweepRecipe": "sweep",
    }[type(recipe.load_any(path)).__name__]  # fmt: skip
    for which in (kind, None):
        found = jsonschema.Draft202012Validator(schemas.schema(which)).iter_errors(values)  # type: ignore[arg-type]
        assert [error.message for error in found] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_section_has_its_declaration(kind: schemas.Kind) -> None:
    """Sections, their fields and their descriptions are those of the models."""
    made = schemas.schema(kind)
    model: Any = {
        "train": recipe.TrainRecipe, "rag": recipe.RagRecipe, "serve": recipe.ServeRecipe, "sweep": recipe.SweepRecipe,
    }.get(kind, recipe.CompareRecipe)  # fmt: skip
    assert set(made["properties"]) == {*model.model_fields, "include"}
    for name, field in model.model_fields.items():
        if field.description:
            assert made["properties"][name]["description"] == " ".join(field.description.split("\n")).replace("  ", "\n\n")
    assert made["additionalProperties"] is False
    assert all(part.get("additionalProperties") is False for part in made["$defs"].values() if part.get("type") == "object")


SEEN = [
    (TRAIN + "trainin: {}\n", "an unknown section"),
    (TRAIN + "training:\n  learning_rat: 1e-4\n", "an unknown key"),
    (TRAIN + "training:\n  learning_rate: fast\n", "text for a number"),
    (TRAIN + "training:\n  learning_rate: 0\n", "a number out of range"),
    (TRAIN + "training:\n  learning_rate: true\n", "true for a number"),
    (TRAIN + "training:\n  per_device_train_batch_size: 2.5\n", "a share for a whole number"),
    (TRAIN + "training:\n  max_steps: 0\n", "no step"),
    (TRAIN + "training:\n  seed: -1\n", "a negative seed"),
    (TRAIN + "training:\n  optim: adamw_torch_4bit\n", "a word that is none of the choices"),
    (TRAIN + "training:\n  packing: 2\n", "a number for true"),
    (TRAIN + "lora: 8\n", "a number for a section"),
    (TRAIN + "lora:\n  r: 0\n", "a rank of nothing"),
    (TRAIN + "lora:\n  lora_dropout: 1\n", "all dropped"),
    (TRAIN + "lora:\n  init_lora_weights: corda\n", "a start that is none of them"),
    (TRAIN + "lora:\n  modules_to_save: lm_head\n", "text for a list"),
    (TRAIN + "adapter:\n  type: lora\n", "an adapter that is none of them"),
    (TRAIN + "adapter:\n  type: oft\n  r: 4\n", "a key of another adapter"),
    (TRAIN + "method: ppo\n", "a method that is none of them"),
    (TRAIN + "dpo: {beta: 0.1}\n", "a section of another method"),
    (TRAIN + "method: kto\ndpo: {beta: 0.1}\n", "a section of another method than the one that is set"),
    (TRAIN + "method: dpo\ndpo: {beta: 0}\n", "a section's number out of range"),
    (TRAIN.replace("name: mine\n", ""), "no name"),
    (TRAIN.replace("mine", "Mine/1"), "a name that is no folder's"),
    (TRAIN.replace("    - path: rows.jsonl", "    - {path: rows.jsonl, dataset: a/b}"), "two origins"),
    (TRAIN.replace("    - path: rows.jsonl", "    - {format: text}"), "no origin"),
    ("name: mine\ndata:\n  train: []\n", "no source"),
    ("name: mine\ndata:\n  max_length: 8\n  train:\n    - {path: a, limit: 0}\n", "a limit of nothing"),
    (RAG + "search: {top_k: 0}\n", "a search for nothing"),
    (RAG + "chunking: {method: pages}\n", "a way of cutting that is none of them"),
    (RAG + "search: {rerank: {}}\n", "a section without what it needs"),
    (RAG.replace("[pages]", "[{include: ['*.md']}]"), "a place without its path"),
    (SERVE + "gateway: {port: 70000}\n", "a port out of range"),
    (SERVE + "engine: {urls: http://a}\n", "text for a list of addresses"),
    (SERVE + "gateway: {capture: {consent: maybe}}\n", "a consent that is none of them"),
    (SERVE.replace("name", "nam"), "a misspelt key in a list"),
    (COMPARE + "metrics: [fluency]\n", "a metric that is none of them"),
    (COMPARE + "concurrency: 0\n", "nothing at once"),
    (COMPARE.replace("{path: questions.jsonl}", "{split: test}"), "questions without a path"),
    (SWEEP + "sampler: genetic\n", "a sampler that is none of them"),
    (SWEEP + "trials: 0\n", "no trial"),
    (SWEEP + "confirm: {rows: 1}\n", "all rows put away"),
    (SWEEP.replace("[8, 16]", "8"), "a number for a space"),
    (SWEEP.replace("recipe: rows.jsonl\n", ""), "a sweep of nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), SEEN, ids=[what for _, what in SEEN])
def test_a_fault_of_one_place_is_seen_by_schema_and_loader_alike(text: str, what: str, tmp_path: Path) -> None:
    for name in ("rows.jsonl", "questions.jsonl", "a"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "pages").mkdir()
    assert faults(text, tmp_path), what
    with pytest.raises(RecipeError):
        recipe.load_any(tmp_path / "mine.yaml")


GOOD = [
    TRAIN + "lora: null\ntraining: {learning_rate: 1e-4, warmup_steps: 5, max_steps: -1}\n",
    TRAIN + "training:\n  seed: ${env:SEED,3}\n",
    TRAIN.replace("mine", "2026") + "model: {model_name_or_path: a/b, revision: 8e12345}\n",
    TRAIN + "method: dpo\ndpo: {loss_type: ipo}\n",
    TRAIN + "method: dpo\ndpo: {loss_type: [sigmoid, sft], loss_weights: [1, 2]}\n",
    TRAIN + "lora: {target_modules: [q_proj], init_lora_weights: pissa_niter_16}\n",
    TRAIN + "adapter: {type: ia3}\n",
    RAG.replace("[pages]", "pages"),
    RAG.replace("[pages]", "{path: pages}") + "search: {min_score: {dense: 0.3}}\n",
    SERVE + "gateway: {access_log: true, traces: 'http://localhost:4318', keys: true}\n",
    SERVE + "gateway: {access_log: {prompts: true}, capture: {consent: opt-in}}\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_loads_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "pages").mkdir()
    assert faults(text, tmp_path) == []
    recipe.load_any(tmp_path / "mine.yaml")


def test_what_a_document_includes_it_need_not_say(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(TRAIN)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "mine.yaml").write_text("include: base.yaml\ndata:\n  max_length: 64\n")
    recipe.load(tmp_path / "mine.yaml", recipe.TrainRecipe)
    values = {"include": "base.yaml", "data": {"max_length": 64}}
    assert list(jsonschema.Draft202012Validator(schemas.schema("train")).iter_errors(values)) == []


def test_a_variable_of_the_environment_may_stand_for_every_value() -> None:
    """As an editor sees it: nothing has replaced it yet."""
    values = {
        "name": "run-${env:USER}",
        "data": {"train": [{"path": "${env:ROWS}", "limit": "${env:LIMIT,10}"}]},
        "training": {"seed": "${env:SEED}", "optim": "${env:OPTIM}", "packing": "${env:PACK,true}"},
    }
    assert list(jsonschema.Draft202012Validator(schemas.schema("train")).iter_errors(values)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_in_one_schema_are_told_apart_as_the_loader_does(kind: schemas.Kind, tmp_path: Path) -> None:
    assert faults(TEXTS[kind], tmp_path) == []
    assert faults(TEXTS[kind] + "nonsense: 1\n", tmp_path)


def test_the_verb_prints_writes_and_keeps_what_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(CliRunner().invoke(cli, ["schema", "rag"]).stdout) == schemas.schema("rag")
    first = CliRunner().invoke(cli, ["schema", "-o", "all.json"])
    assert "# yaml-language-server: $schema=all.json" in first.stdout
    assert json.loads((tmp_path / "all.json").read_text()) == schemas.schema()
    assert CliRunner().invoke(cli, ["schema", "train", "-o", "all.json"]).exit_code == 0  # its own file
    (tmp_path / "notes.json").write_text('{"mine": true}')
    refused = CliRunner().invoke(cli, ["schema", "-o", "notes.json"])
    assert "was not written by llmbench" in str(refused.exception)
    assert CliRunner().invoke(cli, ["schema", "recipes"]).exit_code == 2
