"""Votes that others have published, read into a file of votes of this workspace.

| set | columns |
|---|---|
| MT-Bench human judgements | `question_id`, `model_a`, `model_b`, `winner`, `judge`, `conversation_a`, `..._b`, `turn` |
| Chatbot Arena conversations | the same, with `anony`, `tstamp`, and winner `tie (bothbad)` |
| Arena human preference 55k | `id`, `model_a`, `model_b`, `prompt`, `response_a`, `_b`, `winner_model_a`, `_b`, `winner_tie` |
| Arena human preference 100k, 140k | `id` or `question_id`, the columns of the first, `evaluation_session_id`, `timestamp` |

Whatever has `model_a`, `model_b` and `winner` is read; `shown_left` (a or b) says which side was which. In the Arena's sets
model_a stands on the left; where nothing is known of sides, votes tell nothing of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from llmbench import rows as reading
from llmbench import workspace
from llmbench.errors import DataError, LlmbenchError, MissingPackage
from llmbench.votes.store import VoteStore, answer_hash, path
from llmbench.votes.values import AnswerPair, Ballot, Winner

__all__ = ["ImportedVotes", "import_votes"]

_WINNERS: dict[str, Winner] = {
    "model_a": "model_a", "a": "model_a", "left": "model_a", "model_b": "model_b", "b": "model_b", "right": "model_b",
    "tie": "tie", "both_bad": "both_bad", "tie (bothbad)": "both_bad", "bothbad": "both_bad", "both bad": "both_bad",
}  # fmt: skip
_ARENA = ("anony", "evaluation_session_id", "winner_model_a")
"""Columns of the Arena's own sets, where model_a stands on the left."""
_FAULTS = 5
_LONGEST_FIELD = 10_000_000


@dataclass(frozen=True)
class ImportedVotes:
    """What was read. `left` is reason -> rows that are no votes."""

    name: str
    votes: int
    models: int
    voters: int
    questions: int
    left: Mapping[str, int]
    file: str


def import_votes(source: Path, name: str, *, left: Literal["a", "b"] | None = None, limit: int | None = None) -> ImportedVotes:
    """Reads a file into votes of the name, which must have none yet: all of it, or nothing.

    Args:
        source: .jsonl, .json (a list of rows), .csv or .parquet.
        name: of the votes, for `llmbench votes NAME`.
        left: the model that stood on the left, where no column says.
        limit: at most so many rows.

    Raises:
        DataError: the file cannot be read, or holds no vote; the first faults are named with their rows.
        LlmbenchError: there are votes of this name.
    """
    workspace.check_name(name, "--name")
    if path(name).exists():
        raise LlmbenchError(f"There are votes on {name} already ({path(name)}). Choose another name: --name OTHER")
    ballots, questions, texts, skipped, faults = _read(source, left, limit)
    if faults and not ballots:
        raise DataError("\n".join(faults))
    if not ballots:
        raise DataError(f"{source}: no vote in it. A row has model_a, model_b and winner (model_a, model_b, tie or both_bad).")
    with VoteStore(path(name)) as store:
        store.note({"source": str(source.absolute())})
        store.keep(questions.values(), texts, {model: {} for one in ballots for model in (one.item.model_a, one.item.model_b)})
        store.cast(ballots)
    return ImportedVotes(
        name=name,
        votes=len(ballots),
        models=len({model for one in ballots for model in (one.item.model_a, one.item.model_b)}),
        voters=len({one.voter for one in ballots}),
        questions=len(questions),
        left=skipped,
        file=str(path(name)),
    )


def _read(
    source: Path, left: Literal["a", "b"] | None, limit: int | None
) -> tuple[list[Ballot], dict[str, dict[str, Any]], set[str], dict[str, int], list[str]]:
    ballots: list[Ballot] = []
    questions: dict[str, dict[str, Any]] = {}
    texts: set[str] = set()
    skipped: Counter[str] = Counter()
    faults: list[str] = []
    for number, row in _rows(source):
        if limit is not None and len(ballots) >= limit:
            break
        try:
            ballot, question, answers = _vote(row, number, left)
        except ValueError as error:
            skipped[str(error)] += 1
            if len(faults) < _FAULTS:
                faults.append(f"{source}:{number}: {error}")
            continue
        ballots.append(ballot)
        questions.setdefault(question["id"], question)
        texts.update(answers)
    return ballots, questions, texts, dict(skipped), faults


