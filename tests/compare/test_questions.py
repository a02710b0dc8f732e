from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench.compare.questions import read
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.recipe import QuestionSource


def spec(tmp_path: Path, text: str, **options: Any) -> QuestionSource:
    path = tmp_path / "questions.jsonl"
    path.write_text(text, encoding="utf-8")
    return QuestionSource(path=path, **options)


def test_every_field_is_read(tmp_path: Path) -> None:
    row = {"id": "q1", "question": "How heavy?", "answer": "3 grams.", "value": "3", "source": "a.md", "answerable": True,
           "split": "test", "kind": "somebody's note"}  # fmt: skip
    assert read(spec(tmp_path, json.dumps(row))) == [
        Question("q1", "How heavy?", "3 grams.", "3", "a.md", answerable=True, split="test")
    ]


def test_id_and_question_are_enough(tmp_path: Path) -> None:
    assert read(spec(tmp_path, '{"id": 7, "question": "Why?"}\n\n')) == [Question("7", "Why?")]


def test_a_number_is_a_value(tmp_path: Path) -> None:
    assert read(spec(tmp_path, '{"id": "q", "question": "How many?", "value": 12}'))[0].value == "12"


def test_a_line_separator_inside_a_string_does_not_cut_the_row(tmp_path: Path) -> None:
    assert read(spec(tmp_path, '{"id": "q", "question": "one\u2028two"}'))[0].question == "one\u2028two"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert len(read(spec(tmp_path, '\ufeff{"id": "q", "question": "Why?"}'))) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "q"', "not valid JSON"),
        ("[1]", "a row is a JSON object, not list"),
        ('{"id": "q"}', "question is missing"),
        ('{"id": "q", "question": " "}', "question is empty"),
        ('{"id": "q", "question": ["Why?"]}', "question must be text"),
        ('{"id": "q", "question": "Why?", "answerable": "no"}', "answerable must be true or false, not 'no'"),
        ('{"id": "q", "question": "Why?", "answerable": false, "value": "3"}', "answerable is false, yet"),
        ('{"id": "q", "question": "Why \\ud83d?"}', r"question has half a character (\ud83d"),
        ('{"id": "q", "question": "Why?", "value": "\\udc00"}', r"value has half a character (\udc00"),
        ('{"id": "q", "question": "Why?", "value": NaN}', "value must be text, not NaN"),
        ('{"id": "q", "question": "Why?", "value": 1e999}', "value must be text, not Infinity"),
        ('{"id": "q", "question": "Why?", "group": ["a"]}', "group must be text"),
        ('{"id": "q", "question": ' + "[" * 100_000, "nested too deeply"),
        ('{"id": "q", "question": "Why?", "value": ' + "9" * 5000 + "}", "digits"),
        ('{"id": "fine", "question": "Again?"}', "id 'fine' is already used in line 1"),
    ],
)
def test_a_faulty_row_is_told_with_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    source = spec(tmp_path, '{"id": "fine", "question": "Why?"}\n' + row + "\n")
    with pytest.raises(DataError) as caught:
        read(source)
    assert f"{source.path}:2: " in str(caught.value)
    assert message in str(caught.value)


def test_many_faults_are_cut_to_ten_and_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(spec(tmp_path, "nonsense\n" * 25))
    assert str(caught.value).splitlines()[-1] == "... and 15 more faults"
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_says_what_belongs_into_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"no questions in it\. Write one JSON object a line"):
        read(spec(tmp_path, text))


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'{"id": "\xff"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read(QuestionSource(path=path))


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read(QuestionSource(path=tmp_path))


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    text = '{"id": "a", "question": "?", "split": "train"}\n{"id": "b", "question": "?", "split": "dev"}'
    with pytest.raises(DataError, match=r"no question has split 'test' \(splits in the file: dev, train\)"):
        read(spec(tmp_path, text, split="test"))


def test_split_then_limit_picks_evenly(tmp_path: Path) -> None:
    rows = [{"id": str(i), "question": "?", "split": "test" if i % 2 == 0 else "train"} for i in range(20)]
    found = read(spec(tmp_path, "\n".join(map(json.dumps, rows)), split="test", limit=5))
    assert [question.id for question in found] == ["0", "4", "8", "12", "16"]


def test_a_limit_above_the_number_of_questions_takes_all(tmp_path: Path) -> None:
    assert len(read(spec(tmp_path, '{"id": "q", "question": "?"}', limit=9))) == 1


def test_a_value_may_have_several_wordings(tmp_path: Path) -> None:
    (found,) = read(spec(tmp_path, '{"id": "q1", "question": "?", "value": ["150 grams", " 150 g", "150 grams", 150]}'))
    assert (found.value, found.wordings) == ("150 grams", ("150 grams", "150 g", "150"))
    with pytest.raises(DataError, match="value is missing"):
        read(spec(tmp_path, '{"id": "q1", "question": "?", "value": [null]}'))


SQUAD_WITHOUT_A_QUESTION = '{"data": [{"paragraphs": [{"qas": [{"id": "a", "question": ""}]}]}]}'
SQUAD: dict[str, Any] = {
    "version": "2",
    "data": [
        {
            "title": "Tea",
            "paragraphs": [
                {
                    "context": "Tea is steeped for three minutes.",
                    "qas": [
                        {"id": "a", "question": "How long?", "answers": [{"text": "three minutes", "answer_start": 19}] * 2},
                        {"id": "b", "question": "How hot?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_a_file_of_squad_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    found = read(QuestionSource(path=tmp_path / "dev.json"))
    assert found == [
        Question("a", "How long?", value="three minutes", group="Tea"),
        Question("b", "How hot?", answerable=False, group="Tea"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"dev\.json:1: not valid JSON"),
        ('{"rows": []}', r"dev\.json: not in the format of SQuAD.*Write JSONL"),
        ("[]", r"dev\.json: not in the format of SQuAD"),
        (SQUAD_WITHOUT_A_QUESTION, r"dev\.json:data\[0\]\.paragraphs\[0\]\.qas\[0\]: .*empty"),
        (json.dumps({"data": [*SQUAD["data"], *SQUAD["data"]]}), r"data\[1\].*id 'a' is already used at data\[0\]\S+"),
    ],
)  # fmt: skip
def test_a_faulty_file_of_squad_is_told_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dev.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(QuestionSource(path=tmp_path / "dev.json"))
