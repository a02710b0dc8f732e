"""What is learned: the assistant's tokens, all of them, and no others; with real tokenizers."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from llmbench import data
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec
from llmbench.tiny import lessons

PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
REWRITING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ 'thinking: none\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def spec_of(folder: Path, rows: list[Any], **settings: Any) -> DataSpec:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return DataSpec(train=[DataSource(path=path)], **settings)


def talk(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def learned(row: dict[str, list[int]], tokenizer: Any) -> list[str]:
    """The text of each run of learned tokens."""
    runs: list[list[int]] = []
    before = -100
    for label in row["labels"]:
        if label != -100:
            if before == -100:
                runs.append([])
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [None, PLAIN], ids=["markers", "prefixes"])
def test_exactly_the_assistants_tokens_are_learned(tmp_path: Path, tokenizer: Any, template: str | None) -> None:
    rows = [*islice(lessons.conversations("long", 3, budget=700), 40), talk("Hi", " spaced ", "é😀?", 'ü\n\n"x"')]
    found = data.load(spec_of(tmp_path, rows), tokenizer, chat_template=template)
    for row, encoded in zip(rows, found.train, strict=True):
        said = [turn["content"] + "<|im_end|>" for turn in row if turn["role"] == "assistant"]
        assert learned(encoded, tokenizer) == said
        assert tokenizer.decode(encoded["input_ids"]) == tokenizer.apply_chat_template(row, tokenize=False)
        assert all(label in (-100, token) for label, token in zip(encoded["labels"], encoded["input_ids"], strict=True))
    assert found.train_report.trained_tokens == sum(label != -100 for row in found.train for label in row["labels"])
    assert found.train_report.unstopped == 0


def test_a_system_turn_is_context_only(tmp_path: Path, tokenizer: Any) -> None:
    row = [{"role": "system", "content": "Be short."}, *talk("Hi", "Hello!")]
    [encoded] = data.load(spec_of(tmp_path, [row]), tokenizer).train
    assert learned(encoded, tokenizer) == ["Hello!<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_gives_each_answer_a_row_of_its_own(tmp_path: Path, tokenizer: Any) -> None:
    found = data.load(spec_of(tmp_path, [talk("a", "b"), talk("a", "b", "c", "d")]), tokenizer, chat_template=REWRITING)
    said = [learned(row, tokenizer) for row in found.train]
    assert said == [["thinking: none\nb<|im_end|>"], ["thinking: none\nb<|im_end|>"], ["thinking: none\nd<|im_end|>"]]
    assert (found.train_report.rows_in, found.train_report.rows, found.train_report.split) == (2, 3, 1)
    assert found.train["row"][:] == [1, 2, 2]


def test_a_template_that_marks_no_end_of_turn_is_noticed(tmp_path: Path, tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    )
    found = data.load(spec_of(tmp_path, [talk("Hi", "Hello!")]), tokenizer, chat_template=template)
    assert found.train_report.unstopped == 1


def test_a_refusal_of_the_template_names_the_row(tmp_path: Path, tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    rows = [talk("a", "b"), [{"role": "system", "content": "x"}, *talk("a", "b")]]
    with pytest.raises(DataError, match=r"rows.jsonl:2: the model's chat template refuses this row: no system turns"):
        data.load(spec_of(tmp_path, rows), tokenizer, chat_template=template)


def test_a_row_that_leaves_nothing_to_learn_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% generation %}{% endgeneration %}"
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template renders no assistant token to train"):
        data.load(spec_of(tmp_path, [talk("Hi", "Hello!")]), tokenizer, chat_template=template)


def test_no_chat_template_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    from copy import deepcopy

    bare = deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DataError, match="has no chat template"):
        data.load(spec_of(tmp_path, [talk("Hi", "Hello!")]), bare)


def rows_of_lengths() -> list[Any]:
    return [talk("Hi", "Hello!"), talk("Repeat this " * 20, "Yes."), talk("Hi", "word " * 30)]


def test_long_rows_are_an_error_that_says_what_would_fit(tmp_path: Path, tokenizer: Any) -> None:
    rows = rows_of_lengths()
    with pytest.raises(DataError) as caught:
        data.load(spec_of(tmp_path, rows, max_length=24), tokenizer)
    match = re.search(r"2 of 3 rows are longer than 24 tokens .* Set data.max_length=(\d+)", str(caught.value))
    assert match
    fitting = int(match[1])
    assert data.load(spec_of(tmp_path, rows, max_length=fitting), tokenizer).train_report.longest == fitting
    with pytest.raises(DataError):
        data.load(spec_of(tmp_path, rows, max_length=fitting - 1), tokenizer)


def test_long_rows_are_dropped_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    found = data.load(spec_of(tmp_path, rows_of_lengths(), max_length=24, over_length="drop"), tokenizer)
    assert (len(found.train), found.train_report.dropped) == (1, 2)


def test_long_rows_are_truncated_unless_nothing_to_learn_is_left(tmp_path: Path, tokenizer: Any) -> None:
    found = data.load(spec_of(tmp_path, rows_of_lengths(), max_length=24, over_length="truncate"), tokenizer)
    report = found.train_report
    assert (report.rows, report.truncated, report.dropped, report.longest) == (2, 1, 1, 24)


def test_nothing_left_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"data\.max_length: no row fits into 4 tokens"):
        data.load(spec_of(tmp_path, rows_of_lengths(), max_length=4, over_length="drop"), tokenizer)


def test_held_out_rows_are_apart_and_the_same_for_the_same_seed(tmp_path: Path, tokenizer: Any) -> None:
    rows = [talk(f"Number {i}", f"It is {i}.") for i in range(50)]

    def split(seed: int) -> tuple[list[Any], list[Any]]:
        found = data.load(spec_of(tmp_path, rows, eval_fraction=0.2), tokenizer, seed=seed)
        assert found.eval is not None and found.eval_report is not None
        assert found.train_report.rows + found.eval_report.rows == 50
        assert found.eval_report.trained_tokens == sum(label != -100 for row in found.eval for label in row["labels"])
        return found.train["input_ids"][:], found.eval["input_ids"][:]

    train, held_out = split(1)
    assert len(held_out) == 10
    assert not {tuple(row) for row in train} & {tuple(row) for row in held_out}
    assert (train, held_out) == split(1)
    assert held_out != split(2)[1]


def test_a_share_that_holds_out_nothing_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="leaves 0 for evaluation"):
        data.load(spec_of(tmp_path, rows_of_lengths(), eval_fraction=0.01), tokenizer)


def test_lessons_are_drawn_from_their_seed(tokenizer: Any) -> None:
    spec = DataSpec(train=[DataSource.model_validate({"lessons": {"stage": "words", "conversations": 5, "characters": 90}})])
    first, second = (data.load(spec, tokenizer).train["input_ids"][:] for _ in range(2))
    assert len(first) == 5 and first == second


def test_an_eval_file_is_read_beside_the_train_file(tmp_path: Path, tokenizer: Any) -> None:
    spec = spec_of(tmp_path, [talk("Hi", "Hello!")] * 3)
    other = tmp_path / "eval.jsonl"
    other.write_text(json.dumps({"prompt": "Bye", "completion": "Goodbye!"}), encoding="utf-8")
    found = data.load(spec.model_copy(update={"eval": [DataSource(path=other)]}), tokenizer)
    assert found.eval is not None and found.eval_report is not None
    assert (found.train_report.rows, found.eval_report.rows) == (3, 1)
    assert learned(found.eval[0], tokenizer) == ["Goodbye!<|im_end|>"]
