"""`llmbench vote` and `llmbench votes`, as a person types them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbench.cli.main import main
from llmbench.compare import Comparison

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a verb in this process with what is typed into it; gives exit code, stdout and stderr."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmbench", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(autouse=True)
def made(compared: Callable[..., Comparison]) -> None:
    compared()


def test_votes_are_typed_saved_and_shown(here: Run) -> None:
    code, out, _ = here("vote", "kettles", "--rater", "ada", "--limit", "3", "--checks", "0", typed="left\nr correct: why\nt\n")
    assert code == 0
    assert "LEFT\n" in out and "QUESTION\nHow heavy is kettle" in out
    assert not any(name in out for name in ("tuned", "base", "loud"))  # blind
    assert "3 votes by ada saved, 69 left; the same command continues.\nResult: llmbench votes kettles" in out
    code, out, _ = here("votes", "kettles")
    assert code == 0 and "ada" in out and "3 votes of 1 person" in out
    assert "too few to say what others would prefer" in out


def test_what_an_answer_holds_is_not_obeyed_by_the_terminal(here: Run) -> None:
    _, out, _ = here("vote", "kettles", "--checks", "0", typed="s\n" * 80)
    assert r"\x1b[2J\x1b[31mred" in out and "\x1b" not in out
    assert "You have voted on everything there is." in out


def test_a_mistake_is_said_and_asked_again(here: Run) -> None:
    _, out, _ = here("vote", "kettles", "--limit", "1", typed="leftt\nleft boring\nleft\n")
    assert "'leftt' is not a vote. Type left, right" in out
    assert "'boring' is not a reason. Reasons: correct, complete" in out
    assert "1 vote by anonymous-" in out


def test_undo_and_quit(here: Run) -> None:
    _, out, _ = here("vote", "kettles", "--rater", "ada", typed="undo\nleft\nundo\nquit\nleft\n")
    assert "There is no vote to take back." in out and "The last vote is taken back." in out
    assert "0 votes by ada saved, 72 left" in out


def test_programs_get_one_json_document(here: Run) -> None:
    code, out, err = here("vote", "kettles", "--rater", "ada", "--limit", "2", "--json", typed="l\nr\n")
    values = json.loads(out)
    assert (code, values["voter"], values["cast"], values["left"]) == (0, "ada", 2, 70) and "LEFT" in err
    assert json.loads(here("votes", "kettles", "--json")[1])["counted"] == 2
    assert [one["name"] for one in json.loads(here("votes", "--json")[1])] == ["kettles"]


def test_votes_are_listed(here: Run) -> None:
    assert "No votes yet. Vote on a comparison: llmbench vote NAME" in here("votes")[1]
    here("vote", "kettles", "--limit", "1", "--checks", "0", typed="t\n")
    assert here("votes")[1].startswith("kettles: No preference shown between ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vote", "kettle"], "There is no finished comparison kettle (available: kettles)"),
        (["vote", "kettles", "--latency", "x"], "--latency 'x': choose one of hidden, paced, shown."),
        (["vote", "kettles", "--rater", ""], "--rater ''"),
        (["votes", "kettles"], "There are no votes on kettles (votes there are on: none yet). Vote: llmbench vote kettles"),
        (["votes", "kettles", "--style", "colour"], "--style 'colour': choose of length, lists, headers, bold, or all."),
        (["votes", "kettles", "--cluster", "x"], "--cluster 'x': choose one of both, voter, question, none."),
    ],
)
def test_what_cannot_be_done_is_one_line(here: Run, arguments: list[str], words: str) -> None:
    code, out, err = here(*arguments)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_a_voter_can_be_left_out(here: Run) -> None:
    for name, said in (("ada", "left\n"), ("bob", "right\n")):
        here("vote", "kettles", "--rater", name, "--limit", "4", "--checks", "0", typed=4 * said)
    assert json.loads(here("votes", "kettles", "--json", "--without", "bob")[1])["counted"] == 4
    code, _, err = here("votes", "kettles", "--without", "eve")
    assert code == 2 and "--without eve: nobody of that name voted on kettles (voters: ada, bob)." in err


def test_votes_are_exported_next_to_the_questions_held_out(here: Run, tmp_path: Path) -> None:
    here("vote", "kettles", "--checks", "0", "--limit", "20", typed="left\n" * 20)
    rows = tmp_path / "pairs.jsonl"
    code, out, _ = here("votes", "export", "kettles", "--to", str(rows), "--hold-out", "0.4")
    assert code == 0 and f"{rows}: " in out and "Train on it: llmbench train recipes/dpo.yaml" in out
    held = (tmp_path / "pairs.questions.jsonl").read_text(encoding="utf-8")
    assert "of which nothing is trained on" in out and held.count("\n") >= 1
    assert here("votes", "export", "kettles", "--to", str(rows))[0] == 2
    code, out, _ = here("votes", "export", "kettles", "--to", str(rows), "--format", "kto", "--overwrite", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 40)
    code, _, err = here("votes", "export", "kettles", "--to", str(rows), "--format", "x", "--overwrite")
    assert code == 2 and "--format 'x': choose one of dpo, kto, sft." in err


def test_votes_are_imported_and_removed(here: Run, tmp_path: Path) -> None:
    row = {"question_id": 1, "model_a": "x", "model_b": "y", "winner": "model_b", "judge": "ada"}
    file = tmp_path / "human.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"winner": "?"}) + "\n", encoding="utf-8")
    code, out, _ = here("votes", "import", str(file), "--name", "theirs", "--left", "a")
    assert code == 0 and "theirs: 1 vote on 2 models by 1 voter, 1 question." in out and "1 row left out: winner is none" in out
    assert "1 vote of 1 person" in here("votes", "theirs")[1]
    assert here("votes", "import", str(file), "--name", "theirs")[0] == 2
    code, _, err = here("votes", "rm", "theirs")
    assert code == 2 and "Add --yes" in err
    assert here("votes", "rm", "theirs", "--yes")[1] == "Removed the votes on theirs.\n"
    assert "There are no votes on theirs" in here("votes", "theirs")[2]
