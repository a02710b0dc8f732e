"""People's votes in a file of SQLite: one writer at a time, many readers, each vote on disk when `cast` returns.

It holds the questions and answers that were voted on, too, so that votes keep their meaning when a comparison is made anew.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.sqlite_file import SqliteFile
from llmbench.votes.values import AnswerPair, Ballot

__all__ = ["FILE", "VoteStore", "answer_hash", "ballots", "names", "path", "remove"]

FILE = "votes.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE questions (
    id TEXT PRIMARY KEY, conversation TEXT NOT NULL, answer TEXT, value TEXT, split TEXT, answerable INTEGER,
    cluster TEXT NOT NULL
);
CREATE TABLE answers (hash TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE variants (name TEXT PRIMARY KEY, listing TEXT NOT NULL);
CREATE TABLE votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    voter TEXT NOT NULL,
    question_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    model_a TEXT NOT NULL,
    model_b TEXT NOT NULL,
    answer_a TEXT NOT NULL,
    answer_b TEXT NOT NULL,
    cluster TEXT NOT NULL,
    winner TEXT NOT NULL CHECK (winner IN ('model_a', 'model_b', 'tie', 'both_bad', 'skip')),
    shown_left TEXT CHECK (shown_left IN ('a', 'b')),
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'same', 'nonsense')),
    latency TEXT NOT NULL CHECK (latency IN ('hidden', 'paced', 'shown')),
    reasons TEXT NOT NULL,
    note TEXT NOT NULL,
    time REAL NOT NULL,
    seconds REAL NOT NULL,
    undone REAL
);
CREATE INDEX votes_of_voters ON votes (voter, id)
"""
_KNOWN = ("answer", "value", "split", "answerable")
"""What may be known of a question."""
_CAST = "INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def path(name: str) -> Path:
    """Where the votes of a comparison are."""
    return workspace.votes() / workspace.check_name(name, "comparison") / FILE


def names() -> list[str]:
    """All that has votes in this workspace."""
    return sorted(found.parent.name for found in workspace.votes().glob(f"*/{FILE}"))


def remove(name: str) -> None:
    """Removes the votes of a name, and their folder where nothing else is in it.

    Raises:
        LlmbenchError: there are none, the file is another program's, or someone is writing it; nothing was removed.
    """
    file = path(name)
    with VoteStore(file, new=False) as store, store.writing():  # nobody is in the middle of a vote
        pass
    for one in (file.with_name(f"{FILE}-wal"), file.with_name(f"{FILE}-shm"), file):
        one.unlink(missing_ok=True)
    with suppress(OSError):
        file.parent.rmdir()


