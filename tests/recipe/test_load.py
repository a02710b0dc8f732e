"""The only reader of YAML: what it accepts, and what it says about what it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmbench import recipe
from llmbench.errors import RecipeError
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe, TrainRecipe

SMALL = "name: small\ndata:\n  train:\n    - path: rows.jsonl\n"

Fault = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


@pytest.fixture
def fault(folder: Path) -> Fault:
    """Loads a text as a training recipe and returns what is wrong with it."""

    def load(text: str | bytes, overrides: Sequence[str] = ()) -> str:
        (folder / "my.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(RecipeError) as caught:
            recipe.load("my.yaml", TrainRecipe, overrides)
        return str(caught.value)

    return load


def good(folder: Path, text: str, overrides: Sequence[str] = ()) -> TrainRecipe:
    (folder / "my.yaml").write_text(text)
    return recipe.load("my.yaml", TrainRecipe, overrides)


def test_a_small_recipe_takes_its_defaults_from_the_model(folder: Path) -> None:
    loaded = good(folder, SMALL)
    assert loaded.method == "sft"
    assert loaded.training.learning_rate == 2e-4
    assert loaded.lora is not None and loaded.lora.r == 16
    assert loaded.source == Path("my.yaml")
    assert loaded.folder == folder


def test_a_loaded_recipe_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        good(folder, SMALL).training.seed = 5


def test_unknown_field_names_the_closest_one_with_file_and_line(fault: Fault) -> None:
    text = SMALL + "training:\n  learning_rat: 1e-4\n"
    assert fault(text) == "my.yaml:6: training.learning_rat is not a field. Did you mean learning_rate?"


def test_unknown_field_inside_a_list_is_placed_by_its_position(fault: Fault) -> None:
    assert fault(SMALL + "      limitt: 3\n") == "my.yaml:5: data.train[0].limitt is not a field. Did you mean limit?"


def test_unknown_field_that_resembles_nothing_lists_what_there_is(fault: Fault) -> None:
    message = fault(SMALL + "zzz: 1\n")
    assert message.startswith("my.yaml:5: zzz is not a field. Fields: name, method, model, data, lora,")


def test_every_fault_is_told_at_once_in_the_files_order(fault: Fault) -> None:
    lines = fault(SMALL + "training:\n  max_steps: many\n  learning_rate: fast\nlore: 1\n").splitlines()
    assert lines == [
        "my.yaml:6: training.max_steps should be a whole number, not 'many'",
        "my.yaml:7: training.learning_rate should be a number, not 'fast'",
        "my.yaml:8: lore is not a field. Did you mean lora?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: 5", "my.yaml:5: training should be a section of `key: value` lines, not 5"),
        ("training: [1]", "my.yaml:5: training should be a section of `key: value` lines, not [1]"),
        ("training:\n  seed: 1.5", "my.yaml:6: training.seed should be a whole number, not 1.5"),
        ("training:\n  torch_compile: maybe", "my.yaml:6: training.torch_compile should be true or false, not 'maybe'"),
        ("training:\n  learning_rate: -1", "my.yaml:6: training.learning_rate should be greater than 0, not -1"),
        ("training:\n  learning_rate: .inf", "my.yaml:6: training.learning_rate should be a finite number, not inf"),
        ("training:\n  learning_rate: .nan", "my.yaml:6: training.learning_rate should be a finite number, not nan"),
        ("method: no", "my.yaml:5: method should be 'sft', 'pretrain', 'dpo', 'orpo', 'kto', 'reward', 'grpo' or"),
        ("model:\n  revision: true", "my.yaml:6: model.revision should be text (in quotes, if"),
        ("model:\n  trust_remote_code: true", "my.yaml:5: model: trust_remote_code runs the model's own code: pin a revision"),
        ("method: pretrain\nmodel: {config: {model_type: llama}}", "my.yaml:5: method: pretrain with model.config trains all"),
    ],
)  # fmt: skip
def test_a_wrong_value_says_what_it_should_be(fault: Fault, text: str, message: str) -> None:
    assert fault(SMALL + text + "\n").startswith(message)


@pytest.mark.parametrize("text", ["", "lora: null\n"])
def test_pretraining_without_a_config_continues_a_model(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my.yaml"
    (tmp_path / "rows.jsonl").write_text("{}", encoding="utf-8")
    path.write_text("name: more\nmethod: pretrain\ndata: {train: [{path: rows.jsonl}]}\n" + text, encoding="utf-8")
    assert recipe.load(path, TrainRecipe).model.config is None


def test_a_missing_section_is_named(fault: Fault) -> None:
    assert fault("name: small\n") == "my.yaml:1: data is missing."


def test_an_empty_file_names_all_that_is_missing(fault: Fault) -> None:
    assert fault("").splitlines() == ["my.yaml: name is missing.", "my.yaml: data is missing."]


def test_a_file_that_a_recipe_names_must_be_there(fault: Fault, folder: Path) -> None:
    message = fault("name: small\ndata:\n  train:\n    - path: nothing.jsonl\n")
    assert message == f"my.yaml:4: data.train[0].path: no such file nothing.jsonl (looked in {folder})"


def test_a_name_unfit_for_a_folder_is_refused(fault: Fault) -> None:
    assert fault(SMALL.replace("small", "../up")).startswith("my.yaml:1: name: '../up' is not allowed: use up to 64")


def test_a_key_given_twice_is_refused_with_both_lines(fault: Fault) -> None:
    assert fault(SMALL + "training:\n  seed: 1\n  seed: 2\n") == "my.yaml:7: training.seed is given twice (first on line 6)"


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch pwned']\n",
        "!!python/object/apply:os.system ['touch pwned']\n",
        "data: !!python/object/new:subprocess.Popen [[touch, pwned]]\n",
        "name: !!python/name:os.system\n",
        "name: !mine x\n",
        "name: !!binary aGk=\n",
        "!!python/name:os.system : 3\n",
    ],
)
def test_tags_are_refused_and_run_nothing(fault: Fault, folder: Path, text: str) -> None:
    message = fault(text)
    assert message.startswith("my.yaml:1: ")
    assert "is not allowed" in message or "a key must be a word" in message
    assert not (folder / "pwned").exists()


def test_aliases_that_multiply_are_refused(fault: Fault) -> None:
    levels = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "aliases that multiply are not allowed" in fault("\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x,x]", *levels]))


@pytest.mark.parametrize(
    "text",
    ["name: &x [*x]\n", "data: &x\n  y: *x\n", "a: " + "[" * 5000 + "]" * 5000, "a: " + "{a: " * 3000 + "1" + "}" * 3000],
)
def test_endless_and_very_deep_nesting_is_refused(fault: Fault, text: str) -> None:
    assert "nested too deeply" in fault(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "my.yaml:2: not valid YAML: "),
        ("a:\n\tb: 1\n", "my.yaml:2: not valid YAML: "),
        (SMALL + "---\n" + SMALL, "my.yaml:5: not valid YAML: "),
        (b"name: a\nx: \x00\n", "my.yaml:2: not valid YAML: the character 0x0"),
        (b"\xff\xfe\x00", "my.yaml: not UTF-8 text (byte 1). Save the file as UTF-8."),
        ("- 1\n", "my.yaml:1: a recipe is lines of `key: value`, and this is a list"),
        ("hello\n", "my.yaml:1: a recipe is lines of `key: value`, and this is text"),
        ("base: &b {seed: 1}\ntraining:\n  <<: *b\n", "my.yaml:3: merging with << is not supported"),
        ("a: " + "x" * 1_000_001, "my.yaml: 1,000,004 characters is too large for a recipe"),
    ],
    ids=["unclosed", "tab", "two documents", "nul", "not text", "a list", "a word", "merge", "huge"],
)
def test_what_is_no_recipe_at_all_is_one_line(fault: Fault, text: str | bytes, message: str) -> None:
    found = fault(text)
    assert found.startswith(message)
    assert "\n" not in found


def test_a_recipe_that_is_not_there_says_how_to_find_one(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"^nothing\.yaml: no such file\. `llmbench new` lists"):
        recipe.load("nothing.yaml", TrainRecipe)


def test_a_folder_in_place_of_a_recipe_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"is a folder\. Name a YAML file; to index a folder, one with `documents: \["):
        recipe.load(".", TrainRecipe)


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("name: a\ndocuments: [rows.jsonl]\n", "index"),
        ("variants: [{name: a}]\n", "serve"),
        ("name: a\nquestions: {path: rows.jsonl}\nvariants: [a]\n", "compare"),
    ],
)
def test_a_document_for_another_verb_names_that_verb(fault: Fault, text: str, verb: str) -> None:
    assert fault(text) == f"my.yaml is a recipe for `llmbench {verb}`, not for `llmbench train`. Run: llmbench {verb} my.yaml"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SMALL, TrainRecipe),
        ("name: a\ndocuments: [rows.jsonl]\n", RagRecipe),
        ("variants: [{name: a}]\n", ServeRecipe),
        ("name: a\nquestions: {path: rows.jsonl}\nvariants: [a]\n", CompareRecipe),
    ],
)
def test_load_any_tells_the_kind_by_the_keys(folder: Path, text: str, kind: type) -> None:
    (folder / "my.yaml").write_text(text)
    assert type(recipe.load_any("my.yaml")) is kind


def test_load_any_says_when_the_kind_cannot_be_told(folder: Path) -> None:
    (folder / "my.yaml").write_text("name: a\n")
    with pytest.raises(RecipeError, match="not a recipe for train, index, serve, compare or sweep"):
        recipe.load_any("my.yaml")


def test_a_bundled_document_is_found_by_its_name_from_anywhere(folder: Path) -> None:
    assert recipe.load("rag/handbook.yaml", RagRecipe).name == "handbook"


def test_scientific_notation_without_a_point_is_a_number(folder: Path) -> None:
    assert good(folder, SMALL + "training:\n  learning_rate: 3e-5\n").training.learning_rate == 3e-5


def test_overrides_win_over_the_file(folder: Path) -> None:
    overrides = [
        "training.seed=7",
        "training.learning_rate=1e-5",
        "data.train.0.limit=3",
        "lora.target_modules=[q_proj, v_proj]",
    ]
    loaded = good(folder, SMALL + "training:\n  seed: 1\n", overrides)
    assert (loaded.training.seed, loaded.training.learning_rate, loaded.data.train[0].limit) == (7, 1e-5, 3)
    assert loaded.lora is not None and loaded.lora.target_modules == ["q_proj", "v_proj"]


def test_an_override_may_write_a_place_as_messages_do(folder: Path) -> None:
    assert good(folder, SMALL, ["data.train[0].limit = 3"]).data.train[0].limit == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("---\nname: b\n", "a second document begins here (---); leave one of them"),
        ("lora: {r: ${RANK}}\n", "Put values with ${...} in quotes"),
        ("include: my.yaml\n", "include: my.yaml includes itself"),
    ],
)
def test_yaml_that_is_not_what_was_meant_says_what_to_write(fault: Fault, more: str, message: str) -> None:
    assert message in fault(SMALL + more)


def test_an_override_can_switch_a_section_off(folder: Path) -> None:
    assert good(folder, SMALL, ["lora=null"]).lora is None


def test_an_override_with_an_equals_sign_in_its_value_keeps_it(folder: Path) -> None:
    assert good(folder, SMALL, ["model.model_name_or_path=a=b"]).model.model_name_or_path == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=3",
            "training.learning_rat=3: training.learning_rat is not a field. Did you mean learning_rate?",
        ),
        ("training.seed=x", "training.seed=x: training.seed should be a whole number, not 'x'"),
        ("data.train.0.path=nofile.jsonl", "data.train.0.path=nofile.jsonl: no such file nofile.jsonl (looked in "),
        ("trainin.seed=3", "trainin.seed=3: trainin is not a field. Did you mean training?"),
        ("--training.seed=3", "'--training.seed=3' is not an option. Write fields without dashes: training.seed=3"),
        ("training.seed", "'training.seed' is not an override. Write key=value"),
        ("=3", "'=3' is not an override. Write key=value"),
        ("training.seed=[", "'training.seed=[': the value is not valid YAML"),
        ("data.train.7.limit=3", "data.train.7.limit: 7 is not a position in a list of 1"),
        ("data.train.x.limit=3", "data.train.x.limit: x is not a position in a list of 1"),
        (
            "training.seed=!!python/name:os.system",
            "'training.seed=!!python/name:os.system': the tag !!python/name:os.system is not allowed",
        ),
    ],
)
def test_a_wrong_override_is_named_itself_not_a_line_of_the_file(fault: Fault, override: str, message: str) -> None:
    assert fault(SMALL, [override]).startswith(message)


def test_two_variants_of_one_name_are_refused(folder: Path) -> None:
    (folder / "my.yaml").write_text("variants:\n  - name: a\n  - name: a\n")
    with pytest.raises(RecipeError, match=r":\d+: variants\[1\]\.name: two variants are named a"):
        recipe.load("my.yaml", ServeRecipe)


def test_a_gateway_open_to_other_machines_needs_a_key(folder: Path) -> None:
    (folder / "my.yaml").write_text("variants: [{name: a}]\ngateway:\n  host: 0.0.0.0\n")
    with pytest.raises(
        RecipeError, match=r"^my\.yaml:2: gateway: host 0\.0\.0\.0 is reachable from other machines: set gateway"
    ):
        recipe.load("my.yaml", ServeRecipe)


def test_a_prompt_without_its_places_is_refused(folder: Path) -> None:
    (folder / "my.yaml").write_text("name: a\ndocuments: [rows.jsonl]\nprompt: Answer {question}\n")
    with pytest.raises(RecipeError, match=r"prompt must contain \{passages\}"):
        recipe.load("my.yaml", RagRecipe)


def test_a_pipeline_with_questions_is_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Words.")
    (tmp_path / "questions.jsonl").write_text("")
    path = tmp_path / "rag.yaml"
    path.write_text("name: x\ndocuments: [page.md]\nquestions: questions.jsonl\n")
    loaded = recipe.load(path, RagRecipe)
    assert loaded.documents[0].path == tmp_path / "page.md"
    assert loaded.questions == tmp_path / "questions.jsonl"


def test_all_that_does_not_go_together_is_told_at_once_each_place_once(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    path = tmp_path / "many.yaml"
    path.write_text(
        "name: many\nmethod: dpo\ndata: {train: [{path: rows.jsonl}]}\nlora: {target_modules: [lm_head]}\n"
        "quantization: {load_in_4bit: true, load_in_8bit: true}\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError) as one:
        recipe.load(path, TrainRecipe)
    assert len(str(one.value).splitlines()) == 1, "sections are asked of one another when each is right in itself"
    path.write_text(
        "name: many\nmethod: dpo\ndata: {train: [{path: rows.jsonl}]}\nlora: {target_modules: [lm_head]}\n"
        "training: {torch_compile: true, eval_steps: 5}\nfreeze: {layers: 2}\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError) as several:
        recipe.load(path, TrainRecipe)
    lines = str(several.value).splitlines()
    assert len(lines) == 4, lines
    for number, words in ((5, "training.torch_compile"), (4, "lora.target_modules"), (6, "freeze"), (5, "training.eval_steps")):
        assert any(f"many.yaml:{number}: " in line and words in line for line in lines), (words, lines)
