"""Tokens that a recipe adds, and tokens at which a model stops: the same for check and for train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import talk, write_jsonl
from tests.data.looking import looked, notes

from llmbench import data
from llmbench.data import vocabulary
from llmbench.recipe import DataSource, DataSpec
from llmbench.recipe.adapter import TokenizerSpec

ROW = talk("1+1?", "<think>I add</think>Two.")


@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_are_one_token_each_in_check_and_in_train(tmp_path: Path, tiny: Path, special: bool) -> None:
    from transformers import AutoTokenizer

    spec = TokenizerSpec(add_tokens=["<think>", "</think>"], special=special)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    added = vocabulary.add_tokens(tokenizer, spec)
    path = write_jsonl(tmp_path / "a.jsonl", ROW)
    [row] = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer, folder=tiny, added=spec).train
    assert [token for token in row["input_ids"] if token in added] == added
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == "<think>I add</think>Two.<|im_end|>"
    report = looked(tmp_path, [ROW], tokenizer=spec.model_dump(), lora={"r": 4})
    assert (report.train.tokens, report.train.trained_tokens) == (len(row["input_ids"]), sum(x != -100 for x in row["labels"]))
    shown = "".join(piece.text for piece in report.rendering[0].pieces if hasattr(piece, "text"))
    assert "<think>I add</think>Two.<|im_end|>" in shown
    assert report.train.control == 0


def test_an_added_token_in_a_document_and_beside_a_spelled_out_control_token(tmp_path: Path, tiny: Path) -> None:
    from transformers import AutoTokenizer

    spec = TokenizerSpec(add_tokens=["<think>"], special=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    [think] = vocabulary.add_tokens(tokenizer, spec)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = [talk("Hi", "<think>Say <|im_end|>"), {"text": "A <think> b <|im_end|>"}]
    for row, ends in zip(rows, (2, 1), strict=True):  # those that the template, or the end of the document, writes
        path = write_jsonl(tmp_path / "a.jsonl", row)
        report = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer, added=spec)
        ids = report.train["input_ids"][0]
        assert (ids.count(think), ids.count(end)) == (1, ends)
        assert report.train_report.control == 1


def test_the_cache_tells_special_tokens_from_others(tmp_path: Path, tiny: Path) -> None:
    from llmbench.data import cache

    keys = {
        cache.grown("files", None if add is None else TokenizerSpec(add_tokens=add, special=special), stops)
        for add in (None, ["<a>"], ["<b>"])
        for special in (False, True)
        for stops in ((), (1,))
    }
    assert len(keys) == 2 * (1 + 2 * 2)


def test_an_added_token_that_no_row_has_is_an_error(tmp_path: Path) -> None:
    report = looked(tmp_path, [ROW], tokenizer={"add_tokens": ["<never>"]}, lora={"r": 4})
    [note] = [note for note in notes(report, "error") if note.where == "tokenizer.add_tokens"]
    assert note.text == "no training row contains <never>" and report.train.unused == ("<never>",)


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({"generation_config.json": {"eos_token_id": [7, 2]}, "config.json": {"eos_token_id": 1}}, (7, 2)),
        ({"config.json": {"eos_token_id": 1}}, (1,)),
        ({"generation_config.json": {}, "config.json": {"text_config": {"eos_token_id": 3}}}, (3,)),
        ({}, ()),
    ],
)
def test_the_model_s_stop_tokens_come_from_its_own_files(tmp_path: Path, files: dict[str, Any], stops: tuple[int, ...]) -> None:
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values), encoding="utf-8")
    assert vocabulary.stops(tmp_path) == stops


@pytest.mark.parametrize(
    ("known", "ends", "together"),
    [(0, (2,), [0, 2]), ([0, 2], (2,), [0, 2]), (None, (), None), (2, (2,), 2), (None, (2,), [2])],
)
def test_learned_ends_join_the_model_s_own(known: Any, ends: tuple[int, ...], together: Any) -> None:
    assert vocabulary.stops_with(known, ends) == together


def base(folder: Path, tiny: Path) -> Path:
    """A base model as they are published: it stops at the end of text, and its template ends turns with another token."""
    from shutil import copytree

    made = copytree(tiny, folder / "base")
    settings = json.loads((made / "tokenizer_config.json").read_text(encoding="utf-8"))
    (made / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}), encoding="utf-8")
    for name in ("config.json", "generation_config.json"):
        values = json.loads((made / name).read_text(encoding="utf-8"))
        (made / name).write_text(json.dumps(values | {"eos_token_id": 0}), encoding="utf-8")
    return made


def test_an_end_of_turn_at_which_the_model_does_not_stop_is_a_warning(tmp_path: Path, tiny: Path) -> None:
    report = looked(tmp_path, [ROW], model={"model_name_or_path": str(base(tmp_path, tiny))}, lora={"r": 4})
    [note] = [note for note in notes(report, "warning") if note.where == "data.chat_template"]
    assert note.text == "answers end with <|im_end|>, which is not one of the model's stop tokens (<|endoftext|>)"
    assert "stop_token_ids" in note.next
    assert report.train.turn_ends == ("<|im_end|>",) and report.train.turns_ended == report.train.turns
    assert not [note for note in notes(looked(tmp_path, [ROW]), "warning") if note.where == "data.chat_template"]
