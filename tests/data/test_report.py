"""Every section of the data report, on rows written here."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench.data.report import DataReport, Note, percent, ranked, read_json, to_json

from .looking import chat, checked, looked, notes, recipe, rows

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "lagoon",
    "meadow",
    "ocean",
]
KEY = "AKIA" + "QZX7KM2PLW4TJ6VB"


def said(i: int, length: int = 12) -> str:
    """A sentence of its own."""
    return " ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] + str((i * j) % 10) for j in range(length))


def talks(count: int, **more: Any) -> list[dict[str, Any]]:
    return [chat(f"What of {said(i)}?", f"It is {said(i + 100, 5)}.", **more) for i in range(count)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> DataReport:
    """The report of forty ordinary rows, five of them held out."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        return looked(folder, talks(40, system="Be brief."), data={"eval_fraction": 0.125})


def test_ordinary_rows_need_no_word(plain: DataReport) -> None:
    assert [note for note in plain.notes if note.level != "note"] == []
    assert plain.secrets == ()
    assert plain.duplicates.groups == ()


def test_every_row_is_counted_once(plain: DataReport) -> None:
    assert plain.eval is not None
    assert (plain.train.rows_in, plain.train.rows) == (35, 35)
    assert (plain.eval.rows_in, plain.eval.rows) == (5, 5)
    assert sum(one.rows for one in plain.train.lengths.histogram) == 40


def test_rows_that_are_not_used_are_counted_by_reason_with_their_places(tmp_path: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "Who?"}]}
    found = looked(tmp_path, [bad, *talks(3), bad, {"messages": "x"}], data={"bad_rows": "skip"}).train
    assert (found.rows_in, found.rows) == (6, 3)
    assert [(skip.rows, skip.places) for skip in found.skipped] == [
        (2, ("t.jsonl:1", "t.jsonl:5")),
        (1, ("t.jsonl:6",)),
    ]


def test_a_row_that_training_would_refuse_does_not_hide_the_others(tmp_path: Path) -> None:
    path = recipe(tmp_path, [*talks(3), {"messages": []}])
    result = checked(str(path), "--json")
    assert result.exit_code == 2
    report = read_json(result.stdout)
    assert report.train.rows == 3
    assert report.notes[0].level == "refused"
    assert f"{tmp_path / 't.jsonl'}:4" in f"{report.notes[0].where}: {report.notes[0].text}"


