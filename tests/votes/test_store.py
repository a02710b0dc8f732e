"""The file of votes: what is cast is kept, through kills and beside readers, and nothing is ever taken out."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llmbench.errors import LlmbenchError
from llmbench.votes.store import VoteStore, answer_hash, path
from llmbench.votes.values import AnswerPair, Ballot

ITEM = AnswerPair("q1", "page.md", "base", "tuned", answer_hash("no"), answer_hash("yes"))

WRITER = """
import sys
from pathlib import Path
from llmbench.votes.store import VoteStore
from llmbench.votes.values import Ballot, AnswerPair
with VoteStore(Path(sys.argv[1])) as store:
    for i in range(100_000):
        store.cast([Ballot(sys.argv[2], AnswerPair(f"q{i}", "p", "a", "b", "x", "y"), "model_a", "a", note=str(i))])
        print(i, flush=True)
"""


def ballot(voter: str = "ada", winner: str = "model_a", **more: object) -> Ballot:
    return Ballot(voter, ITEM, winner, "b", **more)  # type: ignore[arg-type]


def test_a_vote_comes_back_as_it_was_cast(tmp_path: Path) -> None:
    cast = ballot(reasons=("correct", "clear"), note="names the date\n日", time=12.5, seconds=3.25, latency="paced")
    with VoteStore(tmp_path / "votes.sqlite") as store:
        store.cast([cast])
    with VoteStore(tmp_path / "votes.sqlite", new=False) as store:
        (found,) = store.ballots()
    assert found == Ballot(**{**vars(cast), "id": 1})
    assert found.counts and (tmp_path / "votes.sqlite").stat().st_mode & 0o777 == 0o600


def test_questions_and_answers_are_kept_beside_the_votes(tmp_path: Path) -> None:
    question = {"id": "q1", "conversation": [["user", "Why?"]], "cluster": "page.md", "split": "train"}
    with VoteStore(tmp_path / "votes.sqlite") as store:
        store.keep([question], ["yes", "no", "yes"], {"base": {"adapter": None}})
        assert store.questions()["q1"] == question | {"answer": None, "value": None, "answerable": None}
        assert store.answers() == {answer_hash("yes"): "yes", answer_hash("no"): "no"}
        assert store.variants() == {"base": {"adapter": None}}


def test_undo_marks_the_last_vote_of_this_voter_and_keeps_it(tmp_path: Path) -> None:
    with VoteStore(tmp_path / "votes.sqlite") as store:
        store.cast([ballot("ada", note="first"), ballot("ada", note="second"), ballot("bob")])
        taken = store.undo("ada")
        assert taken is not None and taken.note == "second" and taken.undone is not None
        assert [one.counts for one in store.ballots()] == [True, False, True]
        assert store.undo("ada") is not None and store.undo("ada") is None and store.undo("eve") is None


def test_a_batch_that_cannot_be_written_leaves_none_of_it(tmp_path: Path) -> None:
    with VoteStore(tmp_path / "votes.sqlite") as store:
        with pytest.raises(LlmbenchError, match=r"votes\.sqlite"):
            store.cast([ballot(), ballot(winner="nobody")])
        assert store.ballots() == []


def test_nothing_that_was_acknowledged_is_lost_when_the_writers_are_killed(tmp_path: Path) -> None:
    file = tmp_path / "votes.sqlite"
    acknowledged: dict[str, int] = {}
    for turn in range(2):
        with ExitStack() as running:
            writers = {
                name: running.enter_context(
                    subprocess.Popen([sys.executable, "-c", WRITER, str(file), name], stdout=subprocess.PIPE, text=True)
                )
                for name in (f"ada{turn}", f"bob{turn}")
            }
            for one in writers.values():  # both have begun
                assert one.stdout is not None and one.stdout.readline()
            time.sleep(0.05 + 0.07 * turn)
            for name, one in writers.items():
                os.kill(one.pid, signal.SIGKILL)
                assert one.stdout is not None
                said = one.stdout.read().split("\n")
                acknowledged[name] = len(said)  # without the last line, which may be cut off, and with the first, read above
    with VoteStore(file, new=False) as store:
        found = store.ballots()
    for name, count in acknowledged.items():
        notes = [int(one.note) for one in found if one.voter == name]
        assert notes == list(range(len(notes))) and len(notes) >= count
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_readers_see_whole_votes_while_another_writes(tmp_path: Path) -> None:
    file = tmp_path / "votes.sqlite"
    with VoteStore(file) as writer, VoteStore(file) as reader:
        for i in range(20):
            writer.cast([ballot(note=str(i))])
            assert len(reader.ballots()) == i + 1
        writer.db.execute("BEGIN IMMEDIATE")  # someone is in the middle of writing
        assert len(reader.ballots()) == 20
        writer.db.execute("ROLLBACK")


def test_another_program_s_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "votes.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE mine (x)")
    before = file.read_bytes()
    with pytest.raises(LlmbenchError, match="it cannot be used as a file of votes"):
        VoteStore(file)
    assert file.read_bytes() == before


def test_votes_that_are_not_there_name_those_that_are() -> None:
    with VoteStore(path("kettles")):
        pass
    with pytest.raises(LlmbenchError, match=r"no votes on kettle \(votes there are on: kettles\)"):
        VoteStore(path("kettle"), new=False)
