"""GRPO: what each reward function pays, whose file a recipe may run, and that a reward rises."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from llmbench import training
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import RewardFunction

from .judgements import rows, trained, written


def paid(spec: dict[str, Any], answers: list[str], **columns: list[Any]) -> list[float | None]:
    """What one function pays for answers; an answer has as many tokens as words."""
    from llmbench.training.methods import rewards

    [function] = rewards.functions([RewardFunction.model_validate(spec)], list(columns))
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    return function(
        prompts=[[]] * len(answers),
        completions=completions,
        completion_ids=[[0] * len(answer.split()) for answer in answers],
        trainer_state=None,
        log_extra=None,
        log_metric=None,
        **columns,
    )


def test_exact_match_passes_over_space_and_case_only_when_told() -> None:
    answers = [" Riva ", "riva", "Riva."]
    assert paid({"exact_match": {"column": "town"}}, answers, town=["Riva"] * 3) == [1, 0, 0]
    assert paid({"exact_match": {"column": "town", "ignore_case": True}}, answers, town=["Riva"] * 3) == [1, 1, 0]


def test_regex_compares_what_it_finds_with_what_it_finds_in_the_column() -> None:
    spec = {"regex": {"pattern": r"#### (-?\d+)", "group": 1, "column": "answer"}}
    columns = {"answer": ["12 + 60 = 72 #### 72"] * 4}
    assert paid(spec, ["so #### 72", "so #### 27", "72", "#### 72 #### 1"], **columns) == [1, 0, 0, 1]
    assert paid({"regex": {"pattern": r"#### (-?\d+)", "group": 1, "column": "answer"}}, ["#### 5"], answer=[5]) == [1]
    assert paid({"regex": {"pattern": r"\[\d\]"}}, ["as told [1]", "as told"]) == [1, 0]


def test_json_schema_pays_a_little_for_json_and_all_for_what_fits() -> None:
    schema = {"type": "object", "required": ["town"], "properties": {"town": {"type": "string"}}}
    assert paid({"json_schema": schema}, ['{"town": "Riva"}', '{"town": 3}', "Riva"]) == [1, 0.2, 0]


def test_length_falls_in_a_line_on_both_sides() -> None:
    spec = {"length": {"target": 4, "tolerance": 1}}
    assert paid(spec, ["a", "a a a", "a a a a", "a a a a a", "a a a a a a a", "a " * 20]) == [0.5, 1, 1, 1, 0.5, 0]


def test_two_functions_of_a_kind_have_names_of_their_own() -> None:
    from llmbench.training.methods import rewards

    spec = RewardFunction.model_validate({"length": {"target": 4}})
    assert [function.__name__ for function in rewards.functions([spec, spec], [])] == ["length", "length-2"]


def own(tmp_path: Path, code: str, name: str = "score") -> dict[str, Any]:
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    return {"function": f"{tmp_path / 'mine.py'}:{name}"}


def test_a_function_of_the_user_s_takes_what_it_names(tmp_path: Path) -> None:
    code = "def score(completions, answer):\n    return [float(c[0]['content'] == a) for c, a in zip(completions, answer)]\n"
    assert paid(own(tmp_path, code), ["x", "y"], answer=["x", "x"], other=[1, 2]) == [1, 0]
    assert paid(
        own(tmp_path, "def score(**given):\n    return [float(len(given)), None]\n"), ["x", "y"], answer=["x", "x"]
    ) == [
        7,
        None,
    ]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def score(completions):\n    x = 1\n    return [1 / 0]\n", r"mine\.py:3: score failed \(ZeroDivisionError: "),
        (
            "import gone_and_away\ndef score(completions):\n    return []\n",
            r"mine\.py:1: cannot be loaded \(ModuleNotFoundError",
        ),
        (
            "def score(completions):\n    return [1.0]\n",
            r"mine\.py: score returned 1 values; it should return a list of 2 numbers",
        ),
        ("def score(completions):\n    return 1.0\n", r"mine\.py: score returned a float; it should return a list of 2"),
        ("def score(completions):\n    return ['good', 1]\n", r"mine\.py: score returned what is not a number"),
        ("def score(completions):\n    return [float('nan'), 1]\n", r"mine\.py: score returned a number that is not finite"),
        (
            "def score(completions, gold):\n    return [1, 1]\n",
            r"mine\.py: score needs gold, which the data does not have\. Available: ",
        ),
    ],
)
def test_a_fault_of_the_user_s_function_is_one_line_with_its_place(code: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LlmbenchError, match=says) as caught:
        paid(own(tmp_path, code), ["x", "y"], answer=["x", "x"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("gone.py:score", r"no such file gone\.py \(looked in "),
        ("mine.py:gone", r"mine\.py defines no function gone \(available: score\)"),
        ("broken.py:score", r"broken\.py:1: is not valid Python"),
        ("os.system", r"write path/to/file\.py:function, not 'os\.system'"),
    ],
)
def test_a_function_must_be_there_when_the_recipe_is_read_and_nothing_runs_then(
    function: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')\ndef score(completions): return []\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def score(:\n", encoding="utf-8")
    section = {"num_generations": 4, "reward_functions": [{"function": function}]}
    with pytest.raises(RecipeError, match=says):
        written(tmp_path, "grpo", grpo=section)
    section = {"num_generations": 4, "reward_functions": [{"function": "mine.py:score"}]}
    document = written(tmp_path, "grpo", grpo=section)
    assert document.grpo is not None and document.grpo.reward_functions[0].function == f"{tmp_path / 'mine.py'}:score"


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        ([], "grpo.reward_functions "),
        ([{"weight": 2}], "give one of exact_match, regex, json_schema, length, function, not none"),
        ([{"length": {"target": 3}, "regex": {"pattern": "x"}}], "not regex and length"),
        ([{"regex": {"pattern": "("}}], "not a regular expression"),
        ([{"regex": {"pattern": "x", "group": 1}}], "group: 1, but the pattern has 0"),
    ],
)
def test_a_reward_function_is_one_thing(functions: list[Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=re.escape(says)):
        written(tmp_path, "grpo", grpo={"reward_functions": functions})


def test_what_the_data_cannot_give_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    section = {"num_generations": 4, "reward_functions": [{"exact_match": {"column": "gold"}}]}
    with pytest.raises(RecipeError, match=r"exact_match reads the column gold\. The data has: answer\."):
        training.prepare(written(tmp_path, "grpo", grpo=section))
    section = {"num_generations": 4, "reward_functions": [{"json_schema": {"type": 3}}]}
    with pytest.raises(RecipeError, match="json_schema is not a JSON schema"):
        training.prepare(written(tmp_path, "grpo", grpo=section))
    with pytest.raises(RecipeError, match=r"grpo\.max_completion_length: .* Use at most 1,000\."):
        training.prepare(written(tmp_path, "grpo", "grpo.max_completion_length=1024"))
    with pytest.raises(RecipeError, match="needs an NVIDIA GPU, and there is none; set use_vllm: false"):
        training.prepare(written(tmp_path, "grpo", "grpo.use_vllm=true"))
    with pytest.raises(RecipeError, match="20 prompts are fewer than the 25 of one round of generation"):
        training.prepare(written(tmp_path, "grpo", "training.per_device_train_batch_size=100"))


def test_the_steps_that_are_announced_are_those_that_are_made(tmp_path: Path) -> None:
    document = written(tmp_path, "grpo", "training.max_steps=-1", "training.per_device_train_batch_size=16")
    job = training.prepare(document)
    run = trained(document)
    assert [row["step"] for row in rows(run)] == list(range(1, job.steps + 1)) == [1, 2, 3, 4, 5]


def test_vllm_is_not_imported_where_it_is_not_asked_for(tmp_path: Path) -> None:
    trained(written(tmp_path, "grpo", "training.max_steps=1"))
    assert "vllm" not in sys.modules


def test_a_reward_rises(tmp_path: Path) -> None:
    """Answers of about 30 tokens are paid; the model begins with about half as many."""
    document = written(
        tmp_path,
        "grpo",
        "training.max_steps=12",
        "training.per_device_train_batch_size=16",
        "training.lr_scheduler_type=constant",
        "training.warmup_steps=0",
        grpo={"num_generations": 8, "max_completion_length": 30, "reward_functions": [{"length": {"target": 30}}]},
    )
    reward = [row["reward"] for row in rows(trained(document))]
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 0.06