def _vote(row: Any, number: int, left: Literal["a", "b"] | None) -> tuple[Ballot, dict[str, Any], tuple[str, str]]:
    """One row. Raises ValueError with the reason why it is no vote."""
    if not isinstance(row, Mapping):
        raise ValueError("a row is an object with model_a, model_b and winner")
    a, b = (row.get(key) for key in ("model_a", "model_b"))
    if not (isinstance(a, str) and isinstance(b, str) and a and b):
        raise ValueError("model_a or model_b is missing")
    if a == b:
        raise ValueError("model_a and model_b are the same")
    winner = _winner(row)
    turns_a, turns_b = _turns(row, "a"), _turns(row, "b")
    texts = tuple(next((text for role, text in reversed(turns) if role == "assistant"), "") for turns in (turns_a, turns_b))
    asked = [list(turn) for turn in _asked(turns_a)]
    if isinstance(row.get("turn"), int | float) and not isinstance(row["turn"], bool):
        turn = max(1, int(row["turn"]))
    else:
        turn = max(1, sum(role == "user" for role, _ in asked))
    id = str(row.get("question_id") or row.get("id") or row.get("uid") or f"row {number}")
    # The second turn of a conversation is a question of its own, though of the same group.
    key = id if turn == 1 else f"{id}/{turn}"
    shown = row.get("shown_left")
    side = shown if shown in ("a", "b") else left or ("a" if any(column in row for column in _ARENA) else None)
    item = AnswerPair(key, id, a, b, answer_hash(texts[0]), answer_hash(texts[1]), turn)
    voter = str(row.get("judge") or row.get("voter") or row.get("evaluation_session_id") or f"voter of row {number}")
    ballot = Ballot(voter, item, winner, side, latency="shown", time=_time(row))
    question = {"id": key, "conversation": asked, "cluster": id, "split": _text(row.get("split"))}
    return ballot, question, (texts[0], texts[1])


def _winner(row: Mapping[str, Any]) -> Winner:
    if "winner_model_a" in row:
        flags = ("winner_model_a", "winner_model_b", "winner_tie")
        said = [flag for flag in flags if row.get(flag) in (1, True, "1", "True", "true")]
        if len(said) != 1:
            raise ValueError("not just one of winner_model_a, winner_model_b and winner_tie is 1")
        return "tie" if said[0] == "winner_tie" else "model_a" if said[0] == "winner_model_a" else "model_b"
    winner = _WINNERS.get(str(row.get("winner")).strip().lower())
    if winner is None:
        raise ValueError("winner is none of model_a, model_b, tie and both_bad")
    return winner


def _turns(row: Mapping[str, Any], side: str) -> list[tuple[str, str]]:
    """The conversation with one model; empty where the set holds only votes."""
    value = row.get(f"conversation_{side}")
    if isinstance(value, str):
        value = _json(value)
    if value is not None:
        return [(str(one.get("role")), _words(one.get("content"))) for one in value if isinstance(one, Mapping)]
    asked, answered = (_json(row.get(key)) for key in ("prompt", f"response_{side}"))
    if asked is None:
        return []
    answers = list(answered) if isinstance(answered, list) else [answered]
    turns: list[tuple[str, str]] = []
    for question, answer in zip(asked if isinstance(asked, list) else [asked], answers, strict=False):
        turns += [("user", _words(question)), ("assistant", _words(answer))]
    return turns


def _asked(turns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What stands before the last answer."""
    while turns and turns[-1][0] == "assistant":
        turns = turns[:-1]
    return turns


def _json(value: Any) -> Any:
    """A column of text that holds JSON, as CSV has it; else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _words(value: Any) -> str:
    """The text of a message; of one in parts, those of text."""
    if isinstance(value, list):
        return "\n".join(str(part.get("text", "")) for part in value if isinstance(part, Mapping))
    return "" if value is None else str(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(row: Mapping[str, Any]) -> float:
    value = row.get("tstamp") or row.get("timestamp")
    if isinstance(value, datetime):
        return value.timestamp()
    try:
        return float(value) if value else 0.0
    except (TypeError, ValueError):
        try:
            return datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            return 0.0


def _rows(source: Path) -> Iterator[tuple[int, Any]]:
    try:
        match source.suffix.lower():
            case ".parquet":
                yield from _parquet(source)
            case ".csv":
                yield from _csv(source)
            case ".json":
                yield from enumerate(_listed(source), 1)
            case _:
                with source.open(encoding="utf-8-sig") as file:
                    for number, line in reading.lines(file):
                        yield number, _line(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}). Name a .jsonl, .json, .csv or .parquet file.") from error


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _listed(source: Path) -> Iterable[Any]:
    try:
        value = json.loads(source.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not valid JSON. Name a file that holds a list of votes, or JSONL.") from error
    found: Any = value if isinstance(value, list) else [value]
    return list(found)


def _csv(source: Path) -> Iterator[tuple[int, Any]]:
    import csv

    with source.open(encoding="utf-8-sig", newline="") as file:
        records = reading.records(file, csv.excel, longest=_LONGEST_FIELD)
        names: list[str] | None = None
        for number, record in records:
            if isinstance(record, csv.Error):
                raise DataError(f"{source}:{number}: not CSV ({record})")
            if names is None:
                names = record
                continue
            found = reading.by_name(record, names)
            yield number, None if isinstance(found, str) else found


def _parquet(source: Path) -> Iterator[tuple[int, Any]]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackage("votes import", "datasets", "train") from error
    with pq.ParquetFile(source) as file:
        yield from reading.unpacked(file.iter_batches(1000))
