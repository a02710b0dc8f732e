"""One reader of question files: comparisons, trainings and judged retrieval take the same forms and say the same of a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbench import questions
from llmbench.compare import statistics
from llmbench.compare.answers import Answer, key_of
from llmbench.compare.metrics import grounding as metrics
from llmbench.compare.questions import read as compared
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.recipe import QuestionSource, StatisticsSpec
from llmbench.retrieval.evaluation import read as judged
from llmbench.training.loop.questions import ExamQuestion
from llmbench.training.loop.questions import read as examined


def plain(text: str, **options: Any) -> dict[str, list[int]]:
    """A tokenizer without a template: a character is a token."""
    return {"input_ids": list(map(ord, text))}


plain.chat_template = None  # type: ignore[attr-defined]


def exam(path: Path, limit: int | None = None) -> list[ExamQuestion]:
    spec = SimpleNamespace(questions=path, limit=limit, max_new_tokens=1)
    return examined(SimpleNamespace(evaluation=spec), None, plain, None)  # type: ignore[arg-type]


READERS: dict[str, Callable[[Path], Any]] = {
    "compare": lambda path: compared(QuestionSource(path=path)),
    "train": exam,
    "evaluate rag": judged,
}
GOOD = '{"id": "fine", "question": "Why?", "answer": "So.", "source": "a.md"}'
ROWS = [
    "{", "[1]", '{"id": "q"}', '{"question": " "}', '{"question": ["Why?"]}',
    '{"prompt": [{"role": "user"}], "completion": "c"}', '{"prompt": [], "completion": "c"}',
    '{"prompt": [{"role": "user", "content": "\\ud83d"}], "completion": "c"}',
    '{"question": "Why?", "answer": " "}', '{"question": "Why?", "answerable": "no"}',
    '{"question": "Why?", "answerable": false, "source": "a.md"}', '{"question": "Why \\ud83d?", "answer": "a"}',
    '{"question": "Why?", "value": true}', '{"question": "Why?", "value": NaN}', '{"question": "Why?", "source": {"a": 1}}',
    '{"question": "Why?", "source": ["a.md", ""]}', '{"question": ' + "[" * 100_000, '{"id": "fine", "question": "Why?"}',
    '{"question": "Why?", "value": ' + "9" * 5000 + "}",
]  # fmt: skip


def told(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:60])
def test_every_room_says_the_same_of_the_same_fault(tmp_path: Path, row: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{GOOD}\n{row}\n")
    words = {told(read, path) for read in READERS.values()}
    assert len(words) == 1
    assert words.pop().startswith(f"{path}:2: ")


def test_every_room_tells_all_faults_at_once(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join([GOOD, *ROWS]))
    (words,) = {told(read, path) for read in READERS.values()}
    lines = words.splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"{path}:{number}" for number in range(2, 12)]
    assert lines[10:] == [f"... and {len(ROWS) - 10} more faults"]


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe{}", '{"question": "Why?"\u2028}'.encode()])
def test_every_room_says_the_same_of_a_file_that_holds_no_question(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(content)
    assert len({told(read, path) for read in READERS.values()}) == 1


@pytest.mark.parametrize("text", ["{", '{"data": [{"title": "Tea"}]}', "[]", '{"data": ' + "[" * 100_000])
def test_every_room_says_the_same_of_a_broken_file_of_squad(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dev.json"
    path.write_text(text)
    (words,) = {told(read, path) for read in READERS.values()}
    assert words.startswith(str(path))


def test_a_folder_is_the_same_to_all_but_retrieval_which_reads_collections(tmp_path: Path) -> None:
    assert told(READERS["compare"], tmp_path) == told(exam, tmp_path)
    assert "is a folder" in told(exam, tmp_path)


def test_a_training_tells_what_it_cannot_compare_with_the_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{GOOD}\n{{"question": "Why?"}}\n{{\n')
    assert told(exam, path).splitlines() == [
        f"{path}:2: answer is missing, so nothing can be compared",
        f"{path}:3: not valid JSON (Expecting property name enclosed in double quotes at column 2)",
    ]


def test_prompts_of_several_turns_are_asked_as_they_are(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be short. "},
        {"role": "user", "content": "A lamp?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "How heavy? "},
    ]
    path = tmp_path / "questions.jsonl"
    row = {"prompt": turns, "completion": [{"role": "assistant", "content": "3 grams."}], "source": ["a.md", "b.md", "a.md"]}
    path.write_text("\ufeff" + json.dumps(row), encoding="utf-8")
    (found,) = compared(QuestionSource(path=path))
    assert (found.id, found.question, found.answer) == ("questions.jsonl:1", "How heavy?", "3 grams.")
    assert found.conversation == tuple((turn["role"], turn["content"]) for turn in turns)
    (trained,) = exam(path)
    assert (trained.text, trained.answer) == ("Be short. \nA lamp?\nYes.\nHow heavy? ", "3 grams.")
    collection = judged(path)
    assert collection.queries == {"questions.jsonl:1": "How heavy?"}
    assert collection.qrels == {"questions.jsonl:1": {"a.md": 1, "b.md": 1}}


def test_spaces_around_a_prompt_reach_a_training_alone(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"prompt": "Question: why?\\nAnswer: ", "completion": "so"}')
    (found,) = compared(QuestionSource(path=path))
    assert found.conversation == (("user", "Question: why?\nAnswer:"),)
    assert exam(path)[0].text == "Question: why?\nAnswer: "


def test_a_fact_that_the_file_denies_is_not_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"question": "a?", "answer": "Not stated.", "value": null, "answerable": false}\n'
        '{"question": "b?", "answer": "3 grams."}\n{"question": "c?", "value": ["3 grams", "3 g"]}\n'
        '{"question": "d?", "answerable": false}\n'
    )
    found = exam(path)
    assert [one.values for one in found] == [(), ("3 grams.",), ("3 grams", "3 g")], "the fourth says nothing to compare with"
    assert [one.place for one in found] == [f"{path}:{line}" for line in (1, 2, 3)]
    assert len(exam(path, limit=2)) == 2


SQUAD = {"data": [{"title": "Tea", "paragraphs": [{"qas": [
    {"id": "a", "question": "How long?", "answers": [{"text": "three minutes"}, {"text": "3 minutes"}]},
    {"id": "b", "question": "How hot?", "answers": [], "is_impossible": True},
]}]}]}  # fmt: skip


def test_squad_is_asked_in_a_training_and_judges_no_document(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(SQUAD))
    (found,) = exam(path)
    assert (found.text, found.answer, found.values) == ("How long?", None, ("three minutes", "3 minutes"))
    assert "no question names the `source` that answers it" in told(judged, path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_lines_of_questions_may_be_named_json(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "questions.json"
    path.write_text(f'{GOOD}\n{{"question": "How?", "answer": "So.", "source": "b.md"}}\n')
    found = read(path)
    assert len(getattr(found, "queries", found)) == 2


def test_each_of_several_sources_is_right() -> None:
    question = Question("q", "How heavy?", value="3", source="a.md", other_sources=("b.md",))
    passages = tuple({"n": n, "source": source, "text": "3"} for n, source in enumerate(("x/b.md", "c.md"), 1))
    assert metrics.citation(question, Answer("q", "v", "", text="3 [1]", sources=passages), "x^") == 1
    assert metrics.citation(question, Answer("q", "v", "", text="3 [2]", sources=passages), "x^") == 0
    one = Question("r", "How tall?", value="4", source="b.md", other_sources=("a.md",))
    assert len(set(statistics.groups([question, one], StatisticsSpec()).values())) == 1, "about the same pages"


def test_a_question_comes_back_from_a_summary() -> None:
    question = Question(
        "q", "How heavy?", value="3", others=("three",), source="a.md", other_sources=("b.md",),
        turns=(("system", "Be short."), ("user", "How heavy?")), place="questions.jsonl:1",
    )  # fmt: skip
    assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question
    old = {
        "id": "q",
        "question": "How heavy?",
        "answer": None,
        "value": "3",
        "source": "a.md",
        "answerable": True,
        "split": None,
    }
    assert Question.from_json(old) == Question("q", "How heavy?", value="3", source="a.md")


def test_keys_without_a_meaning_of_their_own_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"prompt": "def f():", "completion": " pass", "answer": 4, "test": "f()", "rows": [{"a": NaN}], "x": "\\ud83d"}\n'
        '{"question": "Why?", "prompt": "short"}\n'
    )
    first, second = questions.read(path)
    assert first.columns == {"answer": 4, "test": "f()", "rows": [{"a": None}], "x": "\ufffd"}
    assert second.columns == {"prompt": "short"}
    back = Question.from_json(json.loads(json.dumps(first.to_json(), allow_nan=False)))
    assert back == first
    assert back.columns == first.columns
    assert back.place == ""
    asked = [{"id": "a", "question": "How long?", "answers": []}]
    squad = {"data": [{"paragraphs": [{"context": "Steep it for three minutes.", "qas": asked}]}]}
    (path := tmp_path / "dev.json").write_text(json.dumps(squad))
    assert questions.read(path)[0].columns == {"context": "Steep it for three minutes."}


def test_columns_say_nothing_about_whether_a_question_is_another_one() -> None:
    plain, more = Question("q", "Why?"), Question("q", "Why?", columns={"level": 3})
    assert plain == more
    assert hash(plain) == hash(more)
    assert key_of(plain, {}, 8, "u") == key_of(more, {}, 8, "u"), "it is not asked again"


def test_a_column_that_is_nested_without_end_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Why?"}\n{"question": "How?", "note": ' + "[" * 101 + "]" * 101 + "}\n")
    with pytest.raises(DataError, match=r"questions.jsonl:2: note is nested deeper than 100 levels"):
        questions.read(path)


def test_other_turns_before_a_question_are_another_question() -> None:
    short, long = Question("q", "Why?"), Question("q", "Why?", turns=(("system", "Be short."), ("user", "Why?")))
    assert key_of(short, {}, 8, "") != key_of(long, {}, 8, "")


def test_an_unknown_split_is_told_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(GOOD)
    words = told(lambda path: compared(QuestionSource(path=path, split="test")), path)
    assert words == told(lambda path: judged(path, "test"), path)
    assert words.endswith("no question has split 'test' (splits in the file: none). Name one of them, or no split.")
    assert questions.spread([1, 2, 3, 4], 2) == [1, 3]