def answer_hash(text: str) -> str:
    """The name of an answer: a hash of its text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


class VoteStore(SqliteFile):
    """The file. A connection is used by one thread at a time; others may be open on the same file.

    Raises (every method):
        LlmbenchError: the file cannot be read or written, or is something else.
    """

    purpose = "as a file of votes"

    def __init__(self, file: Path, *, new: bool = True) -> None:
        """Opens the file; `new` makes it where it is missing."""
        if not new and not file.is_file():
            known = ", ".join(names()) or "none yet"
            name = file.parent.name
            raise LlmbenchError(f"There are no votes on {name} (votes there are on: {known}). Vote: llmbench vote {name}")
        super().__init__(file, _SCHEMA.split(";\n"), table="votes", version=_VERSION, pragmas=("synchronous = FULL",))
        if self.fact("salt") is None:
            with self.writing():
                self.db.execute("INSERT OR IGNORE INTO facts VALUES ('salt', ?)", (secrets.token_hex(16),))
                self.db.execute("INSERT OR IGNORE INTO facts VALUES ('created', ?)", (repr(time.time()),))

    def __enter__(self) -> VoteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fact(self, name: str) -> str | None:
        """What is noted about the file, such as its `salt`."""
        with self.explained():
            row = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, facts: Mapping[str, str]) -> None:
        """Notes facts; those of the same name are replaced."""
        with self.writing():
            self.db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def keep(
        self,
        questions: Iterable[Mapping[str, Any]] = (),
        answers: Iterable[str] = (),
        variants: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Keeps what is voted on; what is there already stays, but for questions and variants, which may have been corrected.

        Args:
            questions: `id`, `conversation` (role and text of each turn), `cluster`; of `_KNOWN` what is known.
            answers: their texts.
            variants: name -> what the endpoint listed about it.
        """
        rows = [
            (
                q["id"],
                json.dumps(q["conversation"], ensure_ascii=False),
                *map(q.get, _KNOWN),
                q["cluster"],
            )
            for q in questions
        ]
        listed = [(name, json.dumps(dict(one), ensure_ascii=False)) for name, one in (variants or {}).items()]
        with self.writing():
            self.db.executemany("INSERT OR REPLACE INTO questions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self.db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", [(answer_hash(text), text) for text in answers])
            self.db.executemany("INSERT OR REPLACE INTO variants VALUES (?, ?)", listed)

    def cast(self, ballots: Sequence[Ballot]) -> None:
        """Adds votes: all of them, or none where it fails. They are on disk when this returns."""
        rows = [
            (
                one.voter, one.item.question, one.item.turn, one.item.model_a, one.item.model_b, one.item.a, one.item.b,
                one.item.group, one.winner, one.shown_left, one.kind, one.latency, json.dumps(one.reasons), one.note, one.time,
                one.seconds, one.undone,
            )
            for one in ballots
        ]  # fmt: skip
        with self.writing():
            self.db.executemany(_CAST, rows)

    def undo(self, voter: str) -> Ballot | None:
        """Takes the voter's last vote back; it stays in the file, marked. None where there is none."""
        with self.writing():
            row = self.db.execute(
                "SELECT * FROM votes WHERE voter = ? AND undone IS NULL ORDER BY id DESC LIMIT 1", (voter,)
            ).fetchone()
            if row is None:
                return None
            now = time.time()
            self.db.execute("UPDATE votes SET undone = ? WHERE id = ?", (now, row[0]))
        return replace(_ballot(row), undone=now)

    def ballots(self, voter: str | None = None) -> list[Ballot]:
        """All votes, or those of one voter, in the order they were cast, with those that were taken back."""
        with self.explained():
            rows = self.db.execute("SELECT * FROM votes WHERE ?1 IS NULL OR voter = ?1 ORDER BY id", (voter,))
            return [_ballot(row) for row in rows]

    def answers(self) -> dict[str, str]:
        """Hash -> text of every answer."""
        with self.explained():
            return dict(self.db.execute("SELECT hash, text FROM answers"))

    def questions(self) -> dict[str, dict[str, Any]]:
        """Id -> what is known about each question."""
        with self.explained():
            rows = self.db.execute("SELECT * FROM questions").fetchall()
        keys = ("id", "conversation", *_KNOWN, "cluster")
        return {row[0]: dict(zip(keys, (row[0], json.loads(row[1]), *row[2:]), strict=True)) for row in rows}

    def variants(self) -> dict[str, dict[str, Any]]:
        """Name -> what the endpoint listed about each variant."""
        with self.explained():
            return {name: json.loads(listing) for name, listing in self.db.execute("SELECT name, listing FROM variants")}


def ballots(name: str) -> list[Ballot]:
    """Every vote there is on a comparison.

    Raises:
        LlmbenchError: there are none, or the file cannot be read.
    """
    with VoteStore(path(name), new=False) as store:
        return store.ballots()


def _ballot(row: Sequence[Any]) -> Ballot:
    (
        id,
        voter,
        question,
        turn,
        model_a,
        model_b,
        a,
        b,
        group,
        winner,
        left,
        kind,
        latency,
        reasons,
        note,
        at,
        seconds,
        undone,
    ) = row
    return Ballot(
        voter=voter, item=AnswerPair(question, group, model_a, model_b, a, b, turn), winner=winner, shown_left=left, kind=kind,
        latency=latency, reasons=tuple(json.loads(reasons)), note=note, time=at, seconds=seconds, undone=undone, id=id,
    )  # fmt: skip