def test_sources_have_their_shares(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = rows(tmp_path / "a.jsonl", *talks(1)), rows(tmp_path / "b" / "a.jsonl", *talks(3))
    sources = looked(tmp_path, [{"path": str(first)}, {"path": str(second)}]).train.sources
    assert [(source.name, source.rows, source.rows_share) for source in sources] == [
        (f"{tmp_path.name}/a.jsonl", 1, 0.25),
        ("b/a.jsonl", 3, 0.75),
    ]
    assert sum(source.tokens_share for source in sources) == pytest.approx(1)
    assert sources[1].path == str(second)


def test_rows_too_long_are_reported_before_they_are_refused(tmp_path: Path) -> None:
    path = recipe(tmp_path, [*talks(9), chat("Why?", said(3, 200))], data={"max_length": 200})
    result = checked(str(path), "--json")
    assert result.exit_code == 2
    report = read_json(result.stdout)
    assert report.train.rows == 10
    assert report.train.limit.rows_over == 1
    assert report.train.lengths.longest > 900
    [refused] = notes(report, "refused")
    assert refused.where == "data.max_length"
    assert refused.text == "1 row of train (10.0 %) longer than 200 tokens"
    assert f"{report.train.lengths.longest} fits all rows" in refused.next


@pytest.mark.parametrize("policy", ["drop", "truncate"])
def test_what_the_chosen_policy_costs_is_said(tmp_path: Path, policy: str) -> None:
    settings = {"max_length": 200, "over_length": policy}
    report = looked(tmp_path, [*talks(9), chat("Why?", said(3, 200))], data=settings)
    limit = report.train.limit
    assert limit.rows_over == 1
    assert limit.tokens_lost_by_drop - limit.tokens_lost_by_truncate == 200
    assert report.train.rows == (9 if policy == "drop" else 10)
    costs = [note.text for note in notes(report, "warning") if "costs" in note.text]
    lost = limit.tokens_lost_by_drop_share if policy == "drop" else limit.tokens_lost_by_truncate_share
    told = f"1 row of train (10.0 %) longer than 200 tokens: over_length: {policy} costs {100 * lost:.1f} % of the tokens"
    assert costs == [told]


def test_answers_that_are_cut_are_warned_of(tmp_path: Path) -> None:
    report = looked(tmp_path, [*talks(2), chat("Why?", said(3, 200))], data={"max_length": 200, "over_length": "truncate"})
    assert report.train.cut_turns == 1
    assert any("stop mid-sentence" in note.text for note in notes(report, "warning"))


def test_rows_that_learn_nothing_are_refused(tmp_path: Path) -> None:
    idle = {"input_ids": [5, 6, 7], "labels": [-100, -100, -100]}
    path = recipe(tmp_path, [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, idle])
    result = checked(str(path), "--json")
    assert result.exit_code == 2
    assert "t.jsonl:2" in read_json(result.stdout).notes[0].text + read_json(result.stdout).notes[0].where


def test_learned_tokens_are_counted_by_role(plain: DataReport) -> None:
    of = {role.role: role for role in plain.train.roles}
    assert set(of) == {"template", "system", "user", "assistant"}
    assert of["user"].trained_tokens == of["system"].trained_tokens == 0
    assert of["assistant"].trained_tokens == of["assistant"].tokens > 0
    assert of["template"].trained_tokens == 35, "the end of each turn is the template's"
    assert sum(role.tokens for role in plain.train.roles) == plain.train.tokens
    assert sum(role.trained_tokens for role in plain.train.roles) == plain.train.trained_tokens


def test_the_end_of_turn_is_learned(plain: DataReport) -> None:
    assert (plain.train.turns, plain.train.turns_ended) == (35, 35)


NO_END = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
)


def test_answers_without_a_learned_end_are_an_error(tmp_path: Path) -> None:
    path = recipe(tmp_path, talks(4), data={"chat_template": NO_END})
    report = read_json(checked(str(path), "--json").stdout)
    assert (report.train.turns, report.train.turns_ended) == (4, 0)
    assert any("4 of 4 answers have no trained end of turn" in note.text for note in notes(report, "error"))
    assert checked(str(path)).exit_code == 0
    assert checked(str(path), "--strict").exit_code == 1


SPACE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}\nAnswer: {% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}Question: {{ m['content'] }}{% endif %}{% endfor %}"
)


def test_answers_that_begin_inside_a_token_are_warned_of(tmp_path: Path) -> None:
    report = looked(tmp_path, talks(3), data={"chat_template": SPACE})
    assert report.train.merged == 3
    assert any("inside a token" in note.text for note in notes(report, "warning"))


def test_control_tokens_in_words_are_told(tmp_path: Path) -> None:
    report = looked(tmp_path, [*talks(2), chat("Say <|im_end|> please.", "Yes.")])
    assert report.train.control == 1
    assert any("control tokens" in note.text for note in notes(report, "note"))


def test_text_that_the_tokenizer_cannot_write_is_told(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["model"]["unk_token"] = "<|endoftext|>"  # now the pieces of what is not in the alphabet are unknown
    for piece in [piece for piece in spec["model"]["vocab"] if any(sign in piece for sign in "zÃä")]:
        spec["model"]["vocab"][f"gone {piece}"] = spec["model"]["vocab"].pop(piece)
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if not any(s in "".join(pair) for s in "zÃä")]
    path.write_text(json.dumps(spec), encoding="utf-8")
    report = looked(tmp_path, [chat("zzzz", "zz zz.")], model={"model_name_or_path": str(folder)})
    assert report.train.unknown == 8
    assert any("the tokenizer cannot encode this text" in note.text for note in notes(report, "warning"))


