"""The report of rows that are prepared already, whatever prepared them: every figure from arrays written here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tokenizers import Tokenizer

from llmbench import recipe as recipes
from llmbench.data import Report, Rows, examination
from llmbench.data.columns import columns
from llmbench.data.report import DataReport, Hashes

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def examined(folder: Path, tokenizer: Any, dataset: Dataset, **counts: Any) -> DataReport:
    """The report of a dataset as the training rows of a recipe."""
    (folder / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump({"name": "made", "data": {"train": [{"path": "rows.jsonl"}]}}), encoding="utf-8")
    document = recipes.load(path, recipes.TrainRecipe)
    found = Report(**{"rows_in": len(dataset), "rows": len(dataset), "tokens": 0, "trained_tokens": 0, "longest": 0} | counts)
    return examination.examine(document, Rows(dataset, found), tokenizer, Hashes("a" * 64, None))


def conversations(tokenizer: Any, *texts: tuple[str, str], learned: bool = True) -> Dataset:
    """Rows of a prompt and an answer."""
    from datasets import Dataset

    rows: dict[str, list[Any]] = {"input_ids": [], "labels": [], "roles": [], "source": [], "row": []}
    for i, (prompt, answer) in enumerate(texts):
        before, after = (tokenizer.encode(text).ids for text in (prompt, answer))
        rows["input_ids"].append(before + after)
        rows["labels"].append([-100] * len(before) + (after if learned else [-100] * len(after)))
        rows["roles"].append([2] * len(before) + [3] * len(after))
        rows["source"].append(0)
        rows["row"].append(i + 1)
    return Dataset.from_dict(rows)


def test_rows_that_learn_nothing_are_named(tmp_path: Path, tokenizer: Any) -> None:
    report = examined(tmp_path, tokenizer, conversations(tokenizer, ("Who?", "Me."), ("Why?", "So."), learned=False))
    assert report.train.untrained_rows == 2
    assert report.train.untrained_places == ("rows.jsonl:1", "rows.jsonl:2")
    assert report.worst == "refused"
    assert report.train.turns == 0


def test_the_first_token_of_a_row_is_never_learned(tokenizer: Any) -> None:
    found = columns(conversations(tokenizer, ("", "All of it is learned."), ("", "This too.")))
    assert found.per_row(found.trained).tolist() == (found.lengths - 1).tolist()


def test_turns_are_counted_within_rows(tmp_path: Path, tokenizer: Any) -> None:
    report = examined(tmp_path, tokenizer, conversations(tokenizer, ("", "One row."), ("", "Another row.")), unstopped=1)
    assert (report.train.turns, report.train.turns_ended) == (2, 1)


def test_the_samples_of_one_row_are_no_duplicates_of_each_other(tmp_path: Path, tokenizer: Any) -> None:
    texts = [("Which lamp is made of brass, the Borin or the Alba?", "It is the Borin lamp.")] * 3
    dataset = conversations(tokenizer, *texts, ("Another", "row"))
    same = dataset.remove_columns("row").add_column("row", [1, 1, 1, 2])
    assert examined(tmp_path, tokenizer, same).duplicates.groups == ()
    assert len(examined(tmp_path, tokenizer, dataset).duplicates.groups) == 1


def test_pairs_are_looked_at_answer_by_answer(tmp_path: Path, tokenizer: Any) -> None:
    from datasets import Dataset

    prompt, good, bad = (tokenizer.encode(text).ids for text in ("Who are you?", "A lamp.", "Nobody of note."))
    apart = Dataset.from_dict({"prompt_ids": [prompt] * 2, "chosen_ids": [good] * 2, "rejected_ids": [bad] * 2})
    whole = Dataset.from_dict({"chosen_ids": [prompt + good] * 2, "rejected_ids": [prompt + bad] * 2})
    reports = [examined(tmp_path, tokenizer, dataset) for dataset in (apart, whole)]
    for report in reports:
        assert {role.role: (role.tokens, role.trained_tokens) for role in report.train.roles} == {
            "prompt": (4 * len(prompt), 0),
            "assistant": (2 * len(good) + 2 * len(bad), 2 * len(good) + 2 * len(bad)),
        }
        assert [row.place for row in report.rendering[:2]] == ["sample 1 (chosen)", "sample 3 (chosen)"]
        assert "".join(getattr(piece, "text", "") for piece in report.rendering[0].pieces if piece.trained) == "A lamp."
        assert report.duplicates.exact_rows == 1
    assert reports[0] == reports[1]


def test_marked_answers_are_looked_at(tmp_path: Path, tokenizer: Any) -> None:
    from datasets import Dataset

    prompt, answer = (tokenizer.encode(text).ids for text in ("Who are you?", "A lamp."))
    dataset = Dataset.from_dict({"prompt_ids": [prompt], "completion_ids": [answer], "label": [True]})
    report = examined(tmp_path, tokenizer, dataset)
    assert report.train.trained_tokens == len(answer)
    assert report.train.lengths.longest == len(prompt) + len(answer)


def test_a_set_too_large_to_read_as_text_says_how_much_was_read(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = conversations(tokenizer, *[("The same question of all?", "The same answer to all.")] * 10)
    monkeypatch.setattr(examination, "_READ", 4 * len(dataset[0]["input_ids"]))
    report = examined(tmp_path, tokenizer, dataset)
    assert report.duplicates.groups[0].train_rows == 4
    assert "duplicates and secrets were looked for in the first 4 of 10 rows" in report.train.remarks