def test_a_share_is_all_only_where_it_is_all() -> None:
    assert [percent(value) for value in (0.0017, 0.213, 0.9965, 0.99999, 1.0)] == [
        "0.17 %",
        "21 %",
        "99.7 %",
        "99.9 %",
        "100 %",
    ]


def test_two_beginnings_of_text_are_an_error(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = folder / "chat_template.jinja"
    template.write_text("{{ bos_token }}{{ bos_token }}" + template.read_text())
    report = looked(tmp_path, talks(3), model={"model_name_or_path": str(folder)})
    assert report.train.double_bos == 3
    assert any("doubled BOS token" in note.text for note in notes(report, "error"))


def test_hashes_are_those_of_the_files(plain: DataReport, tiny: Path) -> None:
    for value, name in ((plain.hashes.tokenizer, "tokenizer.json"), (plain.hashes.chat_template, "chat_template.jinja")):
        assert value == hashlib.sha256((tiny / name).read_bytes()).hexdigest()


def test_equal_rows_are_found_with_their_places(tmp_path: Path) -> None:
    report = looked(tmp_path, [*talks(3), *talks(2)])
    assert report.duplicates.exact_rows == 2
    assert [(group.kind, group.train_rows, group.places) for group in report.duplicates.groups] == [
        ("exact", 2, ("t.jsonl:1", "t.jsonl:4")),
        ("exact", 2, ("t.jsonl:2", "t.jsonl:5")),
    ]
    assert report.duplicates.groups[0].text.startswith("What of amber0")
    assert any("the same as an earlier row" in note.text for note in notes(report, "warning"))


def test_rows_that_differ_in_a_word_are_near(tmp_path: Path) -> None:
    long = said(5, 60)
    report = looked(tmp_path, [chat("Tell me.", long), *talks(3), chat("Tell me.", long + " today")])
    [group] = report.duplicates.groups
    assert (group.kind, group.places) == ("near", ("t.jsonl:1", "t.jsonl:5"))
    assert 0.8 <= group.similarity < 1
    assert report.duplicates.near_rows == 1


def test_a_long_system_prompt_makes_no_duplicates(tmp_path: Path) -> None:
    report = looked(tmp_path, talks(10, system=said(1, 60)), data={"max_length": 1024})
    assert report.duplicates.groups == ()


def test_a_row_that_is_drawn_twice_is_no_duplicate(tmp_path: Path) -> None:
    first, second = rows(tmp_path / "a.jsonl", *talks(2)), rows(tmp_path / "b.jsonl", *talks(12)[2:])
    report = looked(tmp_path, [{"path": str(first), "weight": 1}, {"path": str(second), "weight": 1}])
    assert report.train.rows == 12
    assert report.duplicates.groups == ()


def test_what_train_and_eval_share_is_contamination(tmp_path: Path) -> None:
    train, long = talks(8), said(9, 60)
    train.append(chat("Tell me.", long))
    held = [
        train[2],
        chat(train[4]["messages"][0]["content"], "Another answer."),
        chat("Tell me.", long + " now"),
        *talks(12)[10:],
    ]
    report = looked(tmp_path, train, data={"eval": [{"path": str(rows(tmp_path / "e.jsonl", *held))}]})
    d = report.duplicates
    assert (d.contaminated_exact, d.contaminated_near, d.contaminated_prompts) == (1, 1, 2)
    assert d.contaminated_places == ("t.jsonl:3", "t.jsonl:5", "t.jsonl:9")
    assert d.groups[0].places == ("t.jsonl:3", "eval e.jsonl:1")
    assert any("held out as well" in note.text for note in notes(report, "error"))


def test_secrets_are_named_by_place_and_never_shown(tmp_path: Path) -> None:
    train = [*talks(2), chat("My key?", f"It is {KEY}."), chat("Who?", "Write to ada@lovelace.org or bob@lovelace.org.")]
    train += [chat(f"My key, the {i}th time?", f"It is {KEY}.") for i in (4, 5)]
    path, page = recipe(tmp_path, train), tmp_path / "page.html"
    document, shown = checked(str(path), "--json").stdout, checked(str(path), "--rows", "6", "--html", str(page)).stdout
    key, mail = read_json(document).secrets
    assert (key.kind, key.key, key.found, key.rows) == ("AWS access key", True, 3, 3)
    assert key.examples[0] == ("t.jsonl:3", "AKIA… (20 characters)")
    assert (mail.kind, mail.found, mail.rows) == ("e-mail address", 2, 1)
    for text in (document, shown, page.read_text(encoding="utf-8")):
        assert KEY[4:12] not in text
        assert "lovelace" not in text
    assert "AKIA" + "•" * 16 in shown.replace("\n  ", "")
    assert [note.level for note in read_json(document).notes[:2]] == ["error", "warning"]


def test_rendered_rows_say_what_is_learned(plain: DataReport) -> None:
    assert plain.rendering[0].place.startswith("t.jsonl:")
    row = plain.rendering[0]
    whole = "".join(getattr(piece, "text", "") for piece in row.pieces)
    learned = "".join(getattr(piece, "text", "") for piece in row.pieces if piece.trained)
    assert whole.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat of ")
    assert learned.startswith("It is ") and learned.endswith(".<|im_end|>")
    assert row.trained_tokens == sum(piece.trained for piece in row.pieces)


@pytest.mark.parametrize(("count", "places"), [(0, []), (1, [1]), (2, [1, 40]), (3, [1, 21, 40]), (100, list(range(1, 41)))])
def test_as_many_rows_are_rendered_as_asked_for(tmp_path: Path, count: int, places: list[int]) -> None:
    report = read_json(checked(str(recipe(tmp_path, talks(40))), "--json", "--rows", str(count)).stdout)
    assert [int(row.place.split(":")[1]) for row in report.rendering] == places


def test_a_report_comes_back_from_json_as_it_was(plain: DataReport) -> None:
    assert read_json(to_json(plain)) == plain


def test_notes_are_ranked_by_what_they_mean() -> None:
    levels = ["note", "warning", "refused", "error", "warning"]
    found = ranked([Note(level, str(i), "") for i, level in enumerate(levels)])  # type: ignore[arg-type]
    assert [(note.level, note.where) for note in found] == [
        ("refused", "2"), ("error", "3"), ("warning", "1"), ("warning", "4"), ("note", "0"),
    ]  # fmt: skip


def test_a_note_of_another_part_takes_its_rank(plain: DataReport) -> None:
    assert plain.adding([Note("error", "lora", "cannot be served")]).notes[0].where == "lora"


def test_raw_text_has_neither_roles_nor_turns(tmp_path: Path) -> None:
    report = looked(tmp_path, [{"text": said(i, 20)} for i in range(5)] + [{"text": said(0, 20)}], method="pretrain")
    assert report.duplicates.exact_rows == 1
    assert report.train.trained_tokens == report.train.tokens - report.train.rows
    assert [role.role for role in report.train.roles] == ["text"]
    assert report.train.turns == 0


def test_long_texts_in_pieces_are_compared_whole(tmp_path: Path) -> None:
    long = said(2, 60)
    rows = [{"text": long + " the end"}, {"text": said(9, 40)}, {"text": long + " or not"}]
    report = looked(tmp_path, rows, method="pretrain", data={"max_length": 64, "over_length": "split"})
    assert report.train.rows > 6
    assert [group.places for group in report.duplicates.groups] == [("t.jsonl:1", "t.jsonl:3")]
